"""`Reading`: the methods of `NoPokeDB` that read, which a named snapshot has as well.

A part of that class in a file of its own: each checks its arguments and then calls what answers, the engine or one
moment of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack, overload

from nopokedb.errors import InvalidInputError, RecordNotFoundError
from nopokedb.filters import Scalar
from nopokedb.question import Asker, Fusion, ManyOptions, QueryOptions, options_of, scan_order
from nopokedb.records import (
    Group,
    Hit,
    Id,
    Part,
    Record,
    check_id,
    check_include,
    check_int,
    check_sequence_of_ids,
)
from nopokedb.where import Where, parse_filter, parse_path

MISSING: Final = object()


class Reading:
    """Reads of one collection, as it is now or as it was."""

    ef: int | None

    if TYPE_CHECKING:  # what is asked, and what makes questions for it: they belong together

        @property
        def _asker(self) -> Asker: ...

    def get(self, id: Any = MISSING, *, vid: Any = MISSING) -> dict[str, Any] | None:
        """The record's metadata, None if there is no such record. `vid` is another name of `id`."""
        record = self._asker.engine.get([one_id(id, vid)], ("metadata",))[0]
        return None if record is None else record.metadata

    def get_many(self, ids: Iterable[Id], *, include: Sequence[Part] = ("metadata",)) -> list[Record | None]:
        """The records of these ids in order, None where there is none. `include`: metadata, vector, text."""
        check_sequence_of_ids(ids)
        return self._asker.engine.get([check_id(id_) for id_ in ids], check_include(include))

    def __getitem__(self, id: Id) -> Record:
        """The whole record; `RecordNotFoundError` (a KeyError) if there is none."""
        record = self._asker.engine.get([check_id(id)], ("metadata", "vector", "text"))[0]
        if record is None:
            raise RecordNotFoundError(f"expected a record with id {id!r}, found none")
        return record

    def __contains__(self, id: object) -> bool:
        return self._asker.engine.exists(check_id(id))

    def __len__(self) -> int:
        return self.count()

    def count(self, where: Where = None) -> int:
        """How many records there are, or pass the filter."""
        return self._asker.engine.count(parse_filter(where))

    def scan(
        self,
        where: Where = None,
        *,
        order_by: str | None = None,
        after: Id | str | None = None,
        limit: int | None = None,
        include: Sequence[Part] = ("metadata",),
    ) -> Iterator[Record]:
        """The records that pass the filter, as of the moment of this call, in id order (ints, then strs by their UTF-8
        bytes) or in the order of a field.

        Args:
            where: a filter (docs/filters.md); None: all.
            order_by: a field; `-` in front for descending. Numbers come before strs before booleans; records without
                it last, and ties in id order, either way. Of a list the first value counts.
            after: continue behind this id, which need not exist; with `order_by` behind a record's `cursor`.
            limit: return at most this many.
            include: metadata, vector, text.
        """
        order, after, limit = scan_order(order_by, after, limit)
        return self._asker.engine.scan(parse_filter(where), order, after, limit, check_include(include))

    def facet(self, field: str, where: Where = None, *, limit: int = 100) -> list[tuple[Scalar, int]]:
        """How many records have each value of the field, most frequent first, then by value; `limit` values at most.

        Of a list every value counts once. Null, missing, and objects are not counted.
        """
        path = parse_path(field)
        return self._asker.engine.facet(path, parse_filter(where), check_int("limit", limit, 1, 10_000_000))

    @overload
    def query(
        self,
        vector: Any = ...,
        k: int = ...,
        ef: int | None = ...,
        *,
        group_by: None = ...,
        **options: Unpack[QueryOptions],
    ) -> list[Hit]: ...

    @overload
    def query(
        self,
        vector: Any = ...,
        k: int = ...,
        ef: int | None = ...,
        *,
        group_by: str,
        **options: Unpack[QueryOptions],
    ) -> list[Group]: ...

    def query(
        self,
        vector: Any = None,
        k: int = 5,
        ef: int | None = None,
        *,
        text: str | None = None,
        where: Where = None,
        target_recall: float | None = None,
        max_distance: float | None = None,
        like: Sequence[Id] | None = None,
        unlike: Sequence[Id] | None = None,
        fusion: Fusion = "rrf",
        alpha: float = 0.5,
        diversity: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        highlight: bool = False,
        include: Sequence[Part] = ("metadata",),
    ) -> list[Hit] | list[Group]:
        """The k best records by vector, by text, or by both; fewer only if fewer pass the filter.

        Args:
            vector: shape (dim,); a str is turned into one by the collection's `embed`.
            k: 1 to 100,000; with `group_by` the number of groups.
            ef: candidates before exact reranking, honoured exactly, at least k. None: the handle's, else as many as
                measured to reach the recall.
            text: words, "phrases", +must, -must_not, prefix*; ranked by BM25 (extra "text").
            where: a filter (docs/filters.md), applied inside the search.
            target_recall: above 0, and at most 1, which means exact; None: 0.99. In place of `ef`: the cheapest index
                and list that reached it when they were measured (docs/recall.md).
            max_distance: leave out records farther than this from the vector.
            like, unlike: ids of records; the question is the mean of the vectors of `like`, moved away from the mean
                of `unlike`. These records are no answers.
            fusion, alpha: how vector and text are combined: "rrf" by ranks, "weighted" by scores, where alpha is the
                weight of the vector (docs/search.md).
            diversity: 0 to 1; hits are chosen one by one for being near and unlike those before (maximal marginal
                relevance), and come in the order in which they were chosen.
            group_by, group_size: the best `group_size` hits of each of the k best values of a field.
            highlight: hits carry the passage of the text that matches, as HTML with <b>.
            include: metadata, vector, text.

        Returns: hits ordered by score, larger is better (cosine similarity, dot product, minus squared distance, BM25,
        or the fused score); ties by id. Distances are exact, in float64; None if only text was asked for. With
        `group_by` a list of `Group`.
        """
        options = options_of(text, like, unlike, fusion, alpha, diversity, group_by, group_size, highlight)
        asker = self._asker
        return asker.engine.query(
            asker.query(asker.vector(vector), k, ef, self.ef, target_recall, include, where, max_distance, options)
        )[0]

    @overload
    def query_many(
        self,
        vectors: Any,
        k: int = ...,
        ef: int | None = ...,
        *,
        text: str | Sequence[str] | None = ...,
        group_by: None = ...,
        **options: Unpack[ManyOptions],
    ) -> list[list[Hit]]: ...

    @overload
    def query_many(
        self,
        vectors: Any,
        k: int = ...,
        ef: int | None = ...,
        *,
        text: str | Sequence[str] | None = ...,
        group_by: str,
        **options: Unpack[ManyOptions],
    ) -> list[list[Group]]: ...

    def query_many(
        self,
        vectors: Any,
        k: int = 5,
        ef: int | None = None,
        *,
        text: str | Sequence[str] | None = None,
        where: Where = None,
        target_recall: float | None = None,
        max_distance: float | None = None,
        fusion: Fusion = "rrf",
        alpha: float = 0.5,
        diversity: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        highlight: bool = False,
        include: Sequence[Part] = ("metadata",),
    ) -> list[list[Hit]] | list[list[Group]]:
        """`query` for vectors of shape (n, dim), or n strs where there is `embed`, against one state of the collection,
        on all cores. `text` is one for all, or one for each."""
        options = options_of(text, None, None, fusion, alpha, diversity, group_by, group_size, highlight)
        asker = self._asker
        return asker.engine.query(
            asker.query(asker.vectors(vectors), k, ef, self.ef, target_recall, include, where, max_distance, options)
        )  # type: ignore[return-value]  # all of one kind


def one_id(id: Any, vid: Any) -> Id:
    """The one id that was given, as `id` or as `vid`."""
    if (id is MISSING) == (vid is MISSING):
        raise InvalidInputError("expected exactly one of id and vid")
    return check_id(vid if id is MISSING else id)
