"""Named snapshots: `NamedSnapshot`, what is kept of one, and `View`, how one is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from nopokedb.errors import RecordNotFoundError
from nopokedb.records import (
    MAX_K,
    Hit,
    Id,
    Part,
    Record,
    Vectors,
    check_id,
    check_include,
    check_int,
    check_sequence_of_ids,
    check_vector,
)


@dataclass(frozen=True, slots=True)
class NamedSnapshot:
    """A moment of a collection that was given a name."""

    name: str
    lsn: int
    count: int
    """Records it has."""
    created_at: datetime
    """In UTC."""


class Moment(Protocol):
    """What an engine gives for one named snapshot: its read methods, bound to that state."""

    dim: int
    space: str

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]: ...
    def count(self) -> int: ...
    def scan(self, after: Id | None, limit: int | None, include: Sequence[Part]) -> Iterator[Record]: ...
    def query(
        self, queries: Vectors, k: int, ef: int | None, max_distance: float | None, include: Sequence[Part]
    ) -> list[list[Hit]]: ...


class View:
    """A collection as it was at a named snapshot, for reading. It belongs to the handle that made it with `at`."""

    def __init__(self, moment: Moment, named: NamedSnapshot) -> None:
        self._moment = moment
        self.named = named

    def get(self, id: Id) -> dict[str, Any] | None:
        """The metadata that the record had then, None if there was no such record."""
        record = self._moment.get([check_id(id)], ("metadata",))[0]
        return None if record is None else record.metadata

    def get_many(self, ids: Iterable[Id], *, include: Sequence[Part] = ("metadata",)) -> list[Record | None]:
        """As `NoPokeDB.get_many`, of that moment."""
        check_sequence_of_ids(ids)
        return self._moment.get([check_id(id_) for id_ in ids], check_include(include))

    def __getitem__(self, id: Id) -> Record:
        """The whole record; `RecordNotFoundError` (a KeyError) if there was none."""
        record = self._moment.get([check_id(id)], ("metadata", "vector", "text"))[0]
        if record is None:
            raise RecordNotFoundError(f"expected a record with id {id!r} in snapshot {self.named.name!r}, found none")
        return record

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        """How many records there were."""
        return self._moment.count()

    def scan(
        self, *, after: Id | None = None, limit: int | None = None, include: Sequence[Part] = ("metadata",)
    ) -> Iterator[Record]:
        """As `NoPokeDB.scan`, of that moment."""
        after = None if after is None else check_id(after)
        if limit is not None:
            check_int("limit", limit, 0, 2**62)
        return self._moment.scan(after, limit, check_include(include))

    def query(
        self, vector: Any, k: int = 5, ef: int | None = None, *, include: Sequence[Part] = ("metadata",)
    ) -> list[Hit]:
        """As `NoPokeDB.query` with a vector, of that moment. Rows that had no index then are compared exactly."""
        query = check_vector(vector, self._moment.dim, self._moment.space)
        k = check_int("k", k, 1, MAX_K)
        ef = None if ef is None else check_int("ef", ef, 1, 10_000_000)
        return self._moment.query(query[None, :], k, ef, None, check_include(include))[0]

    def __repr__(self) -> str:
        return f"<View {self.named.name!r} at lsn {self.named.lsn}: {self.named.count} records>"
