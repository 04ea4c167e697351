"""Many queries at once are answered like one by one, whatever the data, and by matrix products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import far, gaussian, huge, log_normal, tiny

from nopokedb import NoPokeDB
from nopokedb.distances import final_order, prepare_queries
from nopokedb.embedded.search import together
from nopokedb.embedded.search.together import possible_nearest


def clumps(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Many equal and nearly equal rows."""
    return gaussian(rng, 5, dim)[rng.integers(0, 5, n)] + np.float32(1e-6) * rng.integers(0, 2, (n, 1))


@settings(max_examples=120)
@given(st.data())
def test_no_near_row_is_left_out(data: st.DataObject) -> None:
    """The k nearest by the kernel that orders answers are among what the products choose, ties included."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    make = data.draw(st.sampled_from([gaussian, clumps, log_normal, far, tiny, huge]))
    space = data.draw(st.sampled_from(["cosine", "l2", "ip"]))
    dim, count = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 300))
    k = data.draw(st.integers(1, 12))
    vectors = np.ascontiguousarray(make(rng, count, dim), np.float32)
    vectors[~vectors.any(axis=1)] = 1
    queries = np.concatenate([make(rng, 5, dim), vectors[rng.integers(0, count, 6)]]).astype(np.float32)
    queries[~queries.any(axis=1)] = 1
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    rows = data.draw(st.sampled_from([range(count), np.flatnonzero(rng.random(count) < 0.6)]))
    blocks, together._BLOCK_ROWS = together._BLOCK_ROWS, 64
    try:
        found = possible_nearest(space, prepare_queries(space, queries), vectors, norms, rows, k)
    finally:
        together._BLOCK_ROWS = blocks
    if found is None:
        return
    all_rows = np.asarray(rows, np.int64)
    for query, some in zip(queries, found, strict=True):
        assert np.isin(some, all_rows).all() and len(np.unique(some)) == len(some)
        order = final_order(space, query, vectors[all_rows])
        if len(order):
            limit = np.sort(order)[min(k, len(order)) - 1]
            assert np.isin(all_rows[order <= limit], some).all()


def test_crowds_and_overflow_are_left_to_the_kernel(rng: np.random.Generator) -> None:
    """Where rounding cannot tell rows apart, or products overflow, nothing is chosen."""
    norms = np.ones(9000)
    equal = np.ones((9000, 4), np.float32)
    assert possible_nearest("l2", equal[:8], equal, norms, range(9000), 3) is None
    large = np.full((100, 4), 1e19, np.float32)
    large[::2] = -large[::2]
    assert possible_nearest("l2", large[:8], large, norms[:100], range(100), 3) is None


@pytest.mark.engines
@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("make", [gaussian, clumps, far, log_normal])
def test_many_are_answered_like_one(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, space: str, make: Callable[..., np.ndarray]
) -> None:
    """Exactly: ids, order and distances, with and without a filter, after deletions, for few and many queries."""
    db = open_db(dim=20, space=space, index="exact")
    count, dim = 3000 if Path(db.path).is_dir() else 500, 20  # each query is a request elsewhere
    vectors = make(rng, count, dim).astype(np.float32)
    db.add_many(vectors, [{"n": n % 10} for n in range(count)])
    db.delete_many(range(0, count, 7))
    queries = np.concatenate([make(rng, 20, dim), vectors[:20]]).astype(np.float32)
    for options in ({}, {"where": {"n": {"$lt": 7}}}, {"where": {"n": 3}}, {"max_distance": 1.0}):
        for k in (1, 10):
            one_by_one = [db.query(query, k=k, **options) for query in queries]
            assert db.query_many(queries, k=k, **options) == one_by_one
            assert db.query_many(queries[:3], k=k, **options) == one_by_one[:3]


def test_products_are_what_is_used(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ordinary data are not compared one by one."""
    from nopokedb.embedded import nearest

    db = open_db(dim=16, index="exact")
    db.add_many(gaussian(rng, 3000, 16))

    def never(*arguments: object) -> None:
        raise AssertionError("rows were compared one by one")

    monkeypatch.setattr(nearest, "keys_of_range", never)
    assert len(db.query_many(gaussian(rng, 20, 16), k=5)) == 20
    with pytest.raises(AssertionError, match="one by one"):
        db.query(gaussian(rng, 1, 16)[0])
