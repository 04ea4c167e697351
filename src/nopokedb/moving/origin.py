"""What a reader of a foreign collection must do, and how such readers get at bytes.

Foreign files are data. Nothing in them is run, and none is handed to native code that was not made for hostile input:
every size is compared with the file before it is used, and a file is read piece by piece, not mapped (one that is
shortened meanwhile would kill the process). The program that owns them must not write meanwhile.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nopokedb.errors import ArchiveError
from nopokedb.records import Id, Record, Space, Vectors, id_order

if TYPE_CHECKING:
    import apsw

BLOCK = 1000
LOST = "codes have lost what was given; migrate from the vectors that they were made of"
_PIECE_BYTES = 2**24


class Origin(ABC):
    """A foreign collection, open for reading. Only its ids, and where their vectors stand, are in memory."""

    program: str
    path: str
    dim: int
    space: Space
    ids: list[Id]
    """All ids, each once, in the order of `id_order`."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        """What does not come along, or is not as it was given to the program, in words."""
        self.refused: dict[Id, str] = {}
        """Records that cannot be read, and why."""
        self.opened = ExitStack()

    @abstractmethod
    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        """The records of these ids, in this order; without those that cannot be read, which then stand in
        `refused`."""

    def records(self) -> Iterator[Record]:
        """All of them, in id order."""
        for start in range(0, len(self.ids), BLOCK):
            yield from self.fetch(self.ids[start : start + BLOCK])

    def close(self) -> None:
        """Give the files back."""
        self.opened.close()


class VectorFile:
    """Vectors of float32 in a file, at offsets."""

    def __init__(self, path: Path, dim: int) -> None:
        self._file = path.open("rb")
        self._path, self._bytes = path, 4 * dim

    def read(self, offset: int) -> Vectors:
        """The vector at this byte."""
        self._file.seek(offset)
        data = self._file.read(self._bytes)
        if len(data) != self._bytes:
            raise damaged(self._path, "the file ends within a vector", offset)
        return np.frombuffer(data, "<f4")

    def close(self) -> None:
        self._file.close()


class BareIndex(Origin):
    """An index file of ids and vectors, with metadata from a file beside it."""

    def __init__(self, program: str, path: Path, dim: int, space: Space, offsets: dict[int, int]) -> None:
        super().__init__()
        self.program, self.path, self.dim, self.space = program, str(path), dim, space
        self._offsets = offsets
        self.ids = sorted(offsets)
        self._vectors = VectorFile(path, dim)
        self.opened.callback(self._vectors.close)

    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        return [Record(id_, {}, self._vectors.read(self._offsets[id_])) for id_ in ids if isinstance(id_, int)]


def in_order(ids: Sequence[Id]) -> list[Id]:
    """Ids as collections keep them."""
    return sorted(ids, key=id_order)


def pieces(path: Path, offset: int, width: int, count: int) -> Iterator[tuple[int, bytes]]:
    """So many elements of one width as (number of the first, bytes), a bounded part at a time. Raises `ArchiveError`
    where the file ends early."""
    if offset < 0 or offset + width * count > path.stat().st_size:
        raise damaged(path, f"expected {count} elements of {width} bytes, but the file ends early", offset)
    each = max(1, _PIECE_BYTES // width)
    with path.open("rb") as file:
        file.seek(offset)
        for first in range(0, count, each):
            wanted = min(each, count - first) * width
            data = file.read(wanted)
            if len(data) != wanted:
                raise damaged(path, "the file ends early", offset + first * width)
            yield first, data


def open_sqlite(path: Path, opened: ExitStack) -> apsw.Connection:
    """A foreign SQLite file, for reading; it stays as it is. Where a journal or a WAL has changes that are not in it, a
    copy is opened, in which SQLite can bring them in."""
    import apsw

    if not path.is_file():
        raise ArchiveError(f"expected the file {path}, found none", file=str(path))
    beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
    place = path
    if any(file.is_file() and file.stat().st_size for file in beside):
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="nopokedb-")))
        for file in (path, *beside):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
        place = folder / path.name
    try:
        if place is path:
            address = f"file:{_quoted(path)}?immutable=1"
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            connection = apsw.Connection(address, flags=flags)
        else:
            connection = apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        raise damaged(path, f"SQLite cannot read it: {error}") from None
    opened.callback(connection.close)
    return connection


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fspath(path.absolute()))


def damaged(path: Path, message: str, offset: int = 0) -> ArchiveError:
    """The error for a file that is not what it should be."""
    return ArchiveError(f"{message}: {path} at byte {offset}", file=str(path), offset=offset)


def chosen(what: str, option: str, names: Sequence[str], wanted: str | None, path: Path) -> str:
    """The one of several collections (tables, vectors) that was asked for, or the only one."""
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None or wanted not in names:
        listed = ", ".join(map(repr, names[:50])) or "none"
        asked = f"; name one with {option}" if wanted is None else ""
        raise ArchiveError(
            f"expected {what}{f' {wanted!r}' if wanted else ''} in {path}, which has {listed}{asked}", file=str(path)
        )
    return wanted


def plain_json(value: Any) -> bool:
    """Whether this is what JSON has."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain_json, value))
    return value is None or isinstance(value, str | int | float)
