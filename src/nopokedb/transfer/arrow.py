"""Arrow: IPC files and streams (Feather too), and what Parquet shares with them.

Written are the columns id (int64; string where there are strs; where there are both, strings as `rows.id_text` says,
and the schema says so under the key "nopokedb.ids"), text, metadata (JSON) and vector (a list of fixed length). A block
of the file is held in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nopokedb.errors import InvalidInputError, InvalidVectorError
from nopokedb.records import Part, Record
from nopokedb.transfer.rows import Content, Row, Source, damaged, id_of_text, id_text, needed

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ModuleNotFoundError as error:
    raise ImportError(needed("pyarrow")) from error

IDS_KEY = b"nopokedb.ids"
_FILE_MAGIC = b"ARROW1"
PARTS: tuple[Part, ...] = ("metadata", "vector", "text")


class ArrowSource(Source):
    """Rows of an Arrow file or stream."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pa.OSFile(str(path), "rb")  # not mapped: a file that is shortened meanwhile would kill the process
        self._size = path.stat().st_size
        try:
            self._is_file = self._file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            self._schema = self._open().schema
        except pa.ArrowException as error:
            self.close()
            raise damaged(path, f"expected an Arrow file or stream, got something else ({error})") from None
        self.columns = self._schema.names

    def _open(self) -> Any:
        self._file.seek(0)
        return pa.ipc.open_file(self._file) if self._is_file else pa.ipc.open_stream(self._file)

    def rows(self, start: int) -> Iterator[Row]:
        try:
            yield from rows_of(self._batches(), start)
        except pa.ArrowException as error:
            raise damaged(self._path, error) from None

    def _batches(self) -> Iterator[Any]:
        reader = self._open()
        if not self._is_file:
            yield from reader
            return
        for at in range(reader.num_record_batches):
            yield reader.get_batch(at)

    def done(self, row: Row) -> float | None:
        return self._file.tell() / self._size if self._size else None

    def close(self) -> None:
        self._file.close()


def rows_of(batches: Iterator[Any], start: int, number: int = 0) -> Iterator[Row]:
    """The rows from `start` on of record batches that begin with row `number`."""
    for batch in batches:
        if number + batch.num_rows > start:
            part = batch.slice(max(0, start - number))
            first = max(start, number)
            for at in range(0, part.num_rows, 1000):
                yield from _rows(part.slice(at, 1000), first + at)
        number += batch.num_rows


def _rows(batch: Any, number: int) -> Iterator[Row]:
    """Rows of a few."""
    names = batch.schema.names
    columns = [_cells(batch.schema, name, column) for name, column in zip(names, batch.columns, strict=True)]
    for at, values in enumerate(zip(*columns, strict=True)):
        # Null is how a table says that there is nothing.
        fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        yield Row(number + at, number + at + 1, fields)


def _cells(schema: Any, name: str, column: Any) -> Sequence[Any]:
    """The cells of an array; ids as they were before they were written as text."""
    values = values_of(column)
    if name == "id" and (schema.metadata or {}).get(IDS_KEY) == b"text":
        return [id_of_text(value) if isinstance(value, str) else value for value in values]
    return values


def values_of(column: Any) -> Sequence[Any]:
    """The values of a column; lists of numbers as arrays, without a Python object for each number."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        # Python's datetimes have microseconds.
        return column.cast(pa.timestamp("us", kind.tz), safe=False).to_pylist()  # type: ignore[no-any-return]
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)) and len(column):
        flat = column.flatten()
        if not column.null_count and not flat.null_count:
            ends = np.cumsum(pc.list_value_length(column).to_numpy(zero_copy_only=False))[:-1]
            return np.split(flat.to_numpy(zero_copy_only=False), ends)
    return column.to_pylist()  # type: ignore[no-any-return]


# --- tables in memory ---------------------------------------------------------------------------------------------


def tables_of(value: Any) -> Iterator[Any]:
    """The `pyarrow.Table` that this object is by Arrow's C interface; of a stream one per record batch."""
    try:
        if isinstance(value, pa.RecordBatch):
            yield pa.Table.from_batches([value])
        elif hasattr(value, "__len__") or not hasattr(value, "__arrow_c_stream__"):
            yield pa.table(value)
        else:
            for batch in pa.RecordBatchReader.from_stream(value):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
    except pa.ArrowException as error:
        raise InvalidInputError(f"expected a table that Arrow can read, got {type(value).__name__}: {error}") from None


def column_values(table: Any, name: str, start: int, stop: int) -> list[Any]:
    """Cells of a column, None where there is nothing."""
    cells: list[Any] = []
    for chunk in table.column(name).slice(start, stop - start).chunks:
        cells += _cells(table.schema, name, chunk)
    return cells


def matrix_of(column: Any, name: str, row: int) -> Any:
    """A column of lists of numbers as an array of shape (n, dim), without a copy where Arrow has it in one piece. Its
    first cell stands in row `row` of the table. Raises `InvalidVectorError`."""
    whole = column.combine_chunks()
    parts = [matrix for chunk in getattr(whole, "chunks", [whole]) if len(matrix := _matrix(chunk, name, row))]
    if len({part.shape[1] for part in parts}) > 1:
        raise InvalidVectorError(f"expected vectors of one length in the column {name!r}, got several")
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _matrix(array: Any, name: str, row: int) -> Any:
    if isinstance(array, pa.ExtensionArray):  # such as a tensor of fixed shape
        array = array.storage
    kind = array.type
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise InvalidVectorError(f"expected lists of numbers in the column {name!r}, got {kind}")
    if array.null_count:
        at = pc.index(pc.is_null(array), True).as_py()
        raise InvalidVectorError(f"expected a vector in each row of the column {name!r}, got none in row {row + at}")
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    if len(lengths) and (other := np.flatnonzero(lengths != lengths[0])).size:
        raise InvalidVectorError(
            f"expected vectors of one length in the column {name!r}, got {lengths[0]} in row {row} and "
            f"{lengths[other[0]]} in row {row + other[0]}"
        )
    flat = array.flatten()
    if flat.null_count:
        at = pc.index(pc.is_null(flat), True).as_py() // int(lengths[0])
        raise InvalidVectorError(f"expected numbers in the column {name!r}, got null in the vector of row {row + at}")
    return flat.to_numpy(zero_copy_only=False).reshape(len(array), int(lengths[0]) if len(lengths) else 0)


# --- writing ------------------------------------------------------------------------------------------------------


def schema_of(content: Content) -> Any:
    """The columns that are written."""
    ints = content.id_kind == "int"
    return pa.schema(
        [
            pa.field("id", pa.int64() if ints else pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), content.dim), nullable=False),
        ],
        metadata={IDS_KEY: b"text"} if content.id_kind == "mixed" else None,
    )


def batch_of(records: Sequence[Record], schema: Any) -> Any:
    """Records as one record batch."""
    mixed = bool(schema.metadata) and IDS_KEY in schema.metadata
    dim = schema.field("vector").type.list_size
    columns = [
        pa.array([id_text(record.id) if mixed else record.id for record in records], schema.field("id").type),
        pa.array([record.text for record in records], pa.string()),
        pa.array([orjson.dumps(record.metadata).decode() for record in records], pa.string()),
        vectors_array([record.vector for record in records], dim),
    ]
    return pa.record_batch(columns, schema=schema)


def vectors_array(vectors: Sequence[Any], dim: int) -> Any:
    """Vectors as an Arrow array of lists of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors), pa.float32()), dim)


def write(path: Path, content: Content) -> None:
    """Write the records as an IPC file."""
    schema = schema_of(content)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for records in content.batches(PARTS):
            writer.write_batch(batch_of(records, schema))
