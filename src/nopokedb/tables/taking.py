"""From a data frame or an Arrow table to the columns of a write.

Which column is what follows the rules of file imports (transfer/layout.py). Nothing is imported for a table but its own
library: pandas frames are read by their own methods; all others (polars, PyArrow, DuckDB ...) offer Arrow's C stream
(`__arrow_c_stream__`, the Arrow PyCapsule interface) and are read by PyArrow.

Rows are turned into Python objects when a batch asks for them, so a table that is larger than a batch never is as a
whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nopokedb.errors import InvalidInputError, InvalidVectorError
from nopokedb.intake import BulkKind, Columns
from nopokedb.records import as_array
from nopokedb.transfer.layout import Layout, TableColumns, columns_of, metadata_of

_PIECE = 1000


class _Table(Protocol):
    """What is asked of a table."""

    names: list[str]
    count: int

    def values(self, name: str, start: int, stop: int) -> Sequence[Any]:
        """The cells of a column, None where there is nothing."""
        ...

    def vectors(self, name: str, start: int, stop: int) -> Any:
        """The cells of a column of vectors, as NumPy can take them."""
        ...


class Cells:
    """One column of a write, made piece by piece."""

    def __init__(self, count: int, take: Callable[[int, int], Any]) -> None:
        self._count, self._take = count, take

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> Any:
        start, stop, _ = part.indices(self._count)
        return self._take(start, stop)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self._count, _PIECE):
            yield from self[start : start + _PIECE]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self._take(0, self._count), dtype)


def is_table(value: object) -> bool:
    """Whether this is a table with named columns. A pandas frame whose columns are numbered is an array."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return any(isinstance(name, str) for name in value.columns)
    streams = hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")
    return streams and (hasattr(value, "columns") or hasattr(value, "schema"))


def parts_of(kind: BulkKind, columns: Columns, layout: Layout) -> Iterator[Columns]:
    """The columns of a write as they were given; or where a table was given as the first argument, those of the table.
    One part, but of a stream of record batches one for each."""
    table = columns.ids if kind == "upsert" else columns.vectors
    if not is_table(table):
        named = (("id_column", layout.id), ("vector_column", layout.vector), ("text_column", layout.text))
        if wrong := [name for name, column in named if column is not None]:
            raise InvalidInputError(f"expected a table in which {wrong[0]} is, got {type(table).__name__}")
        yield _plain_columns(columns)
        return
    first = "ids" if kind == "upsert" else "vectors"
    if beside := [name for name in columns.given() if name != first]:
        raise InvalidInputError(f"expected all columns in the table, got {', '.join(beside)} beside it")
    for part in _opened(table):
        yield _columns(part, columns_of(part.names, layout))


def _plain_columns(columns: Columns) -> Columns:
    """Columns that were given one by one, as Python and NumPy have them."""
    vectors = columns.vectors
    if not hasattr(vectors, "__iter__") and (hasattr(vectors, "__array__") or hasattr(vectors, "__dlpack__")):
        vectors = as_array(vectors)
    elif hasattr(vectors, "to_pylist"):
        from nopokedb.transfer.arrow import matrix_of

        vectors = matrix_of(vectors, "vectors", 0)
    return Columns(_plain(vectors), _plain(columns.ids), _plain(columns.metadatas), _plain(columns.texts))


def _plain(column: Any) -> Any:
    """A Series or an Arrow array as a list, with None where there is nothing; anything else as it is."""
    if hasattr(column, "to_pylist"):
        return column.to_pylist()
    if not hasattr(column, "to_list"):
        return column
    values = column.to_list()
    gone = column.isna().tolist() if hasattr(column, "isna") else [False] * len(values)
    return [None if missing else value for value, missing in zip(values, gone, strict=True)]


def _columns(table: _Table, which: TableColumns) -> Columns:
    vectors = ids = metadatas = texts = None
    if which.vector is not None:
        vectors = Cells(table.count, lambda start, stop: _vectors(table, which.vector, start, stop))
    if which.id is not None:
        ids = Cells(table.count, lambda start, stop: table.values(str(which.id), start, stop))
    if which.text is not None:
        texts = Cells(table.count, lambda start, stop: table.values(str(which.text), start, stop))
    if which.metadata is not None or which.fields:
        metadatas = Cells(table.count, lambda start, stop: _metadatas(table, which, start, stop))
    if not any(column is not None for column in (vectors, ids, metadatas, texts)):
        raise InvalidInputError("expected a table with columns, got one without any")
    return Columns(vectors, ids, metadatas, texts)


def _vectors(table: _Table, columns: str | Sequence[str] | None, start: int, stop: int) -> Any:
    if isinstance(columns, str):
        return table.vectors(columns, start, stop)
    return [list(row) for row in zip(*(table.values(name, start, stop) for name in columns or ()), strict=True)]


def _metadatas(table: _Table, which: TableColumns, start: int, stop: int) -> list[dict[str, Any]]:
    """The metadata of each row: the column of whole objects, and all others. A cell without a value is a key that is
    not there."""
    count = stop - start
    whole = [None] * count if which.metadata is None else table.values(which.metadata, start, stop)
    cells = [table.values(name, start, stop) for name in which.fields]
    keys = tuple(which.fields.values())
    rows: Iterable[tuple[Any, ...]] = zip(*cells, strict=True) if cells else [()] * count
    return [
        metadata_of(of_row, [pair for pair in zip(keys, row, strict=True) if pair[1] is not None]) or {}
        for of_row, row in zip(whole, rows, strict=True)
    ]


def _opened(table: Any) -> Iterator[_Table]:
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        yield _Pandas(table)
        return
    from nopokedb.transfer.arrow import tables_of

    for part in tables_of(table):
        yield _Arrow(part)


class _Arrow:
    """A `pyarrow.Table`."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.names: list[str] = table.column_names
        self.count: int = table.num_rows
        _check_names(self.names)

    def values(self, name: str, start: int, stop: int) -> Sequence[Any]:
        from nopokedb.transfer.arrow import column_values

        return column_values(self._table, name, start, stop)

    def vectors(self, name: str, start: int, stop: int) -> Any:
        from nopokedb.transfer.arrow import matrix_of

        return matrix_of(self._table.column(name).slice(start, stop - start), name, start)


class _Pandas:
    """A `pandas.DataFrame`. What pandas calls missing (None, NaN, NA, NaT) is no value."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names: list[str] = list(frame.columns)
        self.count = len(frame)
        _check_names(self.names)

    def values(self, name: str, start: int, stop: int) -> Sequence[Any]:
        series = self._frame[name].iloc[start:stop]
        return [None if gone else value for value, gone in zip(series.tolist(), series.isna().tolist(), strict=True)]

    def vectors(self, name: str, start: int, stop: int) -> Any:
        cells = self.values(name, start, stop)
        for at, cell in enumerate(cells):
            if cell is None:
                raise InvalidVectorError(
                    f"expected a vector in each row of the column {name!r}, got none in row {start + at}"
                )
        return cells


def _check_names(names: Sequence[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise InvalidInputError(f"expected column names that are strs, got {name!r:.80}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"expected every column name once, got {twice!r:.80} twice")
