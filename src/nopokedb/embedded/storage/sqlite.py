"""SQLite connections as the metadata need them, and its errors as everybody else raises theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import apsw

from nopokedb.embedded.storage.filter_sql import add_functions
from nopokedb.errors import CorruptionError

_PATIENCE_MS = 10_000
"""Longest wait for another connection's lock; such locks are held for the length of one call."""


def connect(path: Path, *, writable: bool, immutable: bool = False) -> apsw.Connection:
    """A connection of this process. `immutable` believes that nobody writes the file, and looks at no WAL."""
    if immutable:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"file:{quote(str(path.absolute()))}?immutable=1", flags=flags)
    elif writable:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    else:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    add_functions(connection)
    # Closing the last connection would checkpoint and remove the WAL; in a forked child that must not happen,
    # and in the parent `MetadataWriter` does it in the right order.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_busy_timeout(_PATIENCE_MS)
    if writable:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone() or ("",)
        if mode != "wal":
            raise OSError(f"expected SQLite's WAL mode for {path}, got {mode!r}: its file system lacks shared memory")
        for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0", "fullfsync=1", "checkpoint_fullfsync=1"):
            connection.execute("PRAGMA " + pragma).fetchall()
    return connection


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """SQLite's own words for a full disk, an I/O error and damage, as the errors everybody else raises."""
    try:
        yield
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        raise OSError(f"SQLite could not use {path}: {error}") from error
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
        raise CorruptionError(f"SQLite reports damage in {path}: {error}", file=str(path)) from error
    except apsw.SQLError as error:
        if "cannot rollback" in str(error):  # SQLite has done so itself, as it may on a full disk or an I/O error
            raise OSError(f"SQLite could not write {path}: {error.__context__ or error}") from error
        # The statements are fixed: what they name is there, unless the schema is damaged.
        if "malformed" not in str(error) and "no such" not in str(error):
            raise
        raise CorruptionError(f"SQLite reports damage in {path}: {error}", file=str(path)) from error
