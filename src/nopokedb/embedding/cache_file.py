"""The file of `Cached`: vectors by model and text, in SQLite.

    vectors(model, text, used, crc, vector)     model, text: SHA-256; used: a number that grows with each call;
                                                vector: float32, little-endian; crc: CRC-32C of model, text and vector

A vector that does not match its checksum is none, and is made again. Commits are not synced: what a power cut takes is
computed once more. SQLite's WAL keeps the file whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw
import google_crc32c
import numpy as np
import numpy.typing as npt

from nopokedb.errors import CorruptionError, InvalidInputError

_APPLICATION_ID, _VERSION = 0x4E504B45, 1
"""How SQLite's header tells the file from other databases."""
_PATIENCE_MS = 10_000
_CHUNK = 500
"""So many keys are asked for in one statement."""
_KEPT_SHARE = 0.9
"""A full file is emptied to this share, so that not each text has to make room."""
_LOOKS = 100
"""The number of texts is looked at after each hundredth of the limit."""
_SCHEMA = (
    "CREATE TABLE vectors(model BLOB NOT NULL, text BLOB NOT NULL, used INTEGER NOT NULL, crc INTEGER NOT NULL,"
    " vector BLOB NOT NULL, PRIMARY KEY(model, text)) WITHOUT ROWID",
    "CREATE INDEX vectors_used ON vectors(used)",
    f"PRAGMA application_id={_APPLICATION_ID}",
    f"PRAGMA user_version={_VERSION}",
)
Vector = npt.NDArray[np.float32]


class CacheFile:
    """One open file, for one model. Threads take turns; processes wait for each other's transactions."""

    def __init__(self, path: Path, model: bytes, dim: int, limit: int) -> None:
        self._path = path
        self._model = model
        self._dim = dim
        self._limit = limit
        self._unseen = 0
        """Texts kept since the number was looked at."""
        self._lock = threading.Lock()
        self._open: tuple[apsw.Connection, int] | None = None
        """The connection, and the process that made it."""
        with self._connection():
            pass

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with self._lock, self._reported():
            if self._open is None or self._open[1] != os.getpid():
                self._open = (self._connect(), os.getpid())
            yield self._open[0]

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise CorruptionError(
                f"SQLite reports damage in the cache {self._path}: {error}; delete the file, it is only a cache",
                file=str(self._path),
            ) from error
        except (apsw.BusyError, apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError) as error:
            raise OSError(f"SQLite could not use the cache {self._path}: {error}") from error

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path))
        try:
            connection.set_busy_timeout(_PATIENCE_MS)
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: apsw.Connection) -> None:
        """Make the table in an empty file; refuse a file that is anything else, before anything in it is changed."""
        try:
            # First: another opener commits the table and what follows at once.
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() or (0,)
            (application,) = connection.execute("PRAGMA application_id").fetchone() or (0,)
            (version,) = connection.execute("PRAGMA user_version").fetchone() or (0,)
        except apsw.NotADBError:
            application, version, tables = 0, 0, 1
        if (application, version) != (_APPLICATION_ID, _VERSION) and tables:
            raise InvalidInputError(f"expected a cache of vectors, or no file, got something else: {self._path}")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL").fetchall()
        if tables:
            return
        with _transaction(connection):
            # Another process may have been quicker.
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() or (0,)
            for statement in () if tables else _SCHEMA:
                connection.execute(statement).fetchall()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """The vectors of these texts that are there and sound; they are marked as used."""
        found: dict[bytes, Vector] = {}
        with self._connection() as connection:
            for at in range(0, len(keys), _CHUNK):
                chunk = keys[at : at + _CHUNK]
                marks = ",".join("?" * len(chunk))
                statement = f"SELECT text, crc, vector FROM vectors WHERE model = ? AND text IN ({marks})"  # noqa: S608  # marks only
                for text, crc, data in connection.execute(statement, (self._model, *chunk)):
                    if len(data) == 4 * self._dim and crc == self._crc(text, data):
                        vector = np.frombuffer(data, "<f4")
                        if np.isfinite(vector).all():
                            found[text] = vector
            if found:
                with _transaction(connection):
                    now = _next_use(connection)
                    connection.executemany(
                        "UPDATE vectors SET used = ? WHERE model = ? AND text = ?",
                        [(now, self._model, text) for text in found],
                    )
        return found

    def keep(self, vectors: dict[bytes, Vector]) -> None:
        """Keep these, durably as far as the process is concerned."""
        rows = [(text, vector.astype("<f4").tobytes()) for text, vector in vectors.items()]
        with self._connection() as connection, _transaction(connection):
            now = _next_use(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES(?, ?, ?, ?, ?)",
                [(self._model, text, now, self._crc(text, data), data) for text, data in rows],
            )
            self._unseen += len(rows)
            if self._unseen > self._limit // _LOOKS:
                self._unseen = 0
                self._make_room(connection)

    def _make_room(self, connection: apsw.Connection) -> None:
        (count,) = connection.execute("SELECT count(*) FROM vectors").fetchone() or (0,)
        if count > self._limit:
            connection.execute(
                "DELETE FROM vectors WHERE (model, text) IN (SELECT model, text FROM vectors ORDER BY used LIMIT ?)",
                (count - max(1, int(self._limit * _KEPT_SHARE)),),
            )

    def _crc(self, text: bytes, data: bytes) -> int:
        return google_crc32c.value(self._model + text + data)  # type: ignore[no-any-return]

    def count(self) -> int:
        """How many texts the file has, of all models."""
        with self._connection() as connection:
            (count,) = connection.execute("SELECT count(*) FROM vectors").fetchone() or (0,)
            return int(count)

    def close(self) -> None:
        """Close it; the next use opens it again."""
        with self._lock:
            if self._open is not None and self._open[1] == os.getpid():
                self._open[0].close()
            self._open = None


@contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    """Several statements as one, with the right to write from the start: two that both read first could not both go on
    to write."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite may have given up by itself, as on a full disk
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _next_use(connection: apsw.Connection) -> int:
    (last,) = connection.execute("SELECT max(used) FROM vectors").fetchone() or (0,)
    return int(last or 0) + 1
