"""Tables of sqlite-vec (`CREATE VIRTUAL TABLE ... USING vec0`), read from those behind them, without the extension.

    <table>_rowids            rowid, id (text keys; else null), chunk_id, chunk_offset
    <table>_vector_chunks<nn>  vectors of one chunk, float32; nn counts the vector columns
    <table>_metadatachunks<nn>  values of one chunk: i64, f64, one bit, or 16 bytes for a text: i32 length, the first 12
    <table>_metadatatext<nn>   texts of more than 12 bytes, by rowid
    <table>_auxiliary          value<nn>, by rowid
    <table>_chunks             partition<nn>, by chunk_id

Which columns there are stands in the statement that made the table, in sqlite_schema.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.errors import ArchiveError
from nopokedb.moving.origin import LOST, Origin, chosen, damaged, in_order, open_sqlite
from nopokedb.records import MAX_DIM, Id, Record, Space

_STATEMENT = re.compile(r"CREATE\s+VIRTUAL\s+TABLE\s.*?\bUSING\s+vec0\s*\((.*)\)\s*;?\s*$", re.I | re.S)
_VECTOR = re.compile(r"(\w+)\s+(float|f32|int8|i8|bit)\s*\[\s*(\d+)\s*\](.*)", re.I | re.S)
_COLUMN = re.compile(r"(\+?)\s*(\w+)\s+(\w+)(\s+partition\s+key|\s+primary\s+key)?", re.I)
_METRIC = re.compile(r"distance_metric\s*=\s*(\w+)", re.I)
_SPACES: dict[str, Space] = {"cosine": "cosine", "l2": "l2"}
_WIDTHS = {"text": 16, "integer": 8, "int": 8, "float": 8, "double": 8}
_INLINE = 12
_CHUNKS_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Column:
    kind: str
    """vector, metadata, auxiliary or partition."""
    name: str
    type: str
    number: int
    """Among the columns of its kind."""
    dim: int = 0
    metric: str = "l2"


class SqliteVecOrigin(Origin):
    """One table of a file."""

    program = "sqlite-vec"

    def __init__(self, path: Path, table: str | None, vector: str | None) -> None:
        super().__init__()
        self.path = str(path)
        self._file = path
        self._db = open_sqlite(path, self.opened)
        made = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%vec0%' ORDER BY name"
        statements = {name: match[1] for name, sql in self._rows(made) if (match := _STATEMENT.match(sql))}
        self._table = chosen("a table of vec0", "--collection", sorted(statements), table, path)
        columns = _columns(statements[self._table])
        vectors = [column for column in columns if column.kind == "vector"]
        name = chosen("a vector", "--vector", [column.name for column in vectors], vector, path)
        self._vector = next(column for column in vectors if column.name == name)
        self._others = [column for column in columns if column.kind != "vector"]
        if len(vectors) > 1:
            self.notes.append(f"other vectors: {', '.join(v.name for v in vectors if v.name != name)}")
        if self._vector.type not in ("float", "f32"):
            raise ArchiveError(
                f"expected vectors of float32, got {self._vector.type} in {path}: {LOST}",
                file=self.path,
            )
        if self._vector.metric not in _SPACES or not 1 <= self._vector.dim <= MAX_DIM:
            raise ArchiveError(f"expected the distance cosine or l2, got {self._vector}", file=self.path)
        self.dim, self.space = self._vector.dim, _SPACES[self._vector.metric]
        self._places: dict[Id, tuple[int, int, int]] = {}
        """By id rowid, chunk, and place in it."""
        for rowid, key, chunk, place in self._rows(self._select("rowid, id, chunk_id, chunk_offset", "rowids")):
            self._places[rowid if key is None else key] = (rowid, chunk, place)
        self.ids = in_order([*self._places])
        self._chunk = lru_cache(_CHUNKS_KEPT * (1 + len(self._others)))(self._read_chunk)

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        import apsw

        try:
            yield from self._db.execute(query, values)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise damaged(self._file, f"it is none of sqlite-vec's that is known here: {error}") from None

    def _select(self, columns: str, suffix: str, where: str = "") -> str:
        """A statement over one of the tables behind: SQL cannot bind a name. The table's own stands in the schema, and
        is quoted; all else is written in this module."""
        table = f"{self._table}_{suffix}".replace('"', '""')
        return f'SELECT {columns} FROM "{table}" {where}'  # noqa: S608

    def _read_chunk(self, suffix: str, column: str, chunk: int) -> bytes:
        row = next(self._rows(self._select(column, suffix, "WHERE rowid = ?"), chunk), None)
        if row is None or not isinstance(row[0], bytes):
            raise damaged(self._file, f"expected the chunk {chunk} in {self._table}_{suffix}, found none")
        return row[0]

    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        records = []
        for id_ in ids:
            rowid, chunk, place = self._places[id_]
            data = self._chunk(f"vector_chunks{self._vector.number:02}", "vectors", chunk)
            part = data[4 * self.dim * place : 4 * self.dim * (place + 1)]
            if place < 0 or len(part) != 4 * self.dim:
                self.refused[id_] = "its vector is not in its chunk"
                continue
            values = {column.name: self._value(column, rowid, chunk, place) for column in self._others}
            metadata = {name: value for name, value in values.items() if value is not None}
            records.append(Record(id_, metadata, np.frombuffer(part, "<f4")))
        return records

    def _value(self, column: _Column, rowid: int, chunk: int, place: int) -> Any:
        """The value of a column that is no vector, None for null."""
        if column.kind == "partition":
            query = self._select(f"partition{column.number:02}", "chunks", "WHERE chunk_id = ?")
            return next(self._rows(query, chunk), (None,))[0]
        if column.kind == "auxiliary":
            query = self._select(f"value{column.number:02}", "auxiliary", "WHERE rowid = ?")
            return next(self._rows(query, rowid), (None,))[0]
        data = self._chunk(f"metadatachunks{column.number:02}", "data", chunk)
        if column.type in ("boolean", "bool"):
            return bool(data[place // 8] >> (place % 8) & 1)
        width = _WIDTHS[column.type]
        cell = data[width * place : width * (place + 1)]
        if len(cell) != width:
            raise damaged(self._file, f"the chunk {chunk} of the column {column.name!r} is too short")
        if column.type != "text":
            return struct.unpack("<q" if column.type.startswith("int") else "<d", cell)[0]
        (length,) = struct.unpack("<i", cell[:4])
        if length <= _INLINE:
            return cell[4 : 4 + max(0, length)].decode("utf-8", "replace")
        query = self._select("data", f"metadatatext{column.number:02}", "WHERE rowid = ?")
        return next(self._rows(query, rowid), (None,))[0]


def _columns(arguments: str) -> list[_Column]:
    """The columns that a statement declares."""
    found: list[_Column] = []
    for argument in map(str.strip, arguments.split(",")):
        if match := _VECTOR.match(argument):
            name, type_, dim, rest = match.groups()
            metric = _METRIC.search(rest)
            number = sum(column.kind == "vector" for column in found)
            found.append(
                _Column("vector", name, type_.lower(), number, int(dim), metric[1].lower() if metric else "l2")
            )
        elif (match := _COLUMN.fullmatch(argument)) and not re.search("primary", match[4] or "", re.I):
            kind = "auxiliary" if match[1] else "partition" if match[4] else "metadata"
            number = sum(column.kind == kind for column in found)
            found.append(_Column(kind, match[2], match[3].lower(), number))
    return found
