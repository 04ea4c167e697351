"""What may be among the nearest is never left out, however few rows are looked at for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealing import wait_sealed
from test_search import clump, clustered, far, gaussian, huge, log_normal, tiny
from test_together import clumps

from nopokedb import NoPokeDB
from nopokedb.distances import final_order, prepare_queries
from nopokedb.embedded import read_path
from nopokedb.embedded.search import symphony
from nopokedb.embedded.search.beside import Beside
from nopokedb.embedded.search.exact import nearest
from nopokedb.embedded.search.options import BuildOptions
from nopokedb.embedded.search.planner import choose
from nopokedb.embedded.search.segments import Segment, build_segment

SPACES = ["cosine", "l2", "ip"]
MAKERS = [gaussian, clumps, clustered, log_normal, far, tiny, huge]


@settings(max_examples=120)
@given(st.data())
def test_rows_beside_an_index_are_not_left_out(data: st.DataObject) -> None:
    """Every row as near as the limit is named, and where numbers are of one size few others."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    make, space = data.draw(st.sampled_from(MAKERS)), data.draw(st.sampled_from(SPACES))
    dim, count = data.draw(st.integers(4, 70)), data.draw(st.integers(1, 200))
    vectors = np.ascontiguousarray(make(rng, count, dim), np.float32)
    vectors[~vectors.any(axis=1)] = 1
    prepared = prepare_queries(space, vectors)
    centre = prepared.mean(axis=0) if space != "ip" else np.zeros(dim, np.float32)
    query = prepare_queries(space, vectors[rng.integers(0, count)][None, :] * np.float32(1.01))[0] - centre
    rows = np.arange(count) * 3
    moved = prepared - centre
    keys = final_order("ip" if space == "ip" else "l2", query, moved)
    limit = float(np.quantile(keys, data.draw(st.floats(0, 1))))
    found = Beside(space, rows, moved).within(query, limit)
    assert np.isin(rows[keys <= limit], found).all()
    if make is gaussian:
        assert len(found) <= (keys <= limit + 1e-4 * np.abs(keys).max()).sum()


@pytest.mark.parametrize("space", SPACES)
def test_a_damaged_row_hides_no_other(space: str, rng: np.random.Generator) -> None:
    """Numbers that are none compare with nothing: such a row is left to its checksum, and the others stay in order."""
    vectors = gaussian(rng, 50, 8)
    query = vectors[7].copy()
    vectors[3, 5] = np.nan
    keys = final_order("ip" if space == "ip" else "l2", query, vectors)
    limit = float(np.nanquantile(keys, 0.2))
    found = Beside(space, np.arange(50), vectors).within(query, limit)
    assert set(np.flatnonzero(keys <= limit)) <= set(found.tolist()) and 3 in found
    few = np.array([1, 2, np.nan, 3, np.nan, 4], np.float32)
    assert set(nearest(few, 5, 0.0).tolist()) == set(range(6))
    assert set(nearest(few, 2, 0.0).tolist()) == {0, 1, 2, 4}


@pytest.mark.parametrize("count", [10, 11, 319, 640, 641, 5_003, 20_000])
def test_the_nearest_of_many_keys_are_found_group_by_group(count: int, rng: np.random.Generator) -> None:
    """All of the k smallest and what equals the k-th are among them, in whatever groups they meet; and few others."""
    k = 10
    for keys in (
        rng.standard_normal(count),
        np.sort(rng.standard_normal(count)),
        np.repeat(rng.standard_normal(-(-count // 40)), 40)[:count],
        np.where(rng.random(count) < 0.3, np.nan, rng.standard_normal(count)),
        np.zeros(count),
    ):
        keys = keys.astype(np.float32)
        found = nearest(keys, k, 0.0)
        kth = np.sort(keys)[min(k, count) - 1]
        assert set(np.flatnonzero(keys <= kth)) <= set(found.tolist())
    keys = rng.standard_normal(count).astype(np.float32)
    assert len(nearest(keys, k, 0.0)) <= 2 * k


@pytest.mark.skipif(not symphony.available(), reason="rabitqlib has no wheel for this system")
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("make", [gaussian, clustered, clump, far, tiny, huge, log_normal])
def test_the_beginning_of_a_graphs_list_is_enough(
    space: str,
    make: Callable[[np.random.Generator, int, int], np.ndarray],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the k best of the places that were asked for in float64, ties included, and of the rows that the graph
    leaves out."""
    rng = np.random.default_rng(seed)
    vectors = np.ascontiguousarray(make(rng, 1500, 64), np.float32)
    queries = np.ascontiguousarray(make(rng, 30, 64), np.float32)
    held_out = np.sort(rng.choice(len(vectors), 100, replace=False))
    segment = build_segment("symphony", 0, vectors, BuildOptions(space), held_out)
    segment.add_held_out(held_out, vectors)
    shorter = 0
    for query in queries:
        prepared = prepare_queries(space, query[None, :])
        for k in (1, 10):
            with monkeypatch.context() as patch:
                patch.setattr(symphony, "_places_up_to", lambda distances, limit: len(distances) - 1)
                places = segment.search(prepared, 300, None, k)[0]
            everything = np.concatenate([places, held_out])
            order = final_order(space, query, vectors[everything])
            nearest = everything[order <= np.sort(order)[k - 1]]
            found = segment.search(prepared, 300, None, k)[0]
            assert np.isin(nearest[np.isin(nearest, places)], found).all()
            best = segment.best(prepared, 300, k, vectors)
            shorter += len(found) < 60
            assert best is not None
            assert len(np.unique(best)) == len(best) and np.isin(nearest, best).all()
    assert make is not gaussian or shorter == 2 * len(queries)


@pytest.mark.skipif(not symphony.available(), reason="rabitqlib has no wheel for this system")
@pytest.mark.parametrize("equals", [0, 5, 600])
def test_each_list_of_a_graph_is_asked_for_once(equals: int, rng: np.random.Generator) -> None:
    """Few places, and all of the list only where few cannot tell the k best from others; for one question or many."""
    vectors = gaussian(rng, 1500, 64)
    vectors[:equals] = vectors[0]
    segment = build_segment("symphony", 0, vectors, BuildOptions("l2"))
    assert isinstance(segment._index, symphony.Symphony)
    library, asked = segment._index._index, []

    class Noted:
        dim, num_points = library.dim, library.num_points

        def search_batch(self, queries: np.ndarray, places: int, ef: int, num_threads: int) -> Any:
            asked.append((places, ef))
            return library.search_batch(queries, places, ef, num_threads=num_threads)

    segment._index._index = Noted()
    expected = [(36, 300)] if equals < 30 else [(36, 300), (300, 300)]
    found = segment.best(vectors[:1], 300, 10, vectors)
    assert found is not None and (len(found) > 36) == (len(expected) > 1) and asked == expected
    asked.clear()
    width = segment.search(vectors[[0, -1]], 300, None, 10).shape[1]
    assert (width > 36) == (len(expected) > 1) and asked == expected
    asked.clear()
    assert 10 <= segment.search(vectors[:2], 20, None, 10).shape[1] <= 20 and asked == [(20, 20)]
    asked.clear()
    assert segment.search(vectors[:2], 20, None, 30).shape == (2, 20) and asked == [(20, 20)]
    assert segment.best(vectors[:1], 20, 30, vectors) is None


@pytest.mark.parametrize("space", SPACES)
def test_many_questions_are_answered_in_parts(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    """Whatever is put in order together, the answers are those of single questions, bit by bit."""
    db = open_db(dim=24, space=space)
    vectors = gaussian(rng, 2500, 24)
    vectors[100:140] = vectors[99]  # equals, ordered by id
    db.add_many(vectors, metadatas=[{"group": number % 7} for number in range(2500)])
    wait_sealed(db)
    queries = np.concatenate([gaussian(rng, 40, 24), vectors[95:105]])
    for options in ({}, {"where": {"group": 3}}, {"max_distance": 0.7}, {"include": ("vector", "metadata")}):
        for k in (1, 10, 300):
            single = [db.query(query, k=k, **options) for query in queries]
            for numbers in (1 << 21, 20_000, 1):
                monkeypatch.setattr(read_path, "_AT_ONCE_NUMBERS", numbers)
                assert db.query_many(queries, k=k, **options) == single


def test_a_choice_is_kept_once_everything_is_loaded() -> None:
    """What is chosen while an index is being loaded is no choice for later."""
    vectors = gaussian(np.random.default_rng(3), 600, 64)
    built = build_segment("scan", 0, vectors, BuildOptions("cosine"))
    segment = Segment("scan", "cosine", 0, 600, None, np.zeros(64, np.float32), None)
    segment.set_curves(((20, 0.9, 0.9), (70, 0.995, 1.0)), ((200, 0.995, 1.0),), 0.99)
    assert choose(segment, 600, 10, None, 0.99).index is None and choose(segment, 600, 10, 50, 0.99).index is None
    segment.fill(built)
    chosen = choose(segment, 600, 10, 50, 0.99)
    assert chosen.index is segment and chosen.length == 50
    assert choose(segment, 600, 10, 50, 0.99) is chosen
    assert choose(segment, 40, 10, 50, 0.99).length == 40
