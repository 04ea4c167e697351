"""Reads of one state, whichever that is: the current one of a handle, or that of a named snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nopokedb.embedded.ranking import Ranking
from nopokedb.embedded.scanning import Read, facet, scan
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.text_view import TextView
from nopokedb.engine import Answer, Order, Query
from nopokedb.filters import Filter, Path, Scalar
from nopokedb.records import Id, Part, Record


class MomentReads:
    """The read methods of an engine (`nopokedb.engine.Engine` describes them). `take_snapshot` gives the state to read,
    anew for each call; `read` runs a read on the stores that are open; `texts` gives the text index."""

    def __init__(
        self,
        dim: int,
        space: str,
        read: Read,
        take_snapshot: Callable[[], Snapshot],
        texts: Callable[[], TextView],
    ) -> None:
        self.dim = dim
        self.space = space
        self._read = read
        self._snapshot = take_snapshot
        self._texts = texts

    def query(self, query: Query) -> list[Answer]:
        if query.plain:
            found: list[Answer] = self._read(lambda reads: reads.query(self._snapshot(), query))
            return found
        answers: list[Answer] = self._read(lambda reads: Ranking(reads, self._snapshot, self._texts, query).answers())
        return answers

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        found: list[Record | None] = self._read(lambda reads: reads.get(self._snapshot(), ids, include))
        return found

    def exists(self, id_: Id) -> bool:
        found: bool = self._read(lambda reads: reads.find(self._snapshot(), [id_])[0] is not None)
        return found

    def count(self, where: Filter | None) -> int:
        if where is None:
            return self._snapshot().live.count
        number: int = self._read(lambda reads: reads.passing(self._snapshot(), where).total)
        return number

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        return scan(self._read, self._snapshot(), where, order_by, after, limit, include)

    def facet(self, path: Path, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]:
        counts: list[tuple[Scalar, int]] = self._read(lambda reads: facet(reads, self._snapshot(), path, where, limit))
        return counts
