"""The arguments of a query -> a checked `Query`. Combinations without a meaning are refused here, for every engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from nopokedb.engine import Moment, Order, Query
from nopokedb.errors import InvalidInputError, InvalidVectorError
from nopokedb.records import (
    MAX_K,
    Id,
    Part,
    Vectors,
    check_choice,
    check_fraction,
    check_id,
    check_ids,
    check_include,
    check_int,
    check_vector,
    check_vectors,
    shown,
)
from nopokedb.text_query import TextQuery, parse_text_query
from nopokedb.where import Where, parse_filter, parse_path

MAX_EF = 10_000_000
MAX_GROUP_SIZE = 1_000
MAX_EXAMPLES = 1_000
MAX_MEASURED_K = 10_000
MAX_SAMPLE = 100_000
Fusion = Literal["rrf", "weighted"]


class ManyOptions(TypedDict, total=False):
    """The keyword arguments of `query_many` but `text`, and `group_by`, which decides what it returns."""

    where: Where
    target_recall: float | None
    max_distance: float | None
    fusion: Fusion
    alpha: float
    diversity: float | None
    group_size: int
    highlight: bool
    include: Sequence[Part]


class QueryOptions(ManyOptions, total=False):
    """The keyword arguments of `query` but `group_by`."""

    text: str | None
    like: Sequence[Id] | None
    unlike: Sequence[Id] | None


class Asker:
    """Checks questions to one collection."""

    def __init__(self, engine: Moment, embedder: Callable[[Sequence[str]], Vectors] | None) -> None:
        self.engine = engine
        """What is asked: a question means nothing where there is another model."""
        self._dim = engine.dim
        self._space = engine.space
        self._embedder = embedder

    def of(self, moment: Moment) -> Asker:
        """The same for another state of the collection."""
        return Asker(moment, self._embedder)

    def vector(self, vector: Any) -> Vectors | None:
        """The checked vector of `NoPokeDB.query`, shape (1, dim); of a str its embedding."""
        if vector is None:
            return None
        if isinstance(vector, str):
            vector = self._embed([vector])[0]
        return check_vector(vector, self._dim, self._space)[None, :]

    def vectors(self, vectors: Any) -> Vectors:
        """The checked vectors of `NoPokeDB.query_many`, shape (n, dim); of strs their embeddings."""
        if isinstance(vectors, Sequence) and len(vectors) and all(isinstance(item, str) for item in vectors):
            if isinstance(vectors, str):
                raise InvalidVectorError("expected a list of strs or vectors, got one str; wrap it in a list")
            vectors = self._embed(list(vectors))
        return check_vectors(vectors, self._dim, self._space)

    def query(
        self,
        vectors: Vectors | None,
        k: Any,
        ef: Any,
        default_ef: int | None,
        target_recall: Any,
        include: Any,
        where: Any,
        max_distance: Any,
        options: dict[str, Any],
    ) -> Query:
        """The question with these vectors; `options` are those of `options_of`."""
        query = Query(
            vectors,
            check_int("k", k, 1, MAX_K),
            default_ef if ef is None else check_int("ef", ef, 1, MAX_EF),
            check_include(include),
        )
        if target_recall is not None:
            if ef is not None:
                raise InvalidInputError("expected one of ef and target_recall, got both")
            query.ef, query.recall = None, check_recall(target_recall)
        if where is not None:
            query.where = parse_filter(where)
        if max_distance is not None:
            query.max_distance = _check_distance(max_distance)
        if options:
            _add_options(query, ef is not None or target_recall is not None, **options)
        elif vectors is None:
            raise InvalidInputError("expected a vector, text= or like=, got none of them")
        return query

    def one_of(
        self,
        vector: Any,
        k: Any,
        ef: Any,
        default_ef: int | None,
        *,
        text: Any = None,
        where: Any = None,
        target_recall: Any = None,
        max_distance: Any = None,
        like: Any = None,
        unlike: Any = None,
        fusion: Any = "rrf",
        alpha: Any = 0.5,
        diversity: Any = None,
        group_by: Any = None,
        group_size: Any = 1,
        highlight: Any = False,
        include: Any = ("metadata",),
    ) -> Query:
        """The question of `NoPokeDB.explain`, which takes what `query` takes."""
        options = options_of(text, like, unlike, fusion, alpha, diversity, group_by, group_size, highlight)
        return self.query(self.vector(vector), k, ef, default_ef, target_recall, include, where, max_distance, options)

    def sample(self, vectors: Any, k: Any, default_ef: int | None, where: Any, count: Any) -> Query:
        """The question of `NoPokeDB.measure_recall`; without vectors where they are to be made."""
        check_int("k", k, 1, MAX_MEASURED_K)
        check_int("sample", count, 1, MAX_SAMPLE)
        if vectors is not None:
            return self.query(self.vectors(vectors), k, None, default_ef, None, (), where, None, {})
        return Query(None, int(k), default_ef, (), where=parse_filter(where))

    def _embed(self, texts: list[str]) -> Any:
        if self._embedder is None:
            raise InvalidVectorError(
                "expected a vector, got a str: this collection was opened without embed=, which turns texts into "
                "vectors; to match words use text="
            )
        return self._embedder(texts)


def check_fields(fields: object) -> list[object]:
    """The names of fields in a sequence that is not a str."""
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        raise InvalidInputError(f"expected indexed_fields to be a sequence of fields, got {shown(fields)}")
    return list(fields)


def indexable(field: object) -> tuple[str, ...]:
    """The path of a field that may have an index."""
    path = parse_path(field)
    if path is None:
        raise InvalidInputError("expected a field of the metadata, got '$id': ids have an index of their own")
    return path


def order_of(order_by: object) -> Order:
    """The order of a scan: a field, `-` in front for descending."""
    if isinstance(order_by, str) and order_by.startswith("-"):
        return Order(parse_path(order_by[1:], place="order_by"), descending=True)
    return Order(parse_path(order_by, place="order_by"))


def scan_order(order_by: object, after: object, limit: object) -> tuple[Order | None, Any, int | None]:
    """The checked order, starting point and length of a scan."""
    order = None if order_by is None else order_of(order_by)
    if order is not None and after is not None and not isinstance(after, str):
        raise InvalidInputError(f"expected after to be a record's cursor beside order_by, got {shown(after)}")
    if after is not None and order is None:
        after = check_id(after)
    return order, after, None if limit is None else check_int("limit", limit, 0, 2**62)


def options_of(
    text: Any,
    like: Any,
    unlike: Any,
    fusion: Any,
    alpha: Any,
    diversity: Any,
    group_by: Any,
    group_size: Any,
    highlight: Any,
) -> dict[str, Any]:
    """What a query has beyond a vector and a filter; empty for most."""
    given = text is not None or like is not None or unlike is not None or diversity is not None
    if not given and group_by is None and highlight is False and (fusion, alpha, group_size) == ("rrf", 0.5, 1):
        return {}
    return {
        "text": text,
        "like": like,
        "unlike": unlike,
        "fusion": fusion,
        "alpha": alpha,
        "diversity": diversity,
        "group_by": group_by,
        "group_size": group_size,
        "highlight": highlight,
    }


def _add_options(
    query: Query,
    length_given: bool,
    *,
    text: str | Sequence[str] | None = None,
    like: Sequence[Id] | None = None,
    unlike: Sequence[Id] | None = None,
    fusion: str = "rrf",
    alpha: float = 0.5,
    diversity: float | None = None,
    group_by: str | None = None,
    group_size: int = 1,
    highlight: bool = False,
) -> None:
    """What only some questions have."""
    if text is not None:
        query.texts = _texts(text, 1 if query.vectors is None else len(query.vectors))
    if like is not None or unlike is not None:
        if query.vectors is not None or like is None:
            raise InvalidInputError(
                "expected a vector or like=, and unlike= only beside like=, got another combination"
            )
        query.like, query.unlike = _examples("like", like), _examples("unlike", unlike or [])
        if not query.like:
            raise InvalidInputError("expected like= to name at least one record, got none")
        if both := set(query.like) & set(query.unlike):
            raise InvalidInputError(f"expected different records in like= and unlike=, got {both.pop()!r} in both")
    by_vector = query.vectors is not None or bool(query.like)
    if not by_vector and query.texts is None:
        raise InvalidInputError("expected a vector, text= or like=, got none of them")
    check_choice("fusion", fusion, Fusion)
    if fusion == "weighted":
        if not (by_vector and query.texts):
            raise InvalidInputError("expected a vector and text= with fusion='weighted', got one of them")
        query.alpha = check_fraction("alpha", alpha)
    elif alpha != 0.5:
        raise InvalidInputError(
            f"expected alpha only with fusion='weighted', got {shown(alpha)} with fusion={fusion!r}"
        )
    if not by_vector and (length_given or query.max_distance is not None):
        raise InvalidInputError(
            "expected a vector beside ef, target_recall and max_distance, got only text=: BM25 has none of them"
        )
    if diversity is not None:
        query.diversity = check_fraction("diversity", diversity)
    if group_by is not None:
        if diversity is not None:
            raise InvalidInputError("expected one of diversity and group_by, got both")
        query.group_by = parse_path(group_by, place="group_by")
        query.group_size = check_int("group_size", group_size, 1, MAX_GROUP_SIZE)
    elif group_size != 1:
        raise InvalidInputError(f"expected group_by beside group_size={shown(group_size)}, got none")
    if not isinstance(highlight, bool):
        raise InvalidInputError(f"expected highlight to be a bool, got {shown(highlight)}")
    if highlight and query.texts is None:
        raise InvalidInputError("expected text= with highlight=True, whose words are marked, got none")
    query.highlight = highlight


def _texts(text: object, count: int) -> list[TextQuery]:
    if isinstance(text, str) or not isinstance(text, Sequence):
        return [parse_text_query(text)]
    if len(text) != count:
        raise InvalidInputError(f"expected one text or as many as vectors ({count}), got {len(text)}")
    return [parse_text_query(item) for item in text]


def _examples(name: str, ids: object) -> list[Id]:
    found = check_ids(ids)  # type: ignore[arg-type]  # checked there
    if len(found) > MAX_EXAMPLES:
        raise InvalidInputError(f"expected at most {MAX_EXAMPLES} ids in {name}=, got {len(found)}")
    return found


def check_recall(value: Any) -> float:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise InvalidInputError(f"expected target_recall to be a number above 0, and at most 1 (exact), got {shown(value)}")


def _check_distance(value: Any) -> float:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        if not math.isnan(number):
            return number
    raise InvalidInputError(f"expected max_distance to be a number, got {shown(value)}")
