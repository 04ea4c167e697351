"""fvecs and bvecs, the files of the SIFT and GIST collections: vectors alone.

Each row is an i32, the dimension, and so many components: f32 (fvecs) or u8 (bvecs), little-endian. All rows have the
same dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nopokedb.errors import InvalidInputError
from nopokedb.records import MAX_DIM
from nopokedb.transfer.rows import Content, Row, Source, damaged

Kind = Literal["fvecs", "bvecs"]
_COMPONENT: dict[Kind, np.dtype[Any]] = {"fvecs": np.dtype("<f4"), "bvecs": np.dtype("u1")}
_PIECE_BYTES = 4 * 2**20


class VecsSource(Source):
    """Vectors of an fvecs or bvecs file."""

    columns = ("vector",)

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        size = path.stat().st_size
        self._file = path.open("rb")
        head = self._file.read(4)
        dim = int.from_bytes(head, "little", signed=True)
        self._width = 4 + dim * _COMPONENT[kind].itemsize
        if len(head) < 4 or not 1 <= dim <= MAX_DIM or size < self._width:
            self._file.close()
            raise damaged(path, f"expected a {kind} file, got {size} bytes that begin with the dimension {dim}")
        self._row = np.dtype([("dim", "<i4"), ("vector", _COMPONENT[kind], (dim,))])
        self._dim = dim
        self.count = -(-size // self._width)

    def rows(self, start: int) -> Iterator[Row]:
        self._file.seek(start * self._width)
        number, many = start, max(1, _PIECE_BYTES // self._width)
        while data := self._file.read(many * self._width):
            whole = len(data) // self._width
            for row in np.frombuffer(data, self._row, whole):
                if row["dim"] != self._dim:
                    yield Row(number, number + 1, {}, f"expected the dimension {self._dim}, got {row['dim']}")
                else:
                    yield Row(number, number + 1, {"vector": row["vector"]})
                number += 1
            if left := len(data) % self._width:
                yield Row(number, number + 1, {}, f"the file ends early: {left} of {self._width} bytes")
                return

    def close(self) -> None:
        self._file.close()


def write(path: Path, content: Content, kind: Kind) -> None:
    """Write the vectors, and nothing else. bvecs holds whole numbers from 0 to 255; others are refused."""
    row = np.dtype([("dim", "<i4"), ("vector", _COMPONENT[kind], (content.dim,))])
    with path.open("wb") as file:
        for batch in content.batches(("vector",)):
            vectors = np.stack([record.vector for record in batch])  # type: ignore[misc]  # asked for
            rows = np.zeros(len(batch), row)
            rows["dim"] = content.dim
            if kind == "bvecs":
                wrong = ((vectors != np.floor(vectors)) | (vectors < 0) | (vectors > 255)).any(axis=1)
                if wrong.any():
                    raise InvalidInputError(
                        f"expected whole components from 0 to 255 for bvecs, got others in the vector of "
                        f"{batch[int(np.argmax(wrong))].id!r}; export fvecs"
                    )
            rows["vector"] = vectors
            file.write(rows.tobytes())
