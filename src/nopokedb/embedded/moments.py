"""Reads of one state that is not the current one: that of a named snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nopokedb.embedded.ranking import Ranking
from nopokedb.embedded.scanning import Read, facet, scan
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.manifest import Settings
from nopokedb.embedded.text_view import TextView
from nopokedb.engine import Answer, Order, Query
from nopokedb.filters import Filter, Path, Scalar
from nopokedb.records import Id, Part, Record


class MomentReads:
    """The read methods of an engine (`nopokedb.engine.Moment` describes them) on a state that stays. `read` runs a read
    on the stores of that state, as long as the handle is open."""

    def __init__(self, settings: Settings, read: Read, state: Snapshot) -> None:
        self.dim, self.space = settings.dim, settings.space
        self.embed_name, self.embed_fingerprint = settings.embed_name, settings.embed_fingerprint
        self._read = read
        self._state = state
        self._language = settings.text_language
        self._texts: TextView | None = None

    def query(self, query: Query) -> list[Answer]:
        if query.plain:
            found: list[Answer] = self._read(lambda reads: reads.query(self._state, query))
            return found
        answers: list[Answer] = self._read(
            lambda reads: Ranking(reads, lambda: self._state, self._text_view, query).answers()
        )
        return answers

    def _text_view(self) -> TextView:
        """The texts of that state, indexed in memory at the first question for them."""
        if self._texts is None:
            self._texts = TextView(None, self._language, self._state.store.reader)
        return self._texts

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        found: list[Record | None] = self._read(lambda reads: reads.get(self._state, ids, include))
        return found

    def exists(self, id_: Id) -> bool:
        found: bool = self._read(lambda reads: reads.find(self._state, [id_])[0] is not None)
        return found

    def count(self, where: Filter | None) -> int:
        if where is None:
            return self._state.live.count
        number: int = self._read(lambda reads: reads.passing(self._state, where).total)
        return number

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        return scan(self._read, self._state, where, order_by, after, limit, include)

    def facet(self, path: Path, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]:
        counts: list[tuple[Scalar, int]] = self._read(lambda reads: facet(reads, self._state, path, where, limit))
        return counts
