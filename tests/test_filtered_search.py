"""Filters inside the search: never fewer than there are, and the recall at every selectivity, by every index."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sealing import wait_sealed

from nopokedb import F, NoPokeDB
from nopokedb.embedded import sealing, upkeep

DIM = 64
COUNT = 20_000
GOAL = 0.99


pytestmark = pytest.mark.usefixtures("quick_sealing")


def embeddings(rng: np.random.Generator, n: int) -> np.ndarray:
    """Like embeddings: clusters, and few directions that carry most of the variance."""
    fixed = np.random.default_rng(5)
    basis, centres = fixed.standard_normal((16, DIM)), fixed.standard_normal((50, 16)) * 1.5
    latent = centres[rng.integers(0, 50, n)] + rng.standard_normal((n, 16))
    return (latent @ basis + 0.3 * rng.standard_normal((n, DIM))).astype(np.float32)


def distances(space: str, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    v, q = vectors.astype(np.float64), query.astype(np.float64)
    if space == "l2":
        return ((v - q) ** 2).sum(axis=1)
    if space == "ip":
        return 1 - v @ q
    return 1 - v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)


def check(
    db: NoPokeDB, space: str, vectors: np.ndarray, passing: np.ndarray, queries: np.ndarray, where: Any, k: int = 10
) -> None:
    """min(k, matches) hits, all of them right ones, with the recall."""
    expected = min(k, int(passing.sum()))
    shares = []
    for query in queries:
        hits = db.query(query, k=k, where=where, include=())
        ids = [hit.id for hit in hits]
        assert len(ids) == len(set(ids)) == expected, where
        assert passing[ids].all() if ids else True
        if expected:
            near = np.sort(distances(space, vectors[passing], query))[:expected]
            limit = near[-1] + 1e-9 * max(1.0, abs(near[-1]))
            shares.append(sum(hit.distance <= limit for hit in hits) / expected)
    mean, error = (float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares)))) if shares else (1.0, 0.0)
    assert mean + 2 * error >= GOAL, f"recall {mean:.4f} +- {error:.4f} for {where}"


@pytest.mark.parametrize(
    ("space", "index"),
    [("cosine", "auto"), ("l2", "auto"), ("ip", "auto"), ("cosine", "hnsw"), ("l2", "exact")],
)
def test_recall_at_every_selectivity(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, space: str, index: str
) -> None:
    """From all records down to one and to none, at random and correlated with the vectors: a half-space, a cluster far
    from the query, the neighbourhood of the query itself."""
    count = COUNT if index != "hnsw" else 6_000
    vectors, queries = embeddings(rng, count), embeddings(rng, 40)
    direction = rng.standard_normal(DIM)
    far = int(np.argmax(distances("l2", vectors, queries.mean(axis=0))))
    from_far = np.argsort(np.argsort(distances("l2", vectors, vectors[far])))
    from_near = np.argsort(np.argsort(distances(space, vectors, queries[0])))
    chance = rng.permutation(count)
    side = vectors @ direction > 0
    db = open_db(dim=DIM, space=space, index=index)
    db.add_many(
        vectors,
        [
            {"chance": int(a), "far": int(b), "near": int(c), "side": bool(d)}
            for a, b, c, d in zip(chance, from_far, from_near, side, strict=True)
        ],
    )
    wait_sealed(db)
    for share in (1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001):
        check(db, space, vectors, chance < share * count, queries, {"chance": {"$lt": share * count}})
    for number in (0, 1, 3):
        check(db, space, vectors, chance < number, queries[:5], {"chance": {"$lt": number}})
    check(db, space, vectors, side, queries, {"side": True})
    check(db, space, vectors, ~side, queries, {"side": {"$ne": True}})
    for share in (0.2, 0.05):
        check(db, space, vectors, from_far < share * count, queries, {"far": {"$lt": share * count}})
        check(db, space, vectors, from_near >= share * count, queries, {"near": {"$gte": share * count}})
    check(
        db,
        space,
        vectors,
        (chance < 0.5 * count) & side,
        queries,
        (F("chance") < 0.5 * count) & F("side").is_in([True]),
        k=100,
    )


def test_recall_after_heavy_upserts(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Changed metadata, moved vectors, deletes, and one id written 250 times: filters see what is live."""
    count = 8_000
    vectors, queries = embeddings(rng, count), embeddings(rng, 40)
    db = open_db(dim=DIM)
    groups = rng.integers(0, 10, count)
    db.add_many(vectors, [{"group": int(group)} for group in groups])
    wait_sealed(db)
    moved = rng.choice(count, 2_000, replace=False)
    vectors[moved] = embeddings(rng, len(moved))
    db.upsert_many(moved.tolist(), vectors[moved])
    changed = rng.choice(count, 3_000, replace=False)
    groups[changed] = rng.integers(0, 10, len(changed))
    db.upsert_many(changed.tolist(), metadatas=[{"group": int(groups[id_])} for id_ in changed])
    for _ in range(250):
        vectors[7] = queries[0] + 0.01 * rng.standard_normal(DIM)
        db.upsert(7, vectors[7], {"group": 3})
    groups[7] = 3
    gone = rng.choice(count, 500, replace=False)
    db.delete_many(gone.tolist())
    groups[gone] = -1
    for sealed in (False, True):
        if sealed:
            wait_sealed(db)
        for group in (0, 3):
            check(db, "cosine", vectors, groups == group, queries, {"group": group})
        check(db, "cosine", vectors, (groups >= 0) & (groups != 3), queries, {"group": {"$ne": 3}})
        assert db.count({"group": 3}) == int((groups == 3).sum())


def test_a_graph_keeps_a_scan_for_filters(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large segment has both, also after reopening: the graph for all rows, the scan for what a filter leaves."""
    monkeypatch.setattr(sealing, "GRAPH_ROWS", 4_096)
    monkeypatch.setattr(upkeep, "GRAPH_PAUSE_S", 0.0)
    monkeypatch.setattr(sealing, "_pays", lambda graph, scan: True)
    count = 6_000
    vectors, queries = embeddings(rng, count), embeddings(rng, 30)
    db = open_db(dim=DIM)
    db.add_many(vectors, [{"n": i} for i in range(count)])
    deadline = time.monotonic() + 120
    while [segment.kind for segment in db.stats().segments] != ["symphony"]:
        assert time.monotonic() < deadline, db.stats()
        threading.Event().wait(0.01)
    for _ in range(2):
        for share in (1.0, 0.7, 0.2, 0.1):
            passing = np.arange(count) < share * count
            check(db, "cosine", vectors, passing, queries, {"n": {"$lt": share * count}})
        kinds = sorted(path.name.split("-")[-1] for path in (open_path(db) / "index").iterdir())
        assert kinds == ["scan.npk", "symphony.graph", "symphony.npk"]
        db.close()
        db = open_db()
        assert [segment.kind for segment in db.stats().segments] == ["symphony"] and not db.stats().notes
    db.close()
    reader = open_db(read_only=True)
    check(reader, "cosine", vectors, np.arange(count) < 900, queries, {"n": {"$lt": 900}})


def open_path(db: NoPokeDB) -> Any:
    from pathlib import Path

    return Path(db.path)


@pytest.mark.engines
def test_many_queries_are_the_same_as_one_by_one(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """`query_many` with a filter gives what `query` gives."""
    vectors, queries = embeddings(rng, 5_000), embeddings(rng, 20)
    db = open_db(dim=DIM)
    db.add_many(vectors, [{"n": i % 4} for i in range(5_000)])
    wait_sealed(db)
    where = {"n": {"$in": [1, 2]}}
    assert db.query_many(queries, k=7, where=where) == [db.query(query, k=7, where=where) for query in queries]


@pytest.mark.engines
def test_filters_beside_a_writer(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Readers in threads see only whole batches through a filter, while a writer changes which records pass."""
    db = open_db(dim=8)
    db.add_many(rng.standard_normal((200, 8)), [{"turn": 0} for _ in range(200)])
    stop = threading.Event()
    problems: list[str] = []

    def read() -> None:
        query = np.ones(8)
        while not stop.is_set():
            found = {hit["metadata"]["turn"] for hit in db.query(query, k=200, where={"turn": {"$gte": 0}})}
            if len(found) != 1:
                problems.append(f"one batch, two turns: {found}")
            if db.count({"turn": {"$exists": True}}) != 200:
                problems.append("a record is missing")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(1, 40):
        assert db.update_many(where={"turn": turn - 1}, metadata={"turn": turn}) == 200
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems, problems[:3]


@pytest.mark.engines
def test_two_writers_by_filter_do_not_lose_changes(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Each of two threads claims records by filter; every record is claimed exactly once."""
    db = open_db(dim=2)
    db.add_many(rng.random((300, 2)), [{"n": i} for i in range(300)])
    claimed: dict[str, int] = {"a": 0, "b": 0}

    def claim(name: str) -> None:
        for low in range(0, 300, 10):
            where = {"n": {"$between": [low, low + 9]}, "owner": None}
            claimed[name] += db.update_many(where=where, metadata={"owner": name})

    threads = [threading.Thread(target=claim, args=(name,)) for name in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claimed.values()) == 300
    assert dict(db.facet("owner")) == {name: number for name, number in claimed.items() if number}
