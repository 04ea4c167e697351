"""Index files of hnswlib 0.7 and 0.8, read without its code; the original nopokedb and Chroma keep their vectors so.

Little-endian; there is no magic and no checksum:

    0   u64 0 (offset of level 0)         8   u64 elements it has room for      16  u64 elements
    24  u64 bytes per element             32  u64 offset of the label in it     40  u64 offset of the vector in it
    48  i32 highest level                 52  u32 entry point                   56  u64 links per element above level 0
    64  u64 links at level 0, 2 M         72  u64 M                             80  f64 level factor
    88  u64 ef_construction
    96  elements, each: u16 number of links, u8 1 if deleted, u8, u32[2 M] links, f32[dim] vector, u64 label
        then for each element: u32 length, and so many bytes of links of its higher levels

Nothing in it is believed: every size is compared with the others and with the file before it is used, links are stepped
over, and it is never handed to native code. Under cosine hnswlib stored unit vectors; the lengths that the user's
vectors had are not in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nopokedb.errors import ArchiveError
from nopokedb.moving.origin import BareIndex, damaged, pieces
from nopokedb.records import MAX_DIM, Space

HEADER = np.dtype(
    [
        ("offset0", "<u8"), ("room", "<u8"), ("count", "<u8"), ("width", "<u8"), ("label_at", "<u8"),
        ("vector_at", "<u8"), ("level", "<i4"), ("entry", "<u4"), ("links", "<u8"), ("links0", "<u8"), ("M", "<u8"),
        ("factor", "<f8"), ("ef_construction", "<u8"),
    ]
)  # fmt: skip
_MAX_M = 10_000
"""hnswlib's own limit."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a header says."""

    dim: int
    M: int
    ef_construction: int
    count: int
    width: int
    """Bytes of an element."""
    vector_at: int
    """Where the vector stands in it."""

    def element(self) -> np.dtype[np.void]:
        """An element."""
        return np.dtype(
            {
                "names": ["mark", "vector", "label"],
                "formats": ["u1", ("<f4", (self.dim,)), "<i8"],
                "offsets": [2, self.vector_at, self.width - 8],
                "itemsize": self.width,
            }
        )


def read_head(path: Path, data: bytes) -> Head:
    """A header, every size in it compared with the others. Raises `ArchiveError`."""
    if len(data) < HEADER.itemsize:
        raise damaged(path, f"expected at least {HEADER.itemsize} bytes, got {len(data)}")
    head = {name: np.frombuffer(data, HEADER, 1)[name][0].item() for name in HEADER.names or ()}
    m = head["M"]
    vector_bytes = head["label_at"] - head["vector_at"]
    dim = vector_bytes // 4
    fits = (
        head["offset0"] == 0
        and head["count"] <= head["room"]
        and 1 <= m <= _MAX_M
        and head["links"] == m
        and head["links0"] == 2 * m
        and head["vector_at"] == 8 * m + 4
        and 0 < vector_bytes == 4 * dim
        and dim <= MAX_DIM
        and head["width"] == head["label_at"] + 8
    )
    if not fits:
        raise damaged(path, "the header is none of an hnswlib index")
    return Head(dim, m, head["ef_construction"], head["count"], head["width"], head["vector_at"])


def offsets_by_label(path: Path, head: Head, start: int) -> dict[int, int]:
    """By label the byte of the vector, of elements that stand from byte `start` on and are not deleted."""
    found: dict[int, int] = {}
    for first, data in pieces(path, start, head.width, head.count):
        elements = np.frombuffer(data, head.element())
        alive = (elements["mark"] & 1) == 0
        for at, label in zip(np.flatnonzero(alive).tolist(), elements["label"][alive].tolist(), strict=True):
            if label in found:
                raise damaged(path, f"the id {label} stands in it twice", start)
            found[label] = start + (first + at) * head.width + head.vector_at
    return found


def open_hnswlib(path: Path, space: Space | None) -> BareIndex:
    """A file that `hnswlib.Index.save_index` wrote. It does not say its space."""
    with path.open("rb") as file:
        head = read_head(path, file.read(HEADER.itemsize))
    if space is None:
        raise ArchiveError("expected the space of the index, which its file does not say: give --space", file=str(path))
    return BareIndex("hnswlib", path, head.dim, space, offsets_by_label(path, head, HEADER.itemsize))
