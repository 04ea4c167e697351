"""Tables of LanceDB, read by its own library (extra "lancedb"): the format is that of a whole database, with versions,
deletions and encodings, and no other reader of it is kept up. Nothing in its files is run by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nopokedb.distribution import install_hint
from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.intake import Columns
from nopokedb.moving.origin import LOST, Origin, chosen, in_order
from nopokedb.records import MAX_DIM, Id, Record, Space
from nopokedb.tables.taking import parts_of
from nopokedb.transfer.layout import Layout

_SPACES: dict[str, Space] = {"l2": "l2", "cosine": "cosine", "dot": "ip"}


class LanceOrigin(Origin):
    """One table of a folder."""

    program = "lancedb"

    def __init__(self, folder: Path, table: str | None, id_: str | None, vector: str | None, space: Any) -> None:
        super().__init__()
        try:
            import lancedb
            import pyarrow as pa
        except ModuleNotFoundError as error:
            raise ImportError(f"tables of LanceDB need its library: {install_hint('lancedb')}") from error
        self.path = str(folder)
        database = lancedb.connect(self.path)
        names = sorted(path.stem for path in folder.glob("*.lance"))
        self._table = database.open_table(chosen("a table", "--collection", names, table, folder))
        schema = self._table.schema
        lists = [field for field in schema if pa.types.is_fixed_size_list(field.type)]
        name = chosen("a column of vectors", "--vector", [field.name for field in lists], vector, folder)
        kind = schema.field(name).type
        if not pa.types.is_float32(kind.value_type) or not 1 <= kind.list_size <= MAX_DIM:
            raise ArchiveError(f"expected vectors of float32, got {kind} in {folder}: {LOST}", file=self.path)
        if len(lists) > 1:
            self.notes.append(f"other vectors: {', '.join(field.name for field in lists if field.name != name)}")
        self.dim, self.space = kind.list_size, space or self._space_of(name)
        self._layout = Layout(id=id_ or "id", vector=name)
        self._columns = [field.name for field in schema if field not in lists or field.name == name]
        self._offsets = self._read_ids(self._layout.id or "id")
        self.ids = in_order([*self._offsets])

    def _space_of(self, column: str) -> Space:
        """What the column's index was made for; l2, which LanceDB takes, without one."""
        for index in self._table.list_indices():
            if column in index.columns:
                stats = self._table.index_stats(index.name)
                kind = str(getattr(stats, "distance_type", None) or "l2").lower()
                if kind in _SPACES:
                    return _SPACES[kind]
        return "l2"

    def _read_ids(self, column: str) -> dict[Id, int]:
        """By id the position of its row."""
        if column not in self._table.schema.names:
            names = ", ".join(self._table.schema.names)
            raise ArchiveError(
                f"expected a column {column!r} of ids in {self.path}, got {names}; name one with --id", file=self.path
            )
        found: dict[Id, int] = {}
        for batch in self._table.search().select([column]).limit(self._table.count_rows() or 1).to_batches():
            for value in batch.column(column).to_pylist():
                if not isinstance(value, int | str) or isinstance(value, bool) or value in found:
                    raise ArchiveError(
                        f"expected an int or str in {column!r}, each once, got {value!r:.80}", file=self.path
                    )
                found[value] = len(found)
        return found

    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        offsets = [self._offsets[id_] for id_ in ids]
        table = self._table.take_offsets(offsets).select(self._columns).to_arrow()
        records: dict[Id, Record] = {}
        try:
            for part in parts_of("add", Columns(table, None, None, None), self._layout):
                count = table.num_rows
                empty: list[Any] = [None] * count
                parts: tuple[Any, ...] = (part.ids, part.vectors, part.metadatas or empty, part.texts or empty)
                for id_, vector, metadata, text in zip(*parts, strict=True):
                    records[id_] = Record(id_, metadata or {}, vector, text)
        except InvalidInputError as error:
            raise ArchiveError(f"{self.path}: {error}", file=self.path) from None
        return [records[id_] for id_ in ids]
