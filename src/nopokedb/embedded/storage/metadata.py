"""Ids, metadata and text of every record version, in SQLite.

    records(label PRIMARY KEY, id, row, metadata JSONB, has_text, crc)    the index on id ends in the label by itself
    texts(label PRIMARY KEY, text, crc)                                   only of records that have a text
    state(key PRIMARY KEY, value)                                         applied_lsn

Rows are only ever added (`forget` removes such as nobody has seen): a label never changes its meaning, so what was
read once stays right. Commits are not synced (the operation log has the batches); `checkpoint` makes them durable. A
CRC-32C in each row covers what SQLite itself does not check. The `id` column has no type, so ints sort before strs and
strs by their UTF-8 bytes, which is the order of ids.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import google_crc32c

from nopokedb.embedded.storage.files import open_file, sync
from nopokedb.embedded.storage.frames import Frame
from nopokedb.errors import ClosedError, CorruptionError
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
_SELECT = "SELECT label, id, row, json(metadata), has_text, crc FROM records "
_PAGE = 512
_PATIENCE_MS = 10_000
"""Longest wait for another connection's lock; such locks are held for the length of one call."""
_CHECKPOINT_PATIENCE_MS = 1_000


@dataclass(frozen=True, slots=True)
class Stored:
    """One record version as stored: its metadata are still JSON bytes."""

    label: int
    id: Id
    row: int
    metadata: bytes
    has_text: bool


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


def _connect(path: Path, *, writable: bool, immutable: bool = False) -> apsw.Connection:
    if immutable:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"file:{quote(str(path.absolute()))}?immutable=1", flags=flags)
    elif writable:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    else:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    # Closing the last connection would checkpoint and remove the WAL; in a forked child that must not happen,
    # and in the parent the checkpoint module does it in the right order.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_busy_timeout(_PATIENCE_MS)
    if writable:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone() or ("",)
        if mode != "wal":
            raise OSError(f"expected SQLite's WAL mode for {path}, got {mode!r}: its file system lacks shared memory")
        for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0", "fullfsync=1", "checkpoint_fullfsync=1"):
            connection.execute("PRAGMA " + pragma).fetchall()
    return connection


class MetadataReader:
    """Reads from any thread: each call borrows a connection, and no read transaction outlives its call."""

    def __init__(self, path: Path, *, immutable: bool = False) -> None:
        self.path = path
        self._immutable = immutable
        self._idle: list[apsw.Connection] = []
        self._closed = False

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        if self._closed:
            raise ClosedError("the database is closed")
        with _reported(self.path):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _connect(self.path, writable=False, immutable=self._immutable)
            yield connection
        # Only a connection whose statements ran to their end comes back.
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def fetch(self, labels: Sequence[int]) -> dict[int, Stored]:
        """The stored versions with these labels; each is verified against its CRC."""
        found: dict[int, Stored] = {}
        with self._connection() as connection:
            for chunk in _padded(labels):
                marks = ",".join("?" * len(chunk))
                for row in connection.execute(_SELECT + f"WHERE label IN ({marks})", chunk):  # marks only
                    found[row[0]] = self._verified(row)
        return found

    def texts(self, stored: Iterable[Stored]) -> dict[int, str]:
        """The texts of these versions by label; versions without one are absent."""
        labels = [item.label for item in stored if item.has_text]
        found: dict[int, str] = {}
        if not labels:
            return found
        with self._connection() as connection:
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

    def newest(self, ids: Iterable[Id], label_count: int) -> list[int | None]:
        """For each id the newest label below `label_count`, or None. It may be retired."""
        query = "SELECT label FROM records WHERE id=? AND label<? ORDER BY label DESC LIMIT 1"
        with self._connection() as connection:
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
        with self._connection() as connection:
            cursor = connection.execute(_SELECT + where + "ORDER BY id, label LIMIT ?", (*bindings, _PAGE))
            return [self._verified(row) for row in cursor]

    def applied(self) -> tuple[int, int]:
        """The lsn up to which batches are in here, and the number above all labels."""
        with self._connection() as connection:
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
    """The one connection that writes. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        with _reported(path):
            self._connection = _connect(path, writable=True)
            if new:
                with self._connection:
                    for statement in _SCHEMA:
                        self._connection.execute(statement)
            # A connection of its own: the other one may be inside a transaction of another thread.
            self._checkpointer = _connect(path, writable=True)
            self._checkpointer.set_busy_timeout(_CHECKPOINT_PATIENCE_MS)
            applied: Any = self._connection.execute("SELECT value FROM state WHERE key='applied_lsn'").get
        if not isinstance(applied, int):
            raise CorruptionError(f"the applied lsn is missing in {path}", file=str(path))
        self.applied_lsn: int = applied

    def write(self, frames: Iterable[Frame]) -> None:
        """Apply these batches in one transaction, skipping those that are in already."""
        wanted = [frame for frame in frames if frame.lsn > self.applied_lsn]
        if not wanted:
            return
        connection = self._connection
        with _reported(self.path), connection:
            for frame in wanted:
                labels = range(frame.first_label, frame.first_label + frame.label_count)
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
            connection.execute("UPDATE state SET value=? WHERE key='applied_lsn'", (wanted[-1].lsn,))
        self.applied_lsn = wanted[-1].lsn

    def forget(self, first_label: int, applied_lsn: int) -> None:
        """Remove versions from `first_label` on, whose batches the log lost (durability="os" and a power cut)."""
        with _reported(self.path), self._connection as connection:
            connection.execute("DELETE FROM records WHERE label>=?", (first_label,))
            connection.execute("DELETE FROM texts WHERE label>=?", (first_label,))
            connection.execute("UPDATE state SET value=? WHERE key='applied_lsn'", (applied_lsn,))
        self.applied_lsn = applied_lsn

    def checkpoint(self) -> None:
        """Make all commits so far durable, in the database file or in its WAL. May run beside `write`."""
        with _reported(self.path):
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
            with _reported(self.path):
                self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        return True

    def close(self) -> None:
        self._checkpointer.close()
        self._connection.close()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """SQLite's own words for a full disk, an I/O error and damage, as the errors everybody else raises."""
    try:
        yield
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        raise OSError(f"SQLite could not use {path}: {error}") from error
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
        raise CorruptionError(f"SQLite reports damage in {path}: {error}", file=str(path)) from error
    except apsw.SQLError as error:
        if "malformed" not in str(error) and "no such table" not in str(error):
            raise
        raise CorruptionError(f"SQLite reports damage in {path}: {error}", file=str(path)) from error


def _padded(labels: Sequence[int]) -> Iterator[list[int]]:
    """Chunks whose sizes are powers of two (the last label repeated), so that few statements are prepared."""
    for start in range(0, len(labels), _PAGE):
        chunk = list(labels[start : start + _PAGE])
        size = 1 << (len(chunk) - 1).bit_length()
        yield chunk + [chunk[-1]] * (size - len(chunk))
