"""Answers of queries that ask for more than the nearest vectors, as far as they are the same on every engine.

An engine fills in how records are proposed, best first, by vector, by text, or by both; examples, diversity and groups
only change which of them are asked for and which are taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from nopokedb.distances import Floats, unit_mean
from nopokedb.engine import Answer, Query
from nopokedb.errors import InvalidInputError
from nopokedb.filters import And, Filter, Test
from nopokedb.fusion import varied
from nopokedb.records import MAX_K, MIN_COSINE_NORM, Group, Hit, Id, Vectors
from nopokedb.text_query import TextQuery

SIDE_LENGTH = 50
"""Candidates that each side of a hybrid query brings at least: rank 50 weighs 0.55 of rank 1 under reciprocal ranks."""
SIDE_FACTOR = 4
_POOL_FACTOR = 5
"""Candidates per hit among which a varied answer is chosen; LangChain's default is the same ratio."""
_POOL_LENGTH = 50
_GROUP_LENGTH = 4_096
"""Groups that are not full after so many candidates are filled by a filter on their values."""

GroupKey: TypeAlias = tuple[str, object]
"""See `filters.group_keys`."""


class Scored(Protocol):
    """A record that may be an answer."""

    score: float


C = TypeVar("C", bound=Scored)


class AnyRanking(ABC, Generic[C]):
    """Answers one query on one state; `C` is what an engine knows of a candidate."""

    def __init__(self, query: Query, space: str) -> None:
        self._query = query
        self._space = space

    # --- what an engine fills in ---------------------------------------------------------------------------

    vectors: Vectors | None
    """Those of the query, or the one of its examples (`_from_examples`)."""

    @abstractmethod
    def lap(self, stage: str) -> None:
        """What passed since the last stage belongs to this one."""

    @abstractmethod
    def _candidates(self, vector: Floats | None, text: TextQuery | None, length: int, where: Filter | None) -> list[C]:
        """The best `length` records that pass, best first, ties by id, examples left out."""

    @abstractmethod
    def _group_keys(self, candidates: Sequence[C]) -> list[list[GroupKey]]:
        """The groups of each record."""

    @abstractmethod
    def _stored_vectors(self, candidates: Sequence[C]) -> Vectors:
        """The vector of each record, shape (n, dim)."""

    @abstractmethod
    def _examples(self, ids: Sequence[Id]) -> Vectors:
        """The vectors of these records, which are no answers from now on. Raises `RecordNotFoundError`."""

    @abstractmethod
    def _hits(self, candidates: Sequence[C], text: TextQuery | None) -> list[Hit]: ...

    # --- what is the same ----------------------------------------------------------------------------------

    def answers(self) -> list[Answer]:
        """One answer per question."""
        query = self._query
        texts: list[TextQuery | None] = [*query.texts] if query.texts else [None]
        count = len(texts) if self.vectors is None else len(self.vectors)
        texts = texts * count if len(texts) == 1 else texts
        vectors: list[Floats | None] = [None] * count if self.vectors is None else [*self.vectors]
        return [self._answer(vector, text) for vector, text in zip(vectors, texts, strict=True)]

    def _answer(self, vector: Floats | None, text: TextQuery | None) -> Answer:
        query = self._query
        if query.group_size:
            return self._groups(vector, text)
        if query.diversity is not None:
            pool = self._candidates(vector, text, min(max(_POOL_FACTOR * query.k, _POOL_LENGTH), MAX_K), query.where)
            return self._hits(self._varied(pool), text)
        return self._hits(self._candidates(vector, text, query.k, query.where), text)

    def _from_examples(self) -> Vectors:
        """The mean of the vectors of `like`, moved away from the mean of those of `unlike` by their difference."""
        wide = unit_mean(self._space, self._examples(self._query.like))
        if self._query.unlike:
            wide = 2.0 * wide - unit_mean(self._space, self._examples(self._query.unlike))
        if self._space == "cosine" and not np.linalg.norm(wide) > MIN_COSINE_NORM:
            raise InvalidInputError("expected examples that point somewhere, but their vectors cancel out")
        return wide.astype(np.float32)[None, :]

    def _varied(self, pool: list[C]) -> list[C]:
        """k candidates by maximal marginal relevance, in the order in which they are chosen."""
        query = self._query
        assert query.diversity is not None
        if not pool:
            return []
        scores, cosine = [candidate.score for candidate in pool], self._space == "cosine" and not query.texts
        chosen = varied(scores, self._stored_vectors(pool), query.k, query.diversity, cosine=cosine)
        self.lap("diversity")
        return [pool[at] for at in chosen]

    def _groups(self, vector: Floats | None, text: TextQuery | None) -> list[Group]:
        """The k best groups, each with its best hits."""
        query = self._query
        length = min(4 * query.k * query.group_size, MAX_K)
        while True:
            found = self._candidates(vector, text, length, query.where)
            groups: dict[GroupKey, list[C]] = {}
            for candidate, keys in zip(found, self._group_keys(found), strict=True):
                for key in keys:
                    members = groups.setdefault(key, [])
                    if len(members) < query.group_size:
                        members.append(candidate)
            best = list(groups)[: query.k]  # in the order of their best hits
            full = len(best) == query.k and all(len(groups[key]) == query.group_size for key in best)
            if full or len(found) < length or length == MAX_K:
                break
            if len(best) == query.k and length >= _GROUP_LENGTH:
                self._fill(vector, text, {key: groups[key] for key in best})
                break
            length = min(4 * length, MAX_K)
        self.lap("groups")
        return [Group(key[1], self._hits(groups[key], text)) for key in best]  # type: ignore[arg-type]

    def _fill(self, vector: Floats | None, text: TextQuery | None, groups: dict[GroupKey, list[C]]) -> None:
        """Complete groups whose further members are far behind, each by a query of its own."""
        query = self._query
        for key, members in groups.items():
            if len(members) < query.group_size:
                test = Test(query.group_by, "any_of", (key[1],))
                where = test if query.where is None else And((query.where, test))
                members[:] = self._candidates(vector, text, query.group_size, where)
