"""HDF5 as ann-benchmarks lays it out: vectors in the dataset `train`, the space in the attribute `distance`.

Texts, metadata and ids are none of that layout; they are written as the dataset `records`, one JSON object for each
vector, and read back by that name. Other datasets of one dimension and n rows are columns; `test`, `neighbors` and
`distances` are read only where they are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.records import Space
from nopokedb.transfer.layout import load_json
from nopokedb.transfer.rows import Content, Row, Source, damaged, extra_fields, needed

try:
    import h5py
except ModuleNotFoundError as error:
    raise ImportError(needed("h5py")) from error

_SPACES: dict[str, Space] = {"angular": "cosine", "cosine": "cosine", "euclidean": "l2", "dot": "ip", "ip": "ip"}
_NAMES: dict[Space, str] = {"cosine": "angular", "l2": "euclidean", "ip": "dot"}
_RECORDS = "records"
_PIECE_BYTES = 4 * 2**20
_PIECE_ROWS = 1000


class Hdf5Source(Source):
    """Rows of an HDF5 file."""

    def __init__(self, path: Path, vector: str | None) -> None:
        self._path = path
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise damaged(path, f"expected an HDF5 file, got something else ({error})") from None
        datasets = {name: item for name, item in self._file.items() if isinstance(item, h5py.Dataset)}
        name = vector or "train"
        if name not in datasets or len(datasets[name].shape) != 2:
            self.close()
            raise damaged(path, f"expected a dataset {name!r} of vectors, got {', '.join(datasets) or 'none'}")
        self.count = int(datasets[name].shape[0])
        self.vector = name
        same = {key: item for key, item in datasets.items() if item.shape == (self.count,)}
        self._records = same.pop(_RECORDS, None)
        self._columns = {name: datasets[name], **same}
        own = ["id", "text", "metadata"] if self._records is not None else []
        self.columns = [*self._columns, *own]
        distance = self._file.attrs.get("distance")
        self.space = _SPACES.get(distance.decode() if isinstance(distance, bytes) else str(distance))

    def rows(self, start: int) -> Iterator[Row]:
        assert self.count is not None
        widest = max(item.dtype.itemsize * int(np.prod(item.shape[1:])) for item in self._columns.values())
        many = max(1, min(_PIECE_ROWS, _PIECE_BYTES // max(1, widest)))
        for at in range(start, self.count, many):
            try:
                columns = {name: item[at : at + many] for name, item in self._columns.items()}
                records = None if self._records is None else self._records[at : at + many]
            except OSError as error:
                raise damaged(self._path, error) from None
            for n in range(min(many, self.count - at)):
                fields = {name: _value(column[n]) for name, column in columns.items()}
                if records is not None:
                    fields |= self._object(records[n], at + n)
                yield Row(at + n, at + n + 1, fields)

    def _object(self, line: Any, number: int) -> dict[str, Any]:
        try:
            value = load_json(line if isinstance(line, bytes) else str(line).encode())
        except ValueError as error:
            raise damaged(self._path, f"entry {number + 1} of {_RECORDS} is no JSON ({error})") from None
        if not isinstance(value, dict):
            raise damaged(self._path, f"entry {number + 1} of {_RECORDS} is no object")
        return value

    def close(self) -> None:
        self._file.close()


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value  # refused as what no record can hold
    return value if isinstance(value, np.ndarray) or not isinstance(value, np.generic) else value.item()


def write(path: Path, content: Content) -> None:
    """Write the vectors as ann-benchmarks has them, everything else beside them."""
    with h5py.File(path, "w") as file:
        train = file.create_dataset("train", (content.count, content.dim), "f4")
        lines = file.create_dataset(_RECORDS, (content.count,), h5py.string_dtype())
        file.attrs.update(
            {"distance": _NAMES[content.space], "dimension": content.dim, "type": "dense", "point_type": "float"}
        )
        at = 0
        for batch in content.batches(("metadata", "vector", "text")):
            train[at : at + len(batch)] = np.stack([record.vector for record in batch])  # type: ignore[misc]  # asked for
            lines[at : at + len(batch)] = [extra_fields(record).decode() for record in batch]
            at += len(batch)
