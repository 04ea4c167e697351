"""The filters that are measured, and the exact answers within each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.datasets import Floats, Labels
from bench.filters.records import EQUALITY_SHARES, NUMBER_RANGE, Column
from bench.scale import K

QUERIES_AT_ONCE = 32
FLOAT32_SHORTLIST = 4 * K


@dataclass(frozen=True)
class Filter:
    """`field` compared with `value`; the operator is "<" or "="."""

    field: str
    operator: str
    value: int

    def mask(self, columns: dict[str, Column]) -> NDArray[np.bool_]:
        """Which rows pass."""
        column = columns[self.field]
        passed: NDArray[np.bool_] = column < self.value if self.operator == "<" else column == self.value
        return passed


@dataclass(frozen=True)
class Case:
    """One filter and the queries asked with it.

    `changes` moves the limit a little each time it is timed; `far` asks only the queries least like what passes.
    """

    name: str
    kind: str
    percent: float
    filter: Filter | None
    changes: bool = False
    far: bool = False

    def filter_of(self, number: int) -> Filter | None:
        """The filter of the n-th question: another one each time where it changes, which the answer hardly does."""
        if self.filter is None or not self.changes:
            return self.filter
        return replace(self.filter, value=self.filter.value + number)


@dataclass(frozen=True)
class Truth:
    """Per case: the queries it uses (rows), the k nearest within the filter, and the least product among them."""

    queries: Labels
    nearest: Labels
    worst: NDArray[np.float64]


def make_cases() -> list[Case]:
    """No filter, ranges and equalities of falling selectivity, filters that know of the vectors, a changing one."""
    cases = [Case("no filter", "none", 100, None)]
    for percent in (50, 20, 10, 5, 1, 0.1):
        limit = round(NUMBER_RANGE * percent / 100)
        cases.append(Case(f"range {percent:g} %", "range", percent, Filter("number", "<", limit)))
    for name, parts in EQUALITY_SHARES.items():
        percent = 100 / parts
        cases.append(Case(f"equality {percent:g} %", "equality", percent, Filter(name, "=", 0)))
    cases += [
        Case("half-space", "correlated", 50, Filter("half_space", "=", 1)),
        Case("far cluster", "correlated", 1, Filter("far_cluster", "=", 1), far=True),
        Case("another range each time, 10 %", "changing", 10, Filter("number", "<", NUMBER_RANGE // 10), changes=True),
    ]
    return cases


def _queries_of(case: Case, vectors: Floats, queries: Floats, columns: dict[str, Column]) -> Labels:
    """All queries, or the half that is least like what passes."""
    if not case.far or case.filter is None:
        return np.arange(len(queries))
    centre = vectors[case.filter.mask(columns)].mean(axis=0)
    return np.argsort(queries @ centre)[: max(1, len(queries) // 2)]


def truths(cases: list[Case], vectors: Floats, queries: Floats, columns: dict[str, Column]) -> dict[str, Truth]:
    """Exact answers: a generous shortlist in float32, ordered in float64."""
    rows = {case.name: np.flatnonzero(case.filter.mask(columns)) if case.filter else None for case in cases}
    asked = {case.name: _queries_of(case, vectors, queries, columns) for case in cases}
    found: dict[str, dict[int, tuple[Labels, float]]] = {case.name: {} for case in cases}
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        products = queries[start : start + QUERIES_AT_ONCE] @ vectors.T
        for offset, scores in enumerate(products):
            number = start + offset
            exact_query = queries[number].astype(np.float64)
            for case in cases:
                inside = rows[case.name]
                within = scores if inside is None else scores[inside]
                length = min(FLOAT32_SHORTLIST, len(within))
                best = np.argpartition(-within, length - 1)[:length]
                shortlist = best if inside is None else inside[best]
                exact = vectors[shortlist].astype(np.float64) @ exact_query
                order = np.argsort(-exact, kind="stable")[:K]
                found[case.name][number] = (shortlist[order], float(exact[order[-1]]))
    return {
        name: Truth(
            numbers,
            np.array([found[name][number][0] for number in numbers]),
            np.array([found[name][number][1] for number in numbers]),
        )
        for name, numbers in asked.items()
    }
