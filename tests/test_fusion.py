"""The formulas that combine answers, against numbers worked out by hand and against slower code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nopokedb.fusion import maximal_marginal_relevance, reciprocal_rank, weighted

SCORES = st.dictionaries(st.integers(0, 30), st.floats(-1e6, 1e6), max_size=12)


def test_reciprocal_rank_by_hand() -> None:
    """1 / (60 + rank), summed over the rankings."""
    fused = reciprocal_rank([[7, 8, 9], [9, 7]])
    assert fused == pytest.approx({7: 1 / 61 + 1 / 62, 9: 1 / 63 + 1 / 61, 8: 1 / 62})
    assert list(fused) == [7, 9, 8]


def test_reciprocal_rank_ties_stay_in_order() -> None:
    """Equal scores: the first ranking's come first; an own k; nothing from nothing."""
    assert list(reciprocal_rank([[5, 1], [2, 3]])) == [5, 2, 1, 3]
    assert reciprocal_rank([[1]], k=0) == {1: 1.0}
    assert reciprocal_rank([]) == reciprocal_rank([[], []]) == {}
    assert reciprocal_rank([[4, 4, 5]]) == pytest.approx({4: 1 / 61, 5: 1 / 62})
    with pytest.raises(ValueError, match="at least 0"):
        reciprocal_rank([[1]], k=-1)


def test_weighted_by_hand() -> None:
    """Cosine from -1, BM25 from 0, each up to its best; without a text score 0."""
    fused = weighted({1: 0.5, 2: 0.0, 3: -1.0}, {2: 8.0, 3: 4.0}, 0.5, vector_minimum=-1.0)
    assert fused == pytest.approx({1: 0.5, 2: 0.5 * (1 / 1.5) + 0.5, 3: 0.25})
    assert list(fused) == [2, 1, 3]


def test_weighted_observed_minimum() -> None:
    """Minus squared distances have no least score: the worst candidate is 0."""
    fused = weighted({1: -1.0, 2: -3.0, 3: -5.0}, {}, 1.0)
    assert fused == pytest.approx({1: 1.0, 2: 0.5, 3: 0.0})


@pytest.mark.parametrize("minimum", [None, -1.0])
def test_weighted_ends_of_alpha(minimum: float | None) -> None:
    """alpha 1 orders as the vectors do, alpha 0 as the texts do."""
    vectors, texts = {1: 0.9, 2: 0.1, 3: 0.5}, {1: 1.0, 2: 3.0, 3: 2.0}
    assert list(weighted(vectors, texts, 1.0, vector_minimum=minimum)) == [1, 3, 2]
    assert list(weighted(vectors, texts, 0.0, vector_minimum=minimum)) == [2, 3, 1]


def test_weighted_without_differences() -> None:
    """One candidate, all equal, all at the minimum: defined, no NaN."""
    assert weighted({1: -4.0}, {}, 0.5) == {1: 0.5}
    assert weighted({1: 0.3}, {1: 2.0}, 0.5, vector_minimum=-1.0) == {1: 1.0}
    assert weighted({1: -1.0, 2: -1.0}, {}, 1.0, vector_minimum=-1.0) == {1: 0.0, 2: 0.0}
    assert weighted({1: 2.0, 2: 2.0}, {1: 0.0}, 0.5) == {1: 0.5, 2: 0.5}
    assert weighted({}, {}, 0.5) == {}
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            weighted({}, {}, wrong)


@given(SCORES, SCORES, st.floats(0, 1), st.none() | st.just(-1e6))
def test_weighted_stays_in_the_unit_interval(
    vectors: dict[int, float], texts: dict[int, float], alpha: float, minimum: float | None
) -> None:
    """Every label of either side, a score in [0, 1], best first."""
    fused = weighted(vectors, texts, alpha, vector_minimum=minimum)
    assert set(fused) == set(vectors) | set(texts)
    assert all(0 <= score <= 1 + 1e-12 for score in fused.values())
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def unit(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_mmr(relevance: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> list[int]:
    """The definition, without anything remembered between steps."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):
        best, best_value = -1, -math.inf
        for at in range(len(relevance)):
            if at in chosen:
                continue
            value = (1 - diversity) * relevance[at] if chosen else relevance[at]
            if chosen:
                value -= diversity * max(float(vectors[at] @ vectors[other]) for other in chosen)
            if value > best_value + 1e-9:
                best, best_value = at, value
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_marginal_relevance_equals_its_definition(rng: np.random.Generator, diversity: float) -> None:
    """The incremental maximum gives what comparing with all chosen ones gives."""
    vectors = unit(rng, 40, 8)
    relevance = rng.uniform(-1, 1, 40)
    assert maximal_marginal_relevance(relevance, vectors, 15, diversity) == slow_mmr(relevance, vectors, 15, diversity)


def test_marginal_relevance_avoids_a_copy() -> None:
    """A duplicate of the best comes after the different one as soon as diversity counts."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    relevance = [0.9, 0.89, 0.5]
    assert maximal_marginal_relevance(relevance, vectors, 3, 0.0) == [0, 1, 2]
    assert maximal_marginal_relevance(relevance, vectors, 3, 0.5) == [0, 2, 1]
    assert maximal_marginal_relevance(relevance, vectors, 2, 1.0) == [0, 2]


def test_marginal_relevance_edges() -> None:
    """Ties by position; more than there are; none at all; wrong shapes and ranges."""
    same = np.ones((3, 1), np.float32)
    assert maximal_marginal_relevance([1, 1, 1], same, 9, 0.5) == [0, 1, 2]
    assert maximal_marginal_relevance([1, 1, 1], same, 9, 0.0) == [0, 1, 2]
    assert maximal_marginal_relevance([], np.empty((0, 4), np.float32), 3, 0.5) == []
    assert maximal_marginal_relevance([1, 2, 3], same, 0, 0.5) == []
    with pytest.raises(ValueError, match="one relevance and one vector"):
        maximal_marginal_relevance([1.0], same, 1, 0.5)
    with pytest.raises(ValueError, match="diversity"):
        maximal_marginal_relevance([1, 1, 1], same, 1, 1.5)
