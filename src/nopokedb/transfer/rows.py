"""What a format's module must do: a `Source` gives rows of a file, and `write` puts a `Content` into one.

A format knows nothing of collections, and the import nothing of formats; what passes between them stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from nopokedb.errors import ArchiveError
from nopokedb.records import Id, Part, Record, Space

IdKind: TypeAlias = Literal["int", "str", "mixed"]
"""Which ids a collection has; "int" for none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, as it stands there."""

    number: int
    """Position among the rows, from 0. The same in every reading of the same file, bad rows included."""
    line: int
    """Where people find it: the line of a text file, else the row, both counted from 1."""
    fields: dict[str, Any]
    error: str | None = None
    """Why it could not be read."""


class Source(ABC):
    """A file, open for reading rows. Holds a bounded part of it in memory: one row, or one block of the format."""

    unit: Literal["line", "row"] = "row"
    """What `Row.line` counts."""
    columns: Sequence[str] | None = None
    """Names of the columns, None where each row has its own."""
    count: int | None = None
    """Rows, where the file says so."""
    vector: str | None = None
    """The column of the vectors, where the format knows it."""
    space: Space | None = None
    """The space that the file names."""

    @abstractmethod
    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on. `ArchiveError` if the file is damaged or something else."""

    def done(self, row: Row) -> float | None:
        """The share of the file that is behind the row, None if that is not known."""
        return (row.number + 1) / self.count if self.count else None

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Give the file back."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is exported: the records of one moment, in id order."""

    count: int
    dim: int
    space: Space
    id_kind: IdKind
    batches: Callable[[Sequence[Part]], Iterator[list[Record]]]
    """The records with these parts, in lists of bounded size; may be asked for more than once."""


def damaged(path: Path, what: object, remedy: str = "") -> ArchiveError:
    """The error for a file that is not what it should be."""
    return ArchiveError(f"{path}: {what}{remedy}", file=str(path))


def needed(module: str) -> str:
    """How to get the library of a format."""
    from nopokedb.distribution import install_hint

    return f"this format needs {module}: {install_hint('transfer')}"


# --- ids, texts and objects in columns of text --------------------------------------------------------------------


def id_text(id_: Id) -> str:
    """An id in a column that has only text: an int as its digits, a str as it is, but quoted as JSON where it could be
    taken for another."""
    if isinstance(id_, int):
        return str(id_)
    return orjson.dumps(id_).decode() if id_[0] == '"' or _int_of(id_) is not None else id_


def id_of_text(text: str) -> Id:
    """The id that `id_text` wrote. Only the usual digits of an int are one: "007" is a str."""
    if text[:1] == '"':
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return value if isinstance(value, str) else text
    number = _int_of(text)
    return text if number is None else number


def _int_of(text: str) -> int | None:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
        return None
    number = int(text)
    return number if str(number) == text and -(2**63) <= number < 2**63 else None


def extra_fields(record: Record) -> bytes:
    """Id, text and metadata of a record as one line of JSON, for formats that hold only arrays."""
    return orjson.dumps({"id": record.id, "text": record.text, "metadata": record.metadata})
