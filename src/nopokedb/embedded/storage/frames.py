"""The payload of a log frame: the after-images of one batch, complete enough to be replayed without any state.

Layout, little-endian, sections without padding:

    u32 generation           number of the set of vectors, metadata and labels it belongs to
    u32 label_count          new record versions
    u32 row_count            new vectors
    u32 retired_count        labels that stop being live, after the new ones became live
    u32 first_label, u32 first_row
    u64 next_auto_id         the counter of automatic ids after this batch
    u32 dim, u32 flags       bit 0: the section "computed" is there
    u32[label_count] row of each new label (a new row, or an older one that it shares)
    u32[label_count] previous label on that row, NONE if the row is new
    u32[retired_count] retired labels
    i32[label_count] length of each str id in bytes, -1 for an int id
    u32[label_count] length of each metadata
    i32[label_count] length of each text, -1 for none
    u8[row_count] computed   1: the vector was computed from the text; only with flag bit 0
    ids                      i64 or UTF-8, in order
    metadata                 JSON, in order
    texts                    UTF-8, in order
    f32[row_count * dim]     the vectors
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nopokedb.records import Id, Vectors

_HEAD = struct.Struct("<IIIIIIQII")
_I64 = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Frame:
    """One atomic batch as `apply` wants it. All per-label lists have the same length."""

    generation: int
    first_label: int
    first_row: int
    next_auto_id: int
    rows: npt.NDArray[np.uint32]
    previous: npt.NDArray[np.uint32]
    retired: npt.NDArray[np.uint32]
    ids: list[Id]
    metadatas: list[bytes]
    texts: list[str | None]
    vectors: Vectors
    """Shape (row_count, dim)."""
    lsn: int = 0
    computed: npt.NDArray[np.uint8] | None = None
    """Per new row 1 if its vector was computed from the text; None: all were given by hand."""

    @property
    def label_count(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> range:
        """The labels of the versions that it writes."""
        return range(self.first_label, self.first_label + len(self.ids))


def encode_frame(frame: Frame) -> bytes:
    """The payload bytes of a frame."""
    texts = [None if text is None else text.encode() for text in frame.texts]
    count = frame.label_count
    if not any(type(id_) is str for id_ in frame.ids):
        id_lengths = np.full(count, -1, "<i4")
        ids = np.array(frame.ids, "<i8").tobytes()
    else:
        encoded = [id_.encode() if isinstance(id_, str) else _I64.pack(id_) for id_ in frame.ids]
        id_lengths = np.array(
            [len(e) if isinstance(i, str) else -1 for i, e in zip(frame.ids, encoded, strict=True)], "<i4"
        )
        ids = b"".join(encoded)
    return b"".join(
        (
            _HEAD.pack(
                frame.generation,
                count,
                len(frame.vectors),
                len(frame.retired),
                frame.first_label,
                frame.first_row,
                frame.next_auto_id,
                frame.vectors.shape[1],
                0 if frame.computed is None else 1,
            ),
            frame.rows.astype("<u4", copy=False).tobytes(),
            frame.previous.astype("<u4", copy=False).tobytes(),
            frame.retired.astype("<u4", copy=False).tobytes(),
            id_lengths.tobytes(),
            np.fromiter(map(len, frame.metadatas), "<u4", count).tobytes(),
            np.array([-1 if text is None else len(text) for text in texts], "<i4").tobytes(),
            b"" if frame.computed is None else frame.computed.tobytes(),
            ids,
            *frame.metadatas,
            *(text for text in texts if text is not None),
            np.ascontiguousarray(frame.vectors, "<f4").data,
        )
    )


def decode_frame(payload: bytes, lsn: int) -> Frame:
    """The frame that `encode_frame` wrote; the vectors are a view of `payload`."""
    generation, labels, row_count, retired, first_label, first_row, next_auto_id, dim, flags = _HEAD.unpack_from(
        payload
    )
    at = _HEAD.size

    def numbers(dtype: str, count: int) -> npt.NDArray[Any]:
        nonlocal at
        array = np.frombuffer(payload, dtype, count, at)
        at += array.nbytes
        return array

    def pieces(lengths: list[int]) -> list[bytes]:
        nonlocal at
        found = []
        for length in lengths:
            found.append(payload[at : at + length])
            at += length
        return found

    rows, previous, gone = numbers("<u4", labels), numbers("<u4", labels), numbers("<u4", retired)
    id_lengths = numbers("<i4", labels).tolist()
    metadata_lengths = numbers("<u4", labels).tolist()
    text_lengths = numbers("<i4", labels).tolist()
    computed = numbers("u1", row_count) if flags & 1 else None
    ids: list[Id] = [
        piece.decode() if length >= 0 else _I64.unpack(piece)[0]
        for length, piece in zip(id_lengths, pieces([8 if n < 0 else n for n in id_lengths]), strict=True)
    ]
    metadatas = pieces(metadata_lengths)
    texts = [
        None if length < 0 else piece.decode()
        for length, piece in zip(text_lengths, pieces([max(n, 0) for n in text_lengths]), strict=True)
    ]
    vectors = numbers("<f4", row_count * dim).reshape(row_count, dim)
    return Frame(
        generation,
        first_label,
        first_row,
        next_auto_id,
        rows,
        previous,
        gone,
        ids,
        metadatas,
        texts,
        vectors,
        lsn,
        computed,
    )
