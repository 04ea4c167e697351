"""What operations answer, where the library has no type of its own for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from nopokedb.records import Group, Hit, Id, Record

Answer: TypeAlias = list[Hit] | list[Group]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of a query: one, or one for each of its `vectors`."""

    answers: list[Answer]
    many: bool
    grouped: bool
    packed: bool
    """Vectors are to be told in base64."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records, in order; None where there is none."""

    records: list[Record | None]
    packed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a scan."""

    records: list[Record]
    after: Id | None
    """Where the next page begins; None: this was the last."""
    packed: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Ids of the records that were written, in order."""

    ids: list[Id]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many records it was."""

    count: int


@dataclass(frozen=True, slots=True)
class Facets:
    """Values of a field, most frequent first, and how many records have each."""

    values: list[tuple[Any, int]]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors that a model made of texts, shape (n, dim)."""

    vectors: Any
    dim: int


@dataclass(frozen=True, slots=True)
class Created:
    """A collection that is there now."""

    name: str
    dim: int
    space: str
    created: bool
    """False: it was there already."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection and its settings."""

    name: str
    dim: int
    space: str
    index: str
    embed: str
    """Name of its model, "" for none."""
    count: int
    indexed_fields: list[str]
    M: int
    ef_construction: int
    text_language: str


@dataclass(frozen=True, slots=True)
class Done:
    """Whether there was something to do."""

    done: bool
