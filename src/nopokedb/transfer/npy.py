"""NumPy's files, read and written piece by piece, and never with pickled objects.

NPY holds vectors alone. NPZ is a zip file of arrays: each array of n rows is a column. What is written there are
`vectors` and, since texts and objects are no arrays, `records.jsonl`: a line of id, text and metadata for each vector.
It is read back by its name.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from nopokedb.errors import ArchiveError
from nopokedb.transfer.layout import load_json
from nopokedb.transfer.rows import Content, Row, Source, damaged, extra_fields

_PIECE_BYTES = 4 * 2**20
_RECORDS = "records.jsonl"


@dataclass(frozen=True, slots=True)
class _Head:
    """What the header of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


def _head(file: IO[bytes], path: Path, name: str) -> _Head:
    """Read the header; the file then stands at the first row."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columnwise, dtype = read(file)
    except ValueError as error:
        raise damaged(path, f"expected {name} to be a NumPy array, got something else ({error})") from None
    if dtype.hasobject:
        raise damaged(path, f"expected {name} to hold numbers or strs, got pickled objects, which are not read")
    if columnwise and len(shape) > 1:
        raise damaged(path, f"expected {name} row by row, got it column by column", "; save np.ascontiguousarray(it)")
    if not shape:
        raise damaged(path, f"expected {name} to have rows, got a single value")
    return _Head(shape, dtype)


def _pieces(file: IO[bytes], head: _Head, start: int, path: Path, name: str) -> Iterator[Any]:
    """The rows from `start` on, one by one; the file stands at the first row of all."""
    width = head.row_bytes
    if file.seekable() and not isinstance(file, zipfile.ZipExtFile):
        file.seek(start * width, 1)
    else:
        _skip(file, start * width)
    many = max(1, _PIECE_BYTES // max(1, width))
    for at in range(start, head.shape[0], many):
        count = min(many, head.shape[0] - at)
        data = _read(file, count * width)
        if len(data) < count * width:
            raise damaged(path, f"{name} ends early, in row {at + len(data) // max(1, width) + 1} of {head.shape[0]}")
        yield from np.frombuffer(data, head.dtype).reshape(count, *head.shape[1:])


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    while len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data


def _skip(file: IO[bytes], count: int) -> None:
    while count > 0 and (data := file.read(min(count, _PIECE_BYTES))):
        count -= len(data)


class NpySource(Source):
    """Vectors of an .npy file."""

    columns = ("vector",)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            head = _head(self._file, path, "the file")
            if len(head.shape) != 2:
                raise damaged(path, f"expected vectors of shape (n, dim), got {head.shape}")
        except ArchiveError:
            self._file.close()
            raise
        self._head, self._begin = head, self._file.tell()
        self.count = head.shape[0]

    def rows(self, start: int) -> Iterator[Row]:
        self._file.seek(self._begin)
        for number, vector in enumerate(_pieces(self._file, self._head, start, self._path, "the file"), start):
            yield Row(number, number + 1, {"vector": vector})

    def close(self) -> None:
        self._file.close()


class NpzSource(Source):
    """Arrays of an .npz file as columns."""

    def __init__(self, path: Path, vector: str | None) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise damaged(path, f"expected an .npz file, got something else ({error})") from None
        heads = {}
        for name in self._zip.namelist():
            if name.endswith(".npy"):
                with self._zip.open(name) as file:
                    heads[name.removesuffix(".npy")] = _head(file, path, name)
        tables = [name for name, head in heads.items() if len(head.shape) == 2 and head.dtype.kind in "fiu"]
        if vector is None:
            vector = tables[0] if len(tables) == 1 else next((n for n in ("vectors", "vector") if n in tables), None)
        if vector not in heads or len(heads[vector].shape) != 2:
            self.close()
            raise damaged(path, f"expected one array of vectors, got {', '.join(heads) or 'none'}", "; name one")
        self.count = heads[vector].shape[0]
        self.vector = vector
        self._heads = {name: head for name, head in heads.items() if head.shape[0] == self.count}
        self._has_records = _RECORDS in self._zip.namelist()
        own = ["id", "text", "metadata"] if self._has_records else []
        self.columns = [*self._heads, *own]

    def rows(self, start: int) -> Iterator[Row]:
        files = [self._zip.open(name + ".npy") for name in self._heads]
        lines = self._zip.open(_RECORDS) if self._has_records else None
        try:
            columns = []
            for file, (name, head) in zip(files, self._heads.items(), strict=True):
                _head(file, self._path, name)
                columns.append(_pieces(file, head, start, self._path, name))
            for _ in range(start if lines is not None else 0):
                assert lines is not None
                lines.readline()
            for number, values in enumerate(zip(*columns, strict=True), start):
                fields: dict[str, Any] = {
                    name: value if isinstance(value, np.ndarray) else value.item()
                    for name, value in zip(self._heads, values, strict=True)
                }
                if lines is not None:
                    fields |= _object(lines.readline(), self._path, number)
                yield Row(number, number + 1, fields)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise damaged(self._path, error) from None
        finally:
            for file in [*files, *([lines] if lines is not None else [])]:
                file.close()

    def close(self) -> None:
        self._zip.close()


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = load_json(line)
    except ValueError as error:
        raise damaged(path, f"line {number + 1} of {_RECORDS} is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise damaged(path, f"line {number + 1} of {_RECORDS} is no object")
    return value


def _write_vectors(file: IO[bytes], content: Content) -> None:
    head = {"descr": "<f4", "fortran_order": False, "shape": (content.count, content.dim)}
    np.lib.format.write_array_header_1_0(file, head)
    for batch in content.batches(("vector",)):
        for record in batch:
            assert record.vector is not None
            file.write(record.vector.astype("<f4").tobytes())


def write_npy(path: Path, content: Content) -> None:
    """Write the vectors, and nothing else."""
    with path.open("wb") as file:
        _write_vectors(file, content)


def write_npz(path: Path, content: Content) -> None:
    """Write the vectors as an array, everything else as lines."""
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as file:
            _write_vectors(file, content)
        info = zipfile.ZipInfo(_RECORDS)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as file:
            for batch in content.batches(("metadata", "text")):
                file.write(b"".join(extra_fields(record) + b"\n" for record in batch))
