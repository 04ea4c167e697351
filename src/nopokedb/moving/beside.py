"""The file of metadata beside an index file: ids, metadata and texts, in any format that `nopokedb import` reads."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import orjson

from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.metadata_json import encode_metadata
from nopokedb.records import Id, Record
from nopokedb.transfer.formats import format_of, open_source
from nopokedb.transfer.layout import Layout, record_of
from nopokedb.transfer.rows import Row


class Beside:
    """By id the metadata and the text of a file, kept in a temporary file of SQLite, not in memory."""

    def __init__(self, path: Path | None) -> None:
        self.notes: list[str] = []
        self._path = path
        self._kept = sqlite3.connect("")  # temporary, private, and on disk when it grows
        self._kept.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, text TEXT, metadata BLOB) WITHOUT ROWID")

    def __enter__(self) -> Beside:
        if self._path is not None:
            self._read(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def _read(self, path: Path) -> None:
        source = open_source(path, format_of(path), Layout())
        try:
            for row in source.rows(0):
                id_, metadata, text = _parts(row, path, source.unit)
                values = (_key(id_), text, encode_metadata(metadata))
                if not self._kept.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", values).rowcount:
                    raise ArchiveError(
                        f"expected every id once in {path}, got {id_!r:.80} again in {source.unit} {row.line}",
                        file=str(path),
                    )
        finally:
            source.close()

    def joined(self, record: Record) -> Record:
        """The record with what the file says of its id."""
        if self._path is None:
            return record
        row = self._kept.execute("SELECT text, metadata FROM rows WHERE id = ?", (_key(record.id),)).fetchone()
        return record if row is None else Record(record.id, orjson.loads(row[1]), record.vector, row[0])


def _key(id_: Id) -> str:
    return orjson.dumps(id_).decode()


def _parts(row: Row, path: Path, unit: str) -> tuple[Id, dict[str, object] | None, str | None]:
    try:
        return record_of(row, Layout())
    except InvalidInputError as error:
        raise ArchiveError(f"{path}, {unit} {row.line}: {error}", file=str(path)) from None
