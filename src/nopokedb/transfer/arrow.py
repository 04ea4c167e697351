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

from nopokedb.records import Part, Record
from nopokedb.transfer.rows import Content, Row, Source, damaged, id_of_text, id_text, needed

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ModuleNotFoundError as error:
    raise ImportError(needed("pyarrow")) from error

_IDS_KEY = b"nopokedb.ids"
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
    columns = [_values(column) for column in batch.columns]
    if (batch.schema.metadata or {}).get(_IDS_KEY) == b"text" and "id" in names:
        at = names.index("id")
        columns[at] = [id_of_text(value) if isinstance(value, str) else value for value in columns[at]]
    for at, values in enumerate(zip(*columns, strict=True)):
        # Null is how a table says that there is nothing.
        fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        yield Row(number + at, number + at + 1, fields)


def _values(column: Any) -> Sequence[Any]:
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
        metadata={_IDS_KEY: b"text"} if content.id_kind == "mixed" else None,
    )


def batch_of(records: Sequence[Record], schema: Any) -> Any:
    """Records as one record batch."""
    mixed = bool(schema.metadata) and _IDS_KEY in schema.metadata
    dim = schema.field("vector").type.list_size
    flat = np.concatenate([record.vector for record in records])
    columns = [
        pa.array([id_text(record.id) if mixed else record.id for record in records], schema.field("id").type),
        pa.array([record.text for record in records], pa.string()),
        pa.array([orjson.dumps(record.metadata).decode() for record in records], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dim),
    ]
    return pa.record_batch(columns, schema=schema)


def write(path: Path, content: Content) -> None:
    """Write the records as an IPC file."""
    schema = schema_of(content)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for records in content.batches(PARTS):
            writer.write_batch(batch_of(records, schema))
