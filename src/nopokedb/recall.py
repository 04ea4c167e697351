"""What `measure_recall` says, and how it is measured: default queries against exact ones, on any engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nopokedb.engine import Answer, Query
from nopokedb.errors import InvalidInputError
from nopokedb.filters import Filter
from nopokedb.records import MIN_COSINE_NORM, Group, Hit, Id, Vectors

_Z = 1.959964
"""95 % of a normal distribution lie within so many standard deviations."""
_NEAR = 8
"""Points are made between a record and its neighbour of this rank."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall of default queries as measured on a sample; `print` shows a sentence."""

    recall: float
    """Mean share of the k nearest records that was found; records as near as the k-th count."""
    low: float
    """Bounds of the 95 % confidence interval (Wilson, with the effective number of trials)."""
    high: float
    worst_decile: float
    """Recall of the query that only a tenth of the queries do worse than."""
    k: int
    query_count: int
    sampled: bool
    """The queries were made of stored records, not given."""
    median_ms: float
    """Of one default query, one at a time."""
    exact_median_ms: float
    """Of the same query, searched exactly."""

    def __str__(self) -> str:
        kind = "sampled" if self.sampled else "given"
        return (
            f"recall@{self.k} {self.recall:.4f} (95 % confidence: {self.low:.4f} to {self.high:.4f}), worst decile "
            f"{self.worst_decile:.2f}, over {self.query_count} {kind} queries; {self.median_ms:.3f} ms a query, "
            f"{self.exact_median_ms:.3f} ms exactly (medians)"
        )


class Measurable(Protocol):
    """What the measurement asks of an engine."""

    @property
    def space(self) -> str: ...

    def answer_together(self, queries: Sequence[Query]) -> list[tuple[list[Answer], float]]:
        """The answers to several plain queries on one state of the collection, and the milliseconds of each."""
        ...

    def sample(self, count: int, where: Filter | None) -> tuple[list[Id], Vectors]:
        """Ids and vectors (n, dim) of up to `count` records that pass the filter, chosen by chance."""
        ...


def measure(engine: Measurable, query: Query, sample: int) -> Recall:
    """The recall of this query's settings: on its vectors, or where it has none on a sample of what is stored."""
    space = engine.space
    given = query.vectors is not None
    asked = _split(query) if given else _sampled(engine, query, sample)
    shares, times, exact_times = [], [], []
    for question, left_out in asked:
        exact = replace(question, ef=None, recall=1.0)
        (found, ms), (true, exact_ms) = engine.answer_together([question, exact])
        shares.append(_share(_nearest(true[0], left_out, query.k), _nearest(found[0], left_out, query.k)))
        times.append(ms)
        exact_times.append(exact_ms)
    assert shares, space
    recall = np.array(shares)
    low, high = _interval(recall, query.k)
    return Recall(
        float(recall.mean()),
        low,
        high,
        float(np.quantile(recall, 0.1)),
        query.k,
        len(recall),
        not given,
        float(np.median(times)),
        float(np.median(exact_times)),
    )


def _split(query: Query) -> list[tuple[Query, object]]:
    """One question per vector."""
    assert query.vectors is not None
    return [(replace(query, vectors=vector[None, :]), None) for vector in query.vectors]


def _sampled(engine: Measurable, query: Query, sample: int) -> list[tuple[Query, object]]:
    """Questions half of which are stored vectors, whose own records are no answers, and half points between two: a
    quarter between a record and one of its neighbours, a quarter between records by chance, which are as far from
    everything as a question is from the documents that answer it."""
    ids, vectors = engine.sample(sample, query.where)
    if not ids:
        raise InvalidInputError("expected records to make queries of, found none; give queries=")
    rows = -(-len(ids) // 2)
    near = rows + (len(ids) - rows) // 2
    asked: list[tuple[Query, object]] = []
    for id_, vector in zip(ids[:rows], vectors[:rows], strict=True):
        # One more than asked for: the record itself is left out.
        asked.append((replace(query, vectors=vector[None, :], k=query.k + 1), id_))
    points = []
    if near > rows:
        close = Query(vectors[rows:near], _NEAR + 1, None, ("vector",), where=query.where)
        answers, _ = engine.answer_together([close])[0]
        last = [answer[-1] for answer in answers]
        others = np.array([hit["vector"] for hit in last if isinstance(hit, Hit)], np.float32)
        points.append(_between(engine.space, vectors[rows:near], others))
    points.append(_between(engine.space, vectors[near:], vectors[near:][::-1]))
    for point in np.concatenate(points):
        asked.append((replace(query, vectors=point[None, :]), None))
    return asked


def _between(space: str, a: Vectors, b: Vectors) -> Vectors:
    """Points halfway between each two vectors; the first where they cancel out under cosine."""
    middle: Vectors = np.multiply(a + b, np.float32(0.5))
    if space == "cosine":
        wide = middle.astype(np.float64)
        lost = np.einsum("ij,ij->i", wide, wide) < MIN_COSINE_NORM**2
        middle[lost] = a[lost]
    return middle


def _nearest(answer: list[Hit] | list[Group], left_out: object, k: int) -> list[float]:
    """Distances of the k nearest, ascending, without the record that the query is a copy of."""
    return [
        hit["distance"]
        for hit in answer
        if isinstance(hit, Hit)
        and not (left_out is not None and type(hit["id"]) is type(left_out) and hit["id"] == left_out)
    ][:k]


def _share(true: list[float], found: list[float]) -> float:
    """How many of the true neighbours were found. Equal vectors have equal distances to the last bit."""
    return sum(distance <= true[-1] for distance in found) / len(true) if true else 1.0


def _interval(recall: npt.NDArray[np.float64], k: int) -> tuple[float, float]:
    """The Wilson score interval of the mean at 95 %.

    Hits of one query are not independent trials, so the number of trials is the one with which a binomial mean would
    scatter as the queries' means do: at least one per query, at most k. Where all queries found the same there is no
    scatter to see and a query counts as one trial, which makes no more of a perfect sample than it is.
    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    count, mean = len(recall), float(recall.mean())
    variance = float(recall.var(ddof=1)) / count if count > 1 else 0.0
    trials = float(count)
    if variance > 0.0:
        trials = min(max(mean * (1.0 - mean) / variance, float(count)), float(count * k))
    centre = (mean + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * math.sqrt(mean * (1 - mean) / trials + _Z**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)
