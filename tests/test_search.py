"""Recall and exactness of every kind of index on data that is known to break one."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sealing import wait_sealed

from nopokedb import NoPokeDB

GOAL = 0.99


pytestmark = pytest.mark.usefixtures("quick_sealing")


def truth_of(space: str, vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Distances of shape (queries, vectors), in float64."""
    v, q = vectors.astype(np.float32).astype(np.float64), queries.astype(np.float32).astype(np.float64)
    if space == "l2":
        return np.array([((v - one) ** 2).sum(axis=1) for one in q])
    dots = q @ v.T
    if space == "ip":
        return 1 - dots
    return 1 - dots / np.linalg.norm(v, axis=1) / np.linalg.norm(q, axis=1)[:, None]


def recall_by_distance(
    db: NoPokeDB, distances: np.ndarray, queries: np.ndarray, k: int = 10, **options: Any
) -> tuple[float, float]:
    """Mean and standard error of the share of the k answers that are as near as the k-th true one."""
    k = min(k, distances.shape[1])
    found = []
    for query, line in zip(queries, distances, strict=True):
        limit = np.partition(line, k - 1)[k - 1]
        hits = db.query(query, k=k, include=(), **options)
        assert len(hits) == k and len({hit.id for hit in hits}) == k
        found.append(sum(hit.distance <= limit + 1e-12 * abs(limit) + 1e-13 for hit in hits) / k)
    return float(np.mean(found)), float(np.std(found) / np.sqrt(len(found)))


def assert_recall(db: NoPokeDB, distances: np.ndarray, queries: np.ndarray, k: int = 10, **options: Any) -> None:
    """The mean recall is 0.99 or more, as far as so many queries can tell (three standard errors)."""
    mean, error = recall_by_distance(db, distances, queries, k, **options)
    assert mean + 3 * error >= GOAL, f"recall@{k} {mean:.4f} +- {error:.4f}: {db.stats()}"


def gaussian(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim)).astype(np.float32)


def low_rank(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Like embeddings: few directions carry most of the variance."""
    basis = np.random.default_rng(5).standard_normal((12, dim))
    return (rng.standard_normal((n, 12)) @ basis + 0.3 * rng.standard_normal((n, dim))).astype(np.float32)


def clustered(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Tight clusters, stored one after the other."""
    centres = np.random.default_rng(6).standard_normal((20, dim)) * 3
    return (centres[np.arange(n) * 20 // n] + 0.1 * rng.standard_normal((n, dim))).astype(np.float32)


def clump(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """A tenth of the rows are near-duplicates of one."""
    data = gaussian(rng, n, dim)
    data[: n // 10] = data[0] + 1e-3 * rng.standard_normal((n // 10, dim)).astype(np.float32)
    return data


def log_normal(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Norms that differ by orders of magnitude."""
    return (gaussian(rng, n, dim) * rng.lognormal(0, 1, (n, 1))).astype(np.float32)


def far(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Small differences, far from the origin."""
    return gaussian(rng, n, dim) + np.float32(100)


def tiny(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return gaussian(rng, n, dim) * np.float32(1e-12)


def huge(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return gaussian(rng, n, dim) * np.float32(1e17)


CASES: list[tuple[Callable[..., np.ndarray], str, int]] = [
    *itertools.product((gaussian, low_rank, clustered), ("cosine", "l2", "ip"), (24, 96)),
    (clump, "cosine", 64),
    (clump, "l2", 64),
    (log_normal, "ip", 64),
    (far, "l2", 64),
    (far, "cosine", 64),
    (tiny, "cosine", 32),
    (tiny, "l2", 32),
    (huge, "ip", 32),
    (huge, "l2", 32),
]


@pytest.mark.parametrize(("make", "space", "dim"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_sealed_segments_reach_the_recall(
    open_db: Callable[..., NoPokeDB], seed: int, make: Callable[..., np.ndarray], space: str, dim: int
) -> None:
    """Default queries find at least 99 % of the true neighbours before, during and after sealing, for queries that are
    not in the collection and for rows that are."""
    rng = np.random.default_rng(seed)
    vectors = make(rng, 5000, dim)
    queries = np.concatenate([make(rng, 60, dim), vectors[rng.choice(5000, 40)]])
    db = open_db(dim=dim, space=space)
    db.add_many(vectors)
    distances = truth_of(space, vectors, queries)
    assert_recall(db, distances[:20], queries[:20])
    wait_sealed(db)
    stats = db.stats()
    assert stats.tail_count < 1024 or stats.notes, stats
    assert_recall(db, distances, queries)
    assert_recall(db, distances, queries, k=100)


@pytest.mark.engines
@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 7, 33, 129, 1025])
def test_any_dimension(open_db: Callable[..., NoPokeDB], seed: int, dim: int, space: str) -> None:
    """From one dimension to over a thousand, odd ones too."""
    rng = np.random.default_rng(seed)
    vectors, queries = gaussian(rng, 1600, dim), gaussian(rng, 60, dim)
    db = open_db(dim=dim, space=space)
    db.add_many(vectors)
    wait_sealed(db)
    assert_recall(db, truth_of(space, vectors, queries), queries)


@pytest.mark.parametrize("index", ["exact", "scan", "graph", "hnsw"])
@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_every_index_kind(open_db: Callable[..., NoPokeDB], seed: int, index: str, space: str) -> None:
    """What `index` asks for is what is built, it reaches the recall, and a reopened collection answers the same."""
    rng = np.random.default_rng(seed)
    vectors, queries = low_rank(rng, 3000, 32), low_rank(rng, 50, 32)
    db = open_db(dim=32, space=space, index=index)
    db.add_many(vectors)
    wait_sealed(db)
    kinds = {segment.kind for segment in db.stats().segments}
    assert kinds == {"exact": set(), "scan": {"scan"}, "graph": {"symphony"}, "hnsw": {"hnsw"}}[index]
    distances = truth_of(space, vectors, queries)
    assert_recall(db, distances, queries)
    before = [db.query(query, k=10) for query in queries]
    assert db.query_many(queries, k=10) == before
    db.close()
    again = open_db()
    assert {segment.kind for segment in again.stats().segments} == kinds
    assert [again.query(query, k=10) for query in queries] == before


def test_other_graph_parameters_select_hnsw(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Under index="auto" a chosen M or ef_construction means HNSW, with these parameters."""
    db = open_db(dim=16, M=24)
    db.add_many(gaussian(rng, 2000, 16))
    wait_sealed(db)
    (segment,) = db.stats().segments
    assert segment.kind == "hnsw"
    index = db._engine.snapshot().segments[0]._index._index  # type: ignore[attr-defined]
    import faiss

    assert faiss.downcast_index(index).hnsw.nb_neighbors(1) == 24


def test_a_given_ef_is_honoured_exactly(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """The candidate list has the length that was asked for, at least k; the call wins over the handle."""
    db = open_db(dim=64)
    db.add_many(gaussian(rng, 4000, 64))
    wait_sealed(db)
    segment = db._engine.snapshot().segments[0]  # type: ignore[attr-defined]
    asked: list[int] = []
    real = type(segment).search
    query = gaussian(rng, 1, 64)[0]

    def spy(self: Any, queries: Any, ef: int, bits: Any = None, k: Any = None) -> Any:
        asked.append(ef)
        return real(self, queries, ef, bits, k)

    type(segment).search = spy
    try:
        for ef, k in ((17, 10), (5, 10), (1000, 3), (9999, 3)):
            assert len(db.query(query, k=k, ef=ef)) == k
        db.ef = 33
        db.query(query, k=10)
        db.query(query, k=10, ef=44)
    finally:
        type(segment).search = real
    assert asked == [17, 10, 1000, 4000 - 4000 % 8, 33, 44]


@pytest.mark.parametrize("index", ["scan", "hnsw"])
def test_retired_rows_are_neither_found_nor_in_the_way(open_db: Callable[..., NoPokeDB], seed: int, index: str) -> None:
    """One id upserted 250 times near the query, nine tenths deleted, half updated: still the full recall and never a
    retired version."""
    rng = np.random.default_rng(seed)
    vectors = gaussian(rng, 4000, 32)
    db = open_db(dim=32, space="l2", index=index)
    db.add_many(vectors)
    target = vectors[7]
    for _ in range(250):
        vectors[7] = target + 1e-3 * rng.standard_normal(32)
        db.upsert(7, vectors[7])
    wait_sealed(db)
    queries = np.concatenate([target[None, :], gaussian(rng, 40, 32)])
    assert db.query(target, k=1)[0].id == 7
    assert sum(hit.id == 7 for hit in db.query(target, k=50)) == 1
    assert_recall(db, truth_of("l2", vectors, queries), queries)
    keep = np.sort(rng.choice(4000, 400, replace=False))
    db.delete_many([n for n in range(4000) if n not in set(keep.tolist())])
    wait_sealed(db)
    for k in (10, 100):
        assert_recall(db, truth_of("l2", vectors[keep], queries), queries, k=k)
    assert len(db.query(target, k=1000)) == 400
    db.update_many(keep.tolist(), {"changed": True})
    assert all(hit.metadata == {"changed": True} for hit in db.query(target, k=50))
    db.delete_many(keep[1:].tolist())
    assert [hit.id for hit in db.query(target, k=10)] == [keep[0]]
    db.delete(int(keep[0]))
    assert db.query(target, k=10) == []


@pytest.mark.engines
def test_thousands_of_duplicates(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Equal vectors by the thousand: an answer has k different ids, all at the right distance, the same every time."""
    vectors = np.repeat(gaussian(rng, 4, 48), 1500, axis=0)
    db = open_db(dim=48)
    db.add_many(vectors)
    wait_sealed(db)
    for query in gaussian(rng, 5, 48):
        hits = db.query(query, k=20)
        best = truth_of("cosine", vectors, query[None, :]).min()
        assert len({hit.id for hit in hits}) == 20
        assert all(abs(hit.distance - best) < 1e-12 for hit in hits)
        assert [hit.id for hit in hits] == sorted(hit.id for hit in hits)
        assert db.query(query, k=20) == hits


@pytest.mark.engines
def test_exact_search_breaks_ties_by_id(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Searched exactly, of all that tie the smallest ids are returned, ints before strs."""
    db = open_db(dim=4, index="exact")
    vector = gaussian(rng, 1, 4)[0]
    ids: list[int | str] = [*range(500, 0, -1), *(f"s{n:03}" for n in range(50))]
    db.add_many(np.repeat(vector[None, :], len(ids), axis=0), ids=ids)
    assert [hit.id for hit in db.query(vector, k=6)] == [1, 2, 3, 4, 5, 6]
    assert [hit.id for hit in db.query(vector, k=503)][-4:] == [500, "s000", "s001", "s002"]


def test_segments_merge_and_their_files_go(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Batch after batch the number of segments stays logarithmic, files of merged ones are removed, and every state in
    between answers right."""
    db = open_db(dim=16)
    vectors = gaussian(rng, 12_000, 16)
    for at in range(0, 12_000, 1500):
        db.add_many(vectors[at : at + 1500])
        probe = vectors[rng.integers(at + 1500)]
        assert db.query(probe, k=1)[0].distance < 1e-9
        wait_sealed(db)
    stats = db.stats()
    assert 1 <= len(stats.segments) <= 5
    files = list((Path(db.path) / "index").iterdir())
    assert len(files) == len(stats.segments)
    queries = gaussian(rng, 40, 16)
    assert_recall(db, truth_of("cosine", vectors, queries), queries)


@pytest.mark.parametrize("damage", ["missing", "flipped", "shortened", "foreign"])
def test_derived_files_may_be_lost(open_db: Callable[..., NoPokeDB], rng: np.random.Generator, damage: str) -> None:
    """An index file that is missing or is not what was written is never loaded: its rows are searched exactly, the loss
    is reported, and the index is built again."""
    db = open_db(dim=32)
    vectors = gaussian(rng, 2500, 32)
    db.add_many(vectors)
    wait_sealed(db)
    db.close()
    (file,) = (Path(db.path) / "index").iterdir()
    data = bytearray(file.read_bytes())
    if damage == "missing":
        shutil.rmtree(file.parent)
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    elif damage == "shortened":
        file.write_bytes(bytes(data[:-1]))
    else:
        file.write_bytes(b"IwPQ" + b"\xff" * 500)
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert reader.stats().segments == () and reader.stats().notes
        assert reader.query(vectors[9], k=1)[0].id == 9
    again = open_db()
    assert again.query(vectors[9], k=1)[0].id == 9
    assert any("is built again" in note for note in again.stats().notes)
    wait_sealed(again)
    assert len(again.stats().segments) == 1
    queries = gaussian(rng, 30, 32)
    assert_recall(again, truth_of("cosine", vectors, queries), queries)


def test_memory_limit(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Indexes that exceed `max_memory` are not held: their rows are searched exactly, and that is reported."""
    db = open_db(dim=32)
    vectors = gaussian(rng, 3000, 32)
    db.add_many(vectors)
    wait_sealed(db)
    size = db.stats().segments[0].size_bytes
    db.close()
    small = open_db(max_memory=size // 2)
    wait_sealed(small)
    assert small.stats().segments == () and any("max_memory" in note for note in small.stats().notes)
    queries = gaussian(rng, 10, 32)
    assert recall_by_distance(small, truth_of("cosine", vectors, queries), queries) == (1, 0)
    small.close()
    assert len(open_db(max_memory=2 * size).stats().segments) == 1


def test_queries_while_sealing(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Answers are right at every moment before, during and after a segment is built and swapped in."""
    db = open_db(dim=32, space="l2")
    vectors = gaussian(rng, 6000, 32)
    db.add_many(vectors)
    checked = 0
    while True:
        done = not db.stats().sealing
        for row in rng.integers(0, 6000, 20):
            hits = db.query(vectors[row], k=3)
            assert hits[0].id == row and hits[0].distance == 0
            checked += 1
        if done:
            break
    assert checked >= 20 and db.stats().segments


def test_the_calling_threads_settings_are_left_alone(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator
) -> None:
    """A query restores the number of OpenMP threads of the thread that calls it."""
    import faiss

    db = open_db(dim=8)
    db.add_many(gaussian(rng, 2000, 8))
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    db.query(gaussian(rng, 1, 8)[0])
    db.query_many(gaussian(rng, 3, 8))
    assert faiss.omp_get_max_threads() == 2
    faiss.omp_set_num_threads(before)
