"""Ids, metadata and text of every record version, in SQLite.

    records(label PRIMARY KEY, id, row, metadata JSONB, has_text, crc)    the index on id ends in the label by itself
    texts(label PRIMARY KEY, text, crc)                                   only of records that have a text
    state(key PRIMARY KEY, value)                                         applied_lsn
    fields, field_values                                                  derived, see field_index.py

Rows are only ever added (`forget` removes such as nobody has seen): a label never changes its meaning, so what was
read once stays right. Commits are not synced (the operation log has the batches); `checkpoint` makes them durable. A
CRC-32C in each row covers what SQLite itself does not check. The `id` column has no type, so ints sort before strs and
strs by their UTF-8 bytes, which is the order of ids.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import google_crc32c
import numpy as np
import numpy.typing as npt
import orjson

from nopokedb.embedded.storage import field_index
from nopokedb.embedded.storage.field_index import select_from_index, select_numbers
from nopokedb.embedded.storage.files import open_file, sync
from nopokedb.embedded.storage.filter_sql import Condition, select_groups, select_labels
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.sqlite import connect, reported
from nopokedb.errors import ClosedError, CorruptionError
from nopokedb.filters import Test
from nopokedb.records import Id

_KEY = struct.Struct("<IIB")
_I64 = struct.Struct("<q")
_SCHEMA = (
    "CREATE TABLE records(label INTEGER PRIMARY KEY, id NOT NULL, row INTEGER NOT NULL, metadata BLOB NOT NULL,"
    " has_text INTEGER NOT NULL, crc INTEGER NOT NULL)",
    "CREATE INDEX records_id ON records(id)",
    "CREATE TABLE texts(label INTEGER PRIMARY KEY, text TEXT NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE state(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT INTO state VALUES('applied_lsn', 0)",
)
_SCAN_LABELS = 2_048
"""So few labels are looked through faster than an index is asked."""
_PART_LABELS = 32_768
"""Labels that are worth a thread of their own when records are looked through (3 ms)."""
_SELECT = "SELECT label, id, row, json(metadata), has_text, crc FROM records "
Labels: TypeAlias = npt.NDArray[np.int64]
_THREADS = min(4, os.cpu_count() or 1)
_PAGE = 512
_PAGE_CHARACTERS = 4 * 2**20
_CHECKPOINT_PATIENCE_MS = 1_000


@dataclass(frozen=True, slots=True)
class Stored:
    """One record version as stored: its metadata are still JSON bytes."""

    label: int
    id: Id
    row: int
    metadata: bytes
    has_text: bool


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the metadata that has an index."""

    number: int
    path: tuple[str, ...]
    automatic: bool
    """Made because filters use it often, not because somebody asked."""
    ready: bool


def record_crc(label: int, row: int, id_: Id, metadata: bytes, has_text: bool) -> int:
    """CRC-32C of everything a row of `records` says."""
    if isinstance(id_, str):
        head, key = _KEY.pack(label, row, 2 | has_text), id_.encode()
    else:
        head, key = _KEY.pack(label, row, has_text), _I64.pack(id_)
    return google_crc32c.value(head + key + metadata)  # type: ignore[no-any-return]


def text_crc(label: int, text: str) -> int:
    """CRC-32C of a text and its label."""
    return google_crc32c.value(_I64.pack(label) + text.encode())  # type: ignore[no-any-return]


class MetadataReader:
    """Reads from any thread: each call borrows a connection, and no read transaction outlives its call."""

    def __init__(self, path: Path, *, immutable: bool = False) -> None:
        self.path = path
        self._immutable = immutable
        self._idle: list[apsw.Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        if self._closed:
            raise ClosedError("the database is closed")
        with reported(self.path):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = connect(self.path, writable=False, immutable=self._immutable)
            yield connection
        # Only a connection whose statements ran to their end comes back.
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def fetch(self, labels: Sequence[int]) -> dict[int, Stored]:
        """The stored versions with these labels; each is verified against its CRC."""
        found: dict[int, Stored] = {}
        with self.connection() as connection:
            for chunk in _padded(labels):
                marks = ",".join("?" * len(chunk))
                for row in connection.execute(_SELECT + f"WHERE label IN ({marks})", chunk):  # marks only
                    found[row[0]] = self._verified(row)
        return found

    def fetch_all(self, labels: Sequence[int]) -> list[Stored]:
        """The stored versions with these labels, in order; `CorruptionError` if one has none."""
        found = self.fetch(labels)
        try:
            return [found[label] for label in labels]
        except KeyError as error:
            raise CorruptionError(f"label {error} has no record", file=str(self.path)) from None

    def texts(self, stored: Iterable[Stored]) -> dict[int, str]:
        """The texts of these versions by label; versions without one are absent."""
        # A version that is asked for twice is one row.
        labels = list(dict.fromkeys(item.label for item in stored if item.has_text))
        found: dict[int, str] = {}
        if not labels:
            return found
        with self.connection() as connection:
            for chunk in _padded(labels):
                marks = ",".join("?" * len(chunk))
                query = f"SELECT label, text, crc FROM texts WHERE label IN ({marks})"  # noqa: S608  # marks only
                for label, text, crc in connection.execute(query, chunk):
                    if not isinstance(text, str) or crc != text_crc(label, text):
                        raise CorruptionError(f"the text of label {label} is damaged", file=str(self.path))
                    found[label] = text
        if len(found) < len(labels):
            raise CorruptionError("a text is missing", file=str(self.path))
        return found

    def texts_between(self, start: int, stop: int) -> Iterator[list[tuple[int, str]]]:
        """The texts of the labels in [start, stop), ascending, in pages of up to 512 texts; a page ends early
        with the text that brings it to 4 Mi characters. No read transaction is open while the caller has a page."""
        while start < stop:
            page: list[tuple[int, str]] = []
            size = 0
            with self.connection() as connection:
                query = "SELECT label, text, crc FROM texts WHERE label>=? AND label<? ORDER BY label LIMIT ?"
                cursor = connection.execute(query, (start, stop, _PAGE))
                for label, text, crc in cursor:
                    if not isinstance(text, str) or crc != text_crc(label, text):
                        raise CorruptionError(f"the text of label {label} is damaged", file=str(self.path))
                    page.append((label, text))
                    size += len(text)
                    if size >= _PAGE_CHARACTERS:
                        cursor.close()
                        break
            if not page:
                return
            start = page[-1][0] + 1
            yield page

    def newest(self, ids: Iterable[Id], label_count: int) -> list[int | None]:
        """For each id the newest label below `label_count`, or None. It may be retired."""
        query = "SELECT label FROM records WHERE id=? AND label<? ORDER BY label DESC LIMIT 1"
        with self.connection() as connection:
            rows = (connection.execute(query, (id_, label_count)).fetchone() for id_ in ids)
            return [None if row is None else row[0] for row in rows]

    def page(self, after: tuple[Id, int] | None, label_count: int) -> list[Stored]:
        """Up to 512 versions in order of (id, label), from behind `after` on."""
        bindings: tuple[Id, ...] = (label_count,)
        where = "WHERE label<? "
        if after is not None:
            # The first term lets SQLite start in the middle of the index on id.
            where, bindings = (
                "WHERE id>=? AND (id, label)>(?, ?) AND label<? ",
                (after[0], *after, label_count),
            )
        with self.connection() as connection:
            cursor = connection.execute(_SELECT + where + "ORDER BY id, label LIMIT ?", (*bindings, _PAGE))
            return [self._verified(row) for row in cursor]

    def fields(self) -> list[Field]:
        """The fields that have an index, those under construction too."""
        with self.connection() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'fields'").fetchone():
                return []  # a folder from before there were any, opened read-only
            rows: list[Any] = connection.execute(
                "SELECT number, path, automatic, ready FROM fields ORDER BY number"
            ).fetchall()
        return [
            Field(number, tuple(orjson.loads(path)), bool(automatic), bool(ready))
            for number, path, automatic, ready in rows
        ]

    def matching(self, test: Test, start: int, stop: int) -> tuple[Labels, bool]:
        """The labels in [start, stop), live or not, whose metadata pass; and whether an index said so."""
        if stop - start > _SCAN_LABELS:
            for indexed in self.fields():
                if indexed.ready and indexed.path == test.path:
                    condition = select_from_index(test, indexed.number)
                    if condition is not None:
                        labels = self._labels(condition, 0, stop)
                        return labels[labels >= start] if start else labels, True
        condition = select_labels(test)
        parts = max(1, min(_THREADS, (stop - start) // _PART_LABELS))
        bounds = [start + (stop - start) * at // parts for at in range(parts + 1)]
        if parts == 1:
            return self._labels(condition, start, stop), False
        with ThreadPoolExecutor(parts) as pool:  # SQLite runs without the interpreter lock
            found = pool.map(lambda at: self._labels(condition, bounds[at], bounds[at + 1]), range(parts))
            return np.concatenate(list(found)), False

    def numbers(self, path: tuple[str, ...], stop: int) -> tuple[Sequence[int | float], Sequence[int]] | None:
        """The numbers of a field in the records with labels below `stop`, ascending, and the label of each; None where
        the field has no index."""
        numbered = [field.number for field in self.fields() if field.ready and field.path == path]
        if not numbered:
            return None
        condition = select_numbers(numbered[0])
        with self.connection() as connection:
            rows: list[Any] = connection.execute(condition.sql, {**condition.bindings, "stop": stop}).fetchall()
        values, labels = zip(*rows, strict=True) if rows else ((), ())
        return values, labels

    def _labels(self, condition: Condition, start: int, stop: int) -> Labels:
        with self.connection() as connection:
            text: Any = connection.execute(condition.sql, {**condition.bindings, "start": start, "stop": stop}).get
        return _numbers(text)

    def groups(self, path: tuple[str, ...], stop: int) -> Iterator[tuple[list[Any], Labels]] | None:
        """The values of a field with the labels below `stop` that have them: elements of lists together, as the list
        has them. None where SQLite cannot tell: behind lists of dicts, or for keys that its JSON paths cannot hold."""
        condition = select_groups(path)
        if condition is None:
            return None
        with self.connection() as connection:
            rows: list[Any] = connection.execute(condition.sql, {**condition.bindings, "stop": stop}).fetchall()
        return (
            (found if isinstance(found := orjson.loads(value), list) else [found], _numbers(labels))
            for value, labels in rows
        )

    def applied(self) -> tuple[int, int]:
        """The lsn up to which batches are in here, and the number above all labels."""
        with self.connection() as connection:
            lsn: Any = connection.execute("SELECT value FROM state WHERE key='applied_lsn'").get
            last: Any = connection.execute("SELECT max(label) FROM records").get
        return lsn, 0 if last is None else last + 1

    def _verified(self, row: tuple[Any, ...]) -> Stored:
        label, id_, at, text, has_text, crc = row
        sound = isinstance(id_, int | str) and isinstance(text, str) and isinstance(at, int)
        if sound:
            metadata = text.encode()
            if 0 <= at < 2**32 and crc == record_crc(label, at, id_, metadata, bool(has_text)):
                return Stored(label, id_, at, metadata, bool(has_text))
        raise CorruptionError(f"the record of label {label} is damaged", file=str(self.path))

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class MetadataWriter:
    """The one connection that writes. Used by one thread at a time, except that any may call `checkpoint`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        with reported(path):
            self._connection = connect(path, writable=True)
            if new:
                with self._connection:
                    for statement in _SCHEMA:
                        self._connection.execute(statement)
            with self._connection:
                for statement in field_index.SCHEMA:
                    self._connection.execute(statement)
                # The building of these was interrupted.
                self._connection.execute(
                    "DELETE FROM field_values WHERE field IN (SELECT number FROM fields WHERE NOT ready)"
                )
                self._connection.execute("DELETE FROM fields WHERE NOT ready")
            self._fields: dict[int, tuple[str, ...]] = {
                number: tuple(orjson.loads(path))
                for number, path in self._connection.execute("SELECT number, path FROM fields")
            }
            # A connection of its own: the other one may be inside a transaction of another thread.
            self._checkpointer = connect(path, writable=True)
            self._checkpointer.set_busy_timeout(_CHECKPOINT_PATIENCE_MS)
            self._checkpointing = threading.Lock()
            applied: Any = self._connection.execute("SELECT value FROM state WHERE key='applied_lsn'").get
        if not isinstance(applied, int):
            raise CorruptionError(f"the applied lsn is missing in {path}", file=str(path))
        self.applied_lsn: int = applied

    def write(self, frames: Iterable[Frame]) -> None:
        """Apply these batches in one transaction, skipping those that are in already."""
        wanted = [frame for frame in frames if frame.lsn > self.applied_lsn]
        if not wanted:
            return
        with reported(self.path), self._connection:
            self._insert(wanted)
            self._set_applied(wanted[-1].lsn)
        self.applied_lsn = wanted[-1].lsn

    def copy(self, frame: Frame) -> None:
        """Add records that come from an older generation, with whatever lsn. Before `finish_copy`."""
        with reported(self.path), self._connection:
            self._insert([frame])

    def finish_copy(self, lsn: int) -> None:
        """What was copied is the state at this lsn."""
        with reported(self.path), self._connection:
            self._set_applied(lsn)
        self.applied_lsn = lsn

    def _set_applied(self, lsn: int) -> None:
        self._connection.execute("UPDATE state SET value=? WHERE key='applied_lsn'", (lsn,))

    def _insert(self, frames: list[Frame]) -> None:
        connection = self._connection
        for frame in frames:
            labels = frame.labels
            records = [
                (
                    label,
                    id_,
                    row,
                    metadata.decode(),
                    text is not None,
                    record_crc(label, row, id_, metadata, text is not None),
                )
                for label, id_, row, metadata, text in zip(
                    labels, frame.ids, frame.rows.tolist(), frame.metadatas, frame.texts, strict=True
                )
            ]
            connection.executemany("INSERT INTO records VALUES(?, ?, ?, jsonb(?), ?, ?)", records)
            texts = [
                (label, text, text_crc(label, text))
                for label, text in zip(labels, frame.texts, strict=True)
                if text is not None
            ]
            if texts:
                connection.executemany("INSERT INTO texts VALUES(?, ?, ?)", texts)
            if self._fields:
                self._index(labels, frame.metadatas)

    def _index(self, labels: Iterable[int], metadatas: Iterable[bytes], only: int | None = None) -> None:
        """Add the values of these versions to the indexes, or to one of them."""
        fields = self._fields if only is None else {only: self._fields[only]}
        field_index.insert(
            self._connection,
            (
                row
                for label, metadata in zip(labels, metadatas, strict=True)
                for row in field_index.entries(fields, label, orjson.loads(metadata))
            ),
        )

    def add_field(self, path: tuple[str, ...], *, automatic: bool) -> int:
        """Begin an index: from now on new records are added to it. `fill_field` adds the others."""
        with reported(self.path), self._connection as connection:
            connection.execute(
                "INSERT INTO fields(path, automatic, ready) VALUES(?, ?, 0)", (field_index.path_key(path), automatic)
            )
        number = self._connection.last_insert_rowid()
        self._fields[number] = path
        return number

    def fill_field(self, number: int, start: int, stop: int) -> None:
        """Add the records with labels in [start, stop)."""
        with reported(self.path), self._connection as connection:
            rows: list[Any] = connection.execute(
                "SELECT label, json(metadata) FROM records WHERE label>=? AND label<?", (start, stop)
            ).fetchall()
            self._index([label for label, _ in rows], [metadata for _, metadata in rows], number)

    def finish_field(self, number: int) -> None:
        """All records are in: filters may use it."""
        with reported(self.path), self._connection as connection:
            connection.execute("UPDATE fields SET ready=1 WHERE number=?", (number,))

    def keep_field(self, number: int) -> None:
        """Somebody asked for an index that is there by itself."""
        with reported(self.path), self._connection as connection:
            connection.execute("UPDATE fields SET automatic=0 WHERE number=?", (number,))

    def drop_field(self, number: int) -> None:
        """Forget an index."""
        with reported(self.path), self._connection as connection:
            connection.execute("DELETE FROM fields WHERE number=?", (number,))
            connection.execute("DELETE FROM field_values WHERE field=?", (number,))
        self._fields.pop(number, None)

    def forget(self, first_label: int, applied_lsn: int) -> None:
        """Remove versions from `first_label` on, whose batches the log lost (durability="os" and a power cut)."""
        with reported(self.path), self._connection as connection:
            connection.execute("DELETE FROM records WHERE label>=?", (first_label,))
            connection.execute("DELETE FROM texts WHERE label>=?", (first_label,))
            connection.execute("DELETE FROM field_values WHERE label>=?", (first_label,))
            self._set_applied(applied_lsn)
        self.applied_lsn = applied_lsn

    def checkpoint(self) -> None:
        """Make all commits so far durable, in the database file or in its WAL. May run beside `write`, and beside
        itself: a new index and the log are made durable by different threads."""
        with self._checkpointing, reported(self.path):
            frames, backfilled = self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if frames != backfilled:
            # A reader holds an older state: SQLite then stops early and may not have synced anything at all.
            descriptor = open_file(self.path.with_name(self.path.name + "-wal"), os.O_RDWR)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)

    def shrink(self) -> bool:
        """Backfill and empty the WAL, so that the database file alone is complete. False: a reader in another
        process prevents it, which is harmless."""
        try:
            with self._checkpointing, reported(self.path):
                self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        return True

    def close(self) -> None:
        self._checkpointer.close()
        self._connection.close()


def _numbers(text: str | None) -> Labels:
    """What `group_concat` has put together."""
    return np.fromstring(text, np.int64, sep=",") if text else np.empty(0, np.int64)


def _padded(labels: Sequence[int]) -> Iterator[list[int]]:
    """Chunks whose sizes are powers of two (the last label repeated), so that few statements are prepared."""
    for start in range(0, len(labels), _PAGE):
        chunk = list(labels[start : start + _PAGE])
        size = 1 << (len(chunk) - 1).bit_length()
        yield chunk + [chunk[-1]] * (size - len(chunk))
