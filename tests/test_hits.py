"""Queries on small collections: distances, scores, order, and what a hit holds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
from reading_back import EVERYTHING
from unit_vectors import DIM, A, B, C

from nopokedb import (
    Hit,
    NoPokeDB,
)
from nopokedb.records import id_order

pytestmark = pytest.mark.engines
SPACES = ("cosine", "l2", "ip")
Open = Callable[..., NoPokeDB]


def distances_in_float64(space: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The definitions, in NumPy."""
    q, v = query.astype(np.float64), vectors.astype(np.float64)
    if space == "l2":
        return ((v - q) ** 2).sum(axis=1)
    dots = v @ q
    if space == "ip":
        return 1 - dots
    return 1 - dots / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dim", [1, 2, 3, 17, 128])
def test_hits_have_the_distances_and_scores_of_the_definition(
    open_db: Open, rng: np.random.Generator, space: str, dim: int
) -> None:
    """cosine: 1 - cos and cos; l2: squared distance and minus it; ip: 1 - dot and dot. Best first, none missed."""
    vectors = rng.normal(size=(300, dim)).astype(np.float32)
    with open_db(dim=dim, space=space) as db:
        db.add_many(vectors)
        for query in rng.normal(size=(5, dim)).astype(np.float32):
            expected = distances_in_float64(space, query, vectors)
            hits = db.query(query, k=20)
            assert len(hits) == 20
            found = np.array([hit.distance for hit in hits])
            np.testing.assert_allclose(found, expected[[hit.id for hit in hits]], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found, np.sort(expected)[:20], rtol=1e-9, atol=1e-12)
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            np.testing.assert_allclose(scores, -found if space == "l2" else 1 - found, rtol=1e-9, atol=1e-12)
            assert all(type(hit.distance) is float and type(hit.score) is float for hit in hits)


@pytest.mark.parametrize("space", SPACES)
def test_equal_vector_is_at_no_distance(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Cosine and l2 put a record at 0 from itself; cosine stays within [0, 2] against rounding."""
    vectors = rng.normal(size=(50, 7)).astype(np.float32)
    with open_db(dim=7, space=space) as db:
        db.add_many(vectors)
        for id_, vector in enumerate(vectors):
            hits = {hit.id: hit for hit in db.query(vector, k=50)}
            if space == "ip":
                assert hits[id_].score == pytest.approx(float((vector.astype(np.float64) ** 2).sum()), rel=1e-12)
            else:
                assert hits[id_].distance == pytest.approx(0, abs=1e-15)
                assert all(hit.distance >= 0 for hit in hits.values())
            if space == "cosine":
                assert all(hit.distance <= 2 and -1 <= hit.score <= 1 for hit in hits.values())
                assert db.query(-vector, k=50)[-1].distance == pytest.approx(2, abs=1e-15)


SCALES = (1e-14, 1e-9, 1e-6, 1e4, 1e9, 3e17)


@pytest.mark.parametrize(("space", "scale"), [*itertools.product(SPACES, SCALES), ("l2", 1e-21), ("ip", 1e-21)])
def test_order_does_not_depend_on_the_scale_of_the_vectors(
    open_db: Open, rng: np.random.Generator, space: str, scale: float
) -> None:
    """Tiny and huge vectors are ranked as their float64 scores are; l2 and ip keep the score's digits."""
    vectors = (rng.normal(size=(200, 16)) * scale).astype(np.float32)
    query = (rng.normal(size=16) * scale).astype(np.float32)
    wide, q = vectors.astype(np.float64), query.astype(np.float64)
    if space == "ip":
        scores = wide @ q
    else:
        scores = (-1 if space == "l2" else 1) * distances_in_float64(space, query, vectors)
        scores = scores if space == "l2" else 1 - scores
    with open_db(dim=16, space=space) as db:
        db.add_many(vectors)
        hits = db.query(query, k=30)
    assert [hit.id for hit in hits] == np.argsort(-scores, kind="stable")[:30].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:30], rtol=1e-9)


def test_dot_products_that_nearly_cancel_are_ranked_right(open_db: Open, rng: np.random.Generator) -> None:
    """Large vectors whose dot product is small: single precision cannot rank them, and the answer is still exact."""
    big = rng.normal(size=(3000, 32)) * 1e6
    vectors = (np.concatenate([big, -big], axis=1) + rng.normal(size=(3000, 64)) * 0.05).astype(np.float32)
    query = np.ones(64, np.float32)
    dots = vectors.astype(np.float64) @ query.astype(np.float64)
    with open_db(dim=64, space="ip", index="exact") as db:
        db.add_many(vectors)
        hits = db.query(query, k=5)
    assert [hit.score for hit in hits] == pytest.approx(np.sort(dots)[::-1][:5], rel=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_ties_are_broken_by_id_order(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """2,000 equal vectors under mixed ids in random order: the ten smallest ids, however they are stored."""
    ids: list[int | str] = [*range(-500, 500), *(f"id{n}" for n in range(1000))]
    rng.shuffle(ids)  # type: ignore[arg-type]
    expected = sorted(ids, key=id_order)
    vector = [0.3, -0.7, 0.2, 0.9]
    with open_db(dim=DIM, space=space) as db:
        db.add_many([vector] * 2000, ids=ids)
        for k in (1, 10, 1500, 2000):
            assert [hit.id for hit in db.query(vector, k=k)] == expected[:k]
            assert [hit.id for hit in db.query([1, 2, 3, 4], k=k)] == expected[:k]
        db.delete_many(expected[:5])
        db.upsert(expected[7], vector)  # now the last row of the file
        db.upsert(expected[3], vector)
        now = [expected[3], *expected[5:]]
        assert [hit.id for hit in db.query(vector, k=10)] == now[:10]
        assert [hit.id for hit in db.query(vector, k=1100)] == now[:1100]
        assert len({hit.distance for hit in db.query(vector, k=2000)}) == 1


def test_ties_at_the_end_of_the_answer_are_broken_by_id_order(db: NoPokeDB) -> None:
    """The k-th place goes to the smallest id among equals, behind closer ones."""
    db.add_many([B] * 50, ids=range(100, 150))
    db.add(A, id=999)
    db.add_many([B] * 50, ids=[f"s{n:02}" for n in range(50)])
    assert [hit.id for hit in db.query(A, k=4)] == [999, 100, 101, 102]
    assert [hit.id for hit in db.query(A, k=53)][-3:] == [149, "s00", "s01"]


@pytest.mark.parametrize("space", SPACES)
def test_shorter_answer_is_the_beginning_of_a_longer_one(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Hits for k are the first k of more, to the last bit of the distance."""
    vectors = rng.normal(size=(400, 33)).astype(np.float32)
    with open_db(dim=33, space=space) as db:
        db.add_many(vectors)
        for query in rng.normal(size=(5, 33)):
            longest = db.query(query, k=400)
            for k in (1, 2, 7, 50, 399):
                assert db.query(query, k=k) == longest[:k]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_query_many_is_query_for_each_row(open_db: Open, rng: np.random.Generator, space: str, dim: int) -> None:
    """Exactly: the same hits with the same bits, for every option."""
    vectors = rng.normal(size=(500, dim)).astype(np.float32)
    queries = np.concatenate([rng.normal(size=(20, dim)).astype(np.float32), vectors[:5]])
    with open_db(dim=dim, space=space) as db:
        db.add_many(vectors, [{"n": n} for n in range(500)], texts=["t", None] * 250)
        db.delete_many(range(0, 500, 7))
        for options in (
            {},
            {"k": 1},
            {"k": 1000, "include": ()},
            {"k": 10, "ef": 40},
            {"k": 10, "max_distance": 0.9, "include": EVERYTHING},
        ):
            many = db.query_many(queries, **options)  # type: ignore[arg-type]
            assert many == [db.query(query, **options) for query in queries]  # type: ignore[arg-type]
            assert all(type(hit) is Hit for hits in many for hit in hits)
        assert db.query_many(queries.tolist(), 3) == db.query_many(queries, k=3)


def test_query_gives_what_include_names(db: NoPokeDB) -> None:
    """Metadata by default; id, score and distance always."""
    db.add(A, {"n": 1}, text="t")
    always = {"id": 0, "score": 1.0, "distance": 0.0}
    assert db.query(A) == [always | {"metadata": {"n": 1}}]
    assert db.query(A, include=()) == [always]
    assert db.query(A, include=["vector"]) == [always | {"vector": A}]
    assert db.query(A, include=EVERYTHING) == [always | {"metadata": {"n": 1}, "vector": A, "text": "t"}]
    assert list(db.query(A)[0]) == ["id", "metadata", "score", "distance"]
    with pytest.raises(AttributeError, match="include"):
        db.query(A, include=())[0].metadata  # noqa: B018
    assert json.loads(json.dumps(db.query(A, include=EVERYTHING))) == db.query(A, include=EVERYTHING)


def test_more_than_there_are_returns_all(db: NoPokeDB) -> None:
    """k up to 100,000 over three records."""
    db.add_many([A, B, C])
    db.delete(1)
    assert [hit.id for hit in db.query(A, k=100_000)] == [0, 2]
    assert [len(hits) for hits in db.query_many([A, B], k=100_000)] == [2, 2]


def test_empty_collection_answers_with_nothing(open_db: Open) -> None:
    """No records, none left, or none after reopening: an empty list, not an error."""
    db = open_db(dim=DIM)
    assert db.query(A) == [] and db.query_many([A, B]) == [[], []]
    assert list(db.scan()) == [] and db.count() == len(db) == 0
    db.add_many([A, B])
    db.delete_many([0, 1])
    for _ in range(2):
        assert db.query(A, k=3, ef=10, max_distance=1) == [] and db.query_many([A, B]) == [[], []]
        db.close()
        db = open_db()


@pytest.mark.parametrize("space", SPACES)
def test_max_distance_leaves_out_what_is_farther(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Hits at exactly the limit stay; the limit may be negative, infinite, an int or a NumPy number."""
    vectors = rng.normal(size=(100, 5)).astype(np.float32)
    with open_db(dim=5, space=space) as db:
        db.add_many(vectors)
        query = rng.normal(size=5)
        hits = db.query(query, k=100)
        for at in (0, 10, 57, 99):
            limit = hits[at].distance
            assert db.query(query, k=100, max_distance=limit) == hits[: at + 1]
            assert db.query(query, k=5, max_distance=np.float64(limit)) == hits[: min(5, at + 1)]
        assert db.query(query, k=100, max_distance=float("inf")) == hits
        assert db.query(query, k=100, max_distance=float("-inf")) == []
        assert db.query(query, k=100, max_distance=1) == [hit for hit in hits if hit.distance <= 1]
        assert db.query(query, k=100, max_distance=-1000) == []


def test_vector_of_any_kind_asks_the_same(db: NoPokeDB) -> None:
    """Lists, tuples, ints, float16, float64 and views are one query."""
    db.add_many([A, B, C, [1, 2, 3, 4]])
    expected = db.query(np.array([4, 3, 2, 1], np.float32))
    for query in (
        [4, 3, 2, 1],
        (4.0, 3.0, 2.0, 1.0),
        np.array([4, 3, 2, 1], np.float16),
        np.array([4, 3, 2, 1], np.int64),
        np.array([1.0, 2.0, 3.0, 4.0])[::-1],
    ):
        assert db.query(query) == expected


@pytest.mark.parametrize("index", ["auto", "exact", "scan", "graph", "hnsw"])
def test_answers_are_the_same_after_reopening(open_db: Open, rng: np.random.Generator, index: str) -> None:
    """To the last bit, for whatever index was asked for."""
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    queries = rng.normal(size=(10, 8)).astype(np.float32)
    db = open_db(dim=8, index=index)
    db.add_many(vectors)
    db.delete_many(range(0, 600, 5))
    db.upsert_many(range(1, 600, 5), vectors[::-1][:120])
    before = db.query_many(queries, k=20, include=EVERYTHING)
    assert db.query_many(queries, k=20, include=EVERYTHING) == before
    for arguments in ({}, {"dim": 8}, {"read_only": True}):
        db.close()
        db = open_db(**arguments)
        assert db.query_many(queries, k=20, include=EVERYTHING) == before


def test_ef_is_honoured_by_handle_and_call(open_db: Open) -> None:
    """A given ef below k still returns k hits; the handle keeps its own."""
    with open_db(dim=2, ef=1) as db:
        assert db.ef == 1
        db.add_many(np.random.default_rng(1).normal(size=(100, 2)))
        assert len(db.query([1, 0], k=50)) == len(db.query([1, 0], k=50, ef=10)) == 50
        assert db.ef == 1
