"""Index files of FAISS that hold whole vectors, read without its code: flat, HNSW over flat, IVF with flat lists, and
maps of ids over these. The layout is that of `faiss/impl/index_write.cpp`; little-endian:

    index    u32 kind; i32 dim, i64 vectors, i64, i64, u8 trained, i32 metric (0 ip, 1 l2), f32 if metric > 1; then of
    IxF2 IxFI IxFl   u64 count of floats, the floats
    IHNf             seven parts of the graph, which are stepped over; an index with the vectors
    IwFl             u64 lists, u64 probes; an index of the centres; u8, array of i64; inverted lists "ilar"
    IxMp IxM2        an index; array of i64: the ids

Kinds that keep codes in place of vectors (PQ, SQ, RaBitQ ...) are refused: what was given is not in them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from nopokedb.errors import ArchiveError
from nopokedb.moving.origin import LOST, BareIndex, damaged
from nopokedb.records import MAX_DIM, Space

_FLAT = ("IxF2", "IxFI", "IxFl")
_HNSW_VECTORS = (8, 4, 4, 8, 4)
"""Widths of the entries of the graph's arrays: probabilities, neighbours per level, levels, offsets, neighbours."""
_MAX_DEPTH = 4
Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Ids, and the byte of each one's vector."""


def open_faiss(path: Path, space: Space | None) -> BareIndex:
    """A file that `faiss.write_index` wrote."""
    with path.open("rb") as file:
        reader = _Reader(path, file)
        dim, metric, (ids, places) = reader.index(0)
        if file.tell() != reader.size:
            raise damaged(path, f"{reader.size - file.tell()} bytes stand behind the index", file.tell())
    own: Space | None = {0: "ip", 1: "l2"}.get(metric)  # type: ignore[assignment]
    if own is None:
        raise ArchiveError(f"expected the metric ip or l2, got FAISS' number {metric} in {path}", file=str(path))
    if len(np.unique(ids)) != len(ids):
        raise ArchiveError(f"expected every id once in {path}, got some twice", file=str(path))
    return BareIndex("faiss", path, dim, space or own, dict(zip(ids.tolist(), places.tolist(), strict=True)))


class _Reader:
    """One pass over the file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.size = path.stat().st_size

    def _values(self, layout: str) -> tuple[Any, ...]:
        at = self._file.tell()
        data = self._file.read(struct.calcsize("<" + layout))
        try:
            return struct.unpack("<" + layout, data)
        except struct.error:
            raise damaged(self._path, "the file ends early", at) from None

    def _array(self, width: int) -> tuple[int, int]:
        """(where it begins, how many entries) of an array, which is stepped over."""
        (count,) = self._values("Q")
        at = self._file.tell()
        if count * width > self.size - at:
            raise damaged(self._path, f"expected {count} entries of {width} bytes, but the file ends early", at)
        self._file.seek(at + count * width)
        return at, count

    def _numbers(self) -> npt.NDArray[np.int64]:
        at, count = self._array(8)
        self._file.seek(at)
        return np.frombuffer(self._file.read(8 * count), "<i8")

    def index(self, depth: int) -> tuple[int, int, Places]:
        """Dimension, metric, and where the vectors are."""
        at = self._file.tell()
        kind = self._values("4s")[0].decode("latin-1")
        readers: dict[str, Callable[[int, int, int], Places]] = {
            **dict.fromkeys(_FLAT, self._flat),
            "IHNf": self._hnsw,
            "IwFl": self._ivf,
            "IxMp": self._mapped,
            "IxM2": self._mapped,
        }
        if kind not in readers or depth > _MAX_DEPTH:
            raise ArchiveError(
                f"expected a FAISS index of whole vectors (flat, HNSW or IVF of flat ones, with ids or without), got "
                f"the kind {kind!r} in {self._path} at byte {at}: {LOST}",
                file=str(self._path),
                offset=at,
            )
        dim, count, _, _, _, metric = self._values("iqqqBi")
        if metric > 1:
            self._values("f")
        if not 1 <= dim <= MAX_DIM or not 0 <= count <= self.size:
            raise damaged(self._path, f"it has {count} vectors of dimension {dim}", at)
        return dim, metric, readers[kind](dim, count, depth)

    def _flat(self, dim: int, count: int, depth: int) -> Places:
        at, floats = self._array(4)
        if floats != dim * count:
            raise damaged(self._path, f"expected {dim * count} floats, got {floats}", at)
        numbers = np.arange(count, dtype=np.int64)
        return numbers, at + 4 * dim * numbers

    def _hnsw(self, dim: int, count: int, depth: int) -> Places:
        for width in _HNSW_VECTORS:
            self._array(width)
        self._values("iiiii")  # entry point, highest level, list lengths, one that is no longer used
        return self._inner(dim, count, depth)

    def _mapped(self, dim: int, count: int, depth: int) -> Places:
        numbers, places = self._inner(dim, count, depth)
        ids = self._numbers()
        if len(ids) != count or (count and not 0 <= numbers.min() <= numbers.max() < count):
            raise damaged(self._path, f"expected {count} ids, got {len(ids)}", self._file.tell())
        return ids[numbers], places

    def _inner(self, dim: int, count: int, depth: int) -> Places:
        at = self._file.tell()
        inner, _, (ids, places) = self.index(depth + 1)
        if inner != dim or len(ids) != count:
            raise damaged(self._path, f"expected {count} vectors of dimension {dim}, got {len(ids)} of {inner}", at)
        return ids, places

    def _ivf(self, dim: int, count: int, depth: int) -> Places:
        lists, _ = self._values("QQ")
        self.index(depth + 1)
        (kind,) = self._values("B")  # of the map from ids to places
        self._array(8)
        if kind == 2:
            self._array(16)
        at = self._file.tell()
        name, number, width, form = self._values("4sQQ4s")
        if name != b"ilar" or number != lists or width != 4 * dim or form not in (b"full", b"sprs"):
            raise damaged(self._path, "its inverted lists are none of whole vectors", at)
        sizes = self._numbers()
        if form == b"sprs":
            sizes = sizes.reshape(-1, 2)[:, 1]
        if (sizes < 0).any() or sizes.sum() != count:
            raise damaged(self._path, f"expected {count} vectors in its lists, got {sizes.sum()}", at)
        ids, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for length in sizes.tolist():
            if not length:
                continue
            start = self._file.tell()
            self._file.seek(start + length * width)
            places.append(start + width * np.arange(length, dtype=np.int64))
            ids.append(np.array(self._values(f"{length}q"), np.int64))
        return np.concatenate(ids), np.concatenate(places)
