"""The recall that is asked for, from the curves of sealing to `target_recall` and `measure_recall`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import orjson
import pytest
from sealing import forget_scans, wait_sealed
from test_search import clump, huge

from nopokedb import InvalidInputError, InvalidVectorError, NoPokeDB, Recall
from nopokedb.distances import final_order
from nopokedb.embedded import sealing, upkeep
from nopokedb.embedded.recent import RecentQueries
from nopokedb.embedded.search import construction, curve
from nopokedb.embedded.search.calibration import Truth, truth_of_held_out, truth_of_rows
from nopokedb.embedded.search.curve import HIGHEST, Cost, decile_goal, length_for, shortest
from nopokedb.engine import DEFAULT_RECALL

TARGETS = (0.8, 0.9, 0.95, 0.99, 1.0)
Make = Callable[[np.random.Generator, int, int], np.ndarray]


pytestmark = pytest.mark.usefixtures("quick_sealing")


def gaussian(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim)).astype(np.float32)


def embeddings(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Clusters, and few directions that carry most of the variance."""
    fixed = np.random.default_rng(5)
    basis, centres = fixed.standard_normal((16, dim)), fixed.standard_normal((50, 16)) * 1.5
    latent = centres[rng.integers(0, 50, n)] + rng.standard_normal((n, 16))
    return (latent @ basis + 0.3 * rng.standard_normal((n, dim))).astype(np.float32)


def clustered(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Tight clusters, stored one after the other."""
    centres = np.random.default_rng(6).standard_normal((20, dim)) * 3
    return (centres[np.arange(n) * 20 // n] + 0.1 * rng.standard_normal((n, dim))).astype(np.float32)


def cosine_distances(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    v, q = vectors.astype(np.float64), queries.astype(np.float64)
    return 1 - q @ v.T / np.linalg.norm(v, axis=1) / np.linalg.norm(q, axis=1)[:, None]


def shares(db: NoPokeDB, distances: np.ndarray, queries: np.ndarray, k: int, **options: Any) -> np.ndarray:
    """Per query the share of the k answers that are as near as the k-th true one."""
    found = []
    for query, line in zip(queries, distances, strict=True):
        wanted = min(k, int(np.isfinite(line).sum()))
        limit = np.partition(line, wanted - 1)[wanted - 1] + 1e-12
        hits = db.query(query, k=k, include=(), **options)
        assert len(hits) == wanted == len({hit.id for hit in hits})
        found.append(sum(hit.distance <= limit for hit in hits) / wanted)
    return np.array(found)


def segments_of(db: NoPokeDB) -> Any:
    return db._engine.snapshot().segments  # type: ignore[attr-defined]


# --- curves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["scan", "hnsw"])
@pytest.mark.parametrize("make", [gaussian, embeddings])
def test_a_seal_keeps_the_curve(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, make: Make, index: str
) -> None:
    """From lists as long as the answer up to the highest recall; longer lists find more; kept over a restart."""
    db = open_db(dim=32, index=index)
    db.add_many(make(rng, 4000, 32))
    wait_sealed(db)
    (segment,) = segments_of(db)
    for k in (10, 100):
        points = segment.curves[k]
        lengths, recalls, deciles = zip(*points, strict=True)
        assert lengths[0] == k and list(lengths) == sorted(set(lengths))
        assert len(points) == 1 or recalls[0] < HIGHEST
        for values in (recalls, deciles):
            assert all(0 <= value <= 1 for value in values)
            # Where each length is searched by itself, a longer list may find a little less.
            assert all(after >= before - 0.02 for before, after in itertools.pairwise(values)), points
        assert recalls[-1] >= HIGHEST or lengths[-1] >= 1000
    assert segment.ef_for(10) == segment.ef_at_10 >= 64
    assert db.stats().segments[0].ef_at_10 == segment.ef_at_10
    before = segment.curves
    db.close()
    (again,) = segments_of(open_db())
    assert again.curves == before
    assert [again.ef_for(10, target) for target in TARGETS] == [segment.ef_for(10, target) for target in TARGETS]


def test_a_manifest_without_curves_opens(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """An index sealed before there were curves answers as before; what its two lengths cannot promise is exact."""
    db = open_db(dim=32)
    vectors = gaussian(rng, 3000, 32)
    db.add_many(vectors)
    wait_sealed(db)
    known = segments_of(db)[0].ef_at_10
    path = Path(db.path) / "manifest.json"
    db.close()
    outer = orjson.loads(path.read_bytes())
    for segment in outer["manifest"]["segments"]:
        del segment["curve_at_10"], segment["curve_at_100"]
    outer["crc32c"] = google_crc32c.value(orjson.dumps(outer["manifest"]))
    path.write_bytes(orjson.dumps(outer))
    again = open_db()
    (segment,) = segments_of(again)
    assert segment.ef_for(10) == segment.ef_for(10, 0.8) == known
    assert segment.ef_for(10, 0.995) is None
    query = gaussian(rng, 1, 32)
    (share,) = shares(again, cosine_distances(vectors, query), query, 10, target_recall=0.995)
    assert share == 1 and again.explain(query[0], target_recall=0.995).searches[0].strategy == "exact"


def test_what_a_curve_says() -> None:
    """The first length that serves the mean and the worst tenth, or one in proportion before it where the recall grows
    ever more slowly; a floor from 0.99 on; nothing above what is told."""
    assert curve.GOAL == DEFAULT_RECALL
    points = ((10, 0.7, 0.1), (20, 0.91, 0.5), (30, 0.92, 0.7), (40, 0.992, 1.0), (90, 0.9995, 1.0))
    assert [shortest(points, target) for target in (0.5, 0.75, 0.9, 0.92, 0.99)] == [10, 20, 30, 30, 64]
    assert [shortest(points, target) for target in (0.995, 0.998, 0.999)] == [64, 77, 86]
    assert shortest(points, 0.9999) is None and shortest(points, 1.0) is None and shortest((), 0.5) is None
    part_far_away = ((10, 0.93, 0.9), (100, 0.95, 0.9), (200, 1.0, 1.0))
    assert [shortest(part_far_away, target) for target in (0.94, 0.951, 0.99)] == [100, 200, 200]
    assert [decile_goal(target) for target in (0.5, 0.99, 0.999)] == [0.0, 0.9, 0.9]
    assert [length_for(k, 40, 400) for k in (1, 10, 55, 100, 200)] == [40, 40, 220, 400, 800]
    assert length_for(5, 40, None) == 40 and length_for(50, 40, None) is None and length_for(5, None, None) is None


# --- target_recall ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["auto", "hnsw"])
@pytest.mark.parametrize("make", [embeddings, gaussian, clustered])
def test_the_recall_asked_for_is_reached_and_less_is_cheaper(
    open_db: Callable[..., NoPokeDB], seed: int, make: Make, index: str
) -> None:
    """Measured on queries that calibration never saw, within the statistical error; a lower recall compares fewer
    rows. 1.0 is exact."""
    rng = np.random.default_rng(seed)
    vectors, queries = make(rng, 5000, 48), make(rng, 120, 48)
    db = open_db(dim=48, index=index)
    db.add_many(vectors)
    wait_sealed(db)
    forget_scans(db)
    distances = cosine_distances(vectors, queries)
    for k in (10, 100):
        costs = []
        for target in TARGETS:
            found = shares(db, distances, queries, k, target_recall=target)
            mean, error = found.mean(), found.std() / np.sqrt(len(found))
            assert mean + 3 * error >= target, f"{mean:.4f} +- {error:.4f} at k={k} for {target}"
            plan = db.explain(queries[0], k=k, target_recall=target)
            assert plan.target_recall == target
            costs.append(plan.candidates)
        assert costs == sorted(costs), costs
        if segments_of(db):  # but for data that every index was refused for
            assert costs[3] < costs[4] == len(vectors), costs
            assert k == 100 or costs[0] < costs[3], costs  # a list of 100 may be enough for the 100 nearest
    assert db.query(queries[0], target_recall=0.99) == db.query(queries[0])
    assert db.query_many(queries, k=10, target_recall=0.9) == [db.query(q, k=10, target_recall=0.9) for q in queries]


@pytest.mark.parametrize("target", TARGETS)
def test_the_recall_under_a_filter(open_db: Callable[..., NoPokeDB], rng: np.random.Generator, target: float) -> None:
    """min(k, matches) hits whatever the recall, at every selectivity, and the recall too."""
    count = 6000
    vectors, queries = embeddings(rng, count, 48), embeddings(rng, 60, 48)
    db = open_db(dim=48)
    chance = rng.permutation(count)
    db.add_many(vectors, [{"n": int(n)} for n in chance])
    wait_sealed(db)
    for number in (0, 3, 200, 1500, 4000):
        distances = np.where(chance < number, cosine_distances(vectors, queries), np.inf)
        if not number:
            assert db.query(queries[0], where={"n": {"$lt": 0}}, target_recall=target) == []
            continue
        found = shares(db, distances, queries, 10, where={"n": {"$lt": number}}, target_recall=target)
        mean, error = found.mean(), found.std() / np.sqrt(len(found))
        assert mean + 3 * error >= target, f"{mean:.4f} +- {error:.4f} among {number}"


def test_a_graph_and_its_scan_are_weighed(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a segment has both, the one that reaches the recall more cheaply is asked."""
    monkeypatch.setattr(sealing, "GRAPH_ROWS", 4_096)
    monkeypatch.setattr(upkeep, "GRAPH_PAUSE_S", 0.0)
    monkeypatch.setattr(sealing, "_pays", lambda graph, scan: True)
    db = open_db(dim=32)
    db.add_many(gaussian(rng, 6000, 32))
    deadline = time.monotonic() + 120
    while [segment.kind for segment in db.stats().segments] != ["symphony"]:
        assert time.monotonic() < deadline, db.stats()
        threading.Event().wait(0.01)
    query = gaussian(rng, 1, 32)[0]
    monkeypatch.setattr(Cost, "list_us", lambda self, length: self.fixed_us + length * self.place_us)
    segments_of(db)[0].cost, segments_of(db)[0].scan.cost = Cost(1.0, 0.1, 1.0), Cost(500.0, 1.0, 1.0)
    assert db.explain(query, 10, target_recall=0.8).searches[0].strategy == "graph"
    segments_of(db)[0].cost = Cost(1e6, 1.0, 1.0)
    segments_of(db)[0].choices.clear()
    found = db.explain(query, 10, target_recall=0.8).searches[0]
    assert (found.kind, found.strategy) == ("symphony", "scan")


def test_the_call_wins_over_the_handle(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """A handle's `ef` is what its queries take; a recall that a call asks for takes its place."""
    db = open_db(dim=32, ef=17)
    db.add_many(gaussian(rng, 3000, 32))
    wait_sealed(db)
    query = gaussian(rng, 1, 32)[0]
    assert db.explain(query, 10).searches[0].ef == 17
    assert db.explain(query, 10).target_recall is None
    assert db.explain(query, 10, target_recall=0.99).searches[0].ef == segments_of(db)[0].ef_at_10


@pytest.mark.engines
@pytest.mark.parametrize("value", [0, 0.0, -0.5, 1.0001, 2, True, "0.9", float("nan"), float("inf"), [0.9], 10**400])
def test_target_recall_out_of_range_is_refused(open_db: Callable[..., NoPokeDB], value: Any) -> None:
    """Above 0, at most 1, a number."""
    db = open_db(dim=2)
    for ask in (
        lambda: db.query([1, 0], target_recall=value),
        lambda: db.query_many([[1, 0]], target_recall=value),
        lambda: db.explain([1, 0], target_recall=value),
    ):
        with pytest.raises(InvalidInputError, match="target_recall"):
            ask()


@pytest.mark.engines
def test_target_recall_with_ef_or_without_a_vector_is_refused(open_db: Callable[..., NoPokeDB]) -> None:
    """One of both, and neither where only words are matched."""
    db = open_db(dim=2)
    db.add([1, 0], text="word")
    with pytest.raises(InvalidInputError, match="one of ef and target_recall"):
        db.query([1, 0], ef=10, target_recall=0.9)
    with pytest.raises(InvalidInputError, match="expected a vector beside ef, target_recall"):
        db.query(text="word", target_recall=0.9)
    assert db.query([1, 0], text="word", target_recall=0.5)[0].id == 0
    assert db.query(like=[0], target_recall=np.float32(0.5)) == []
    assert db.query([1, 0], target_recall=1)[0].id == 0


# --- measure_recall -----------------------------------------------------------------------------------------


def test_measured_recall_is_what_counting_gives(open_db: Callable[..., NoPokeDB], seed: int) -> None:
    """On given queries the mean, the worst decile and the number are those of a brute-force count; the interval holds
    the mean, and is wider for fewer queries."""
    rng = np.random.default_rng(seed)
    vectors, queries = gaussian(rng, 4000, 32), gaussian(rng, 150, 32)
    db = open_db(dim=32, ef=12)
    db.add_many(vectors, [{"n": i} for i in range(len(vectors))])
    wait_sealed(db)
    counted = shares(db, cosine_distances(vectors, queries), queries, 10)
    measured = db.measure_recall(queries=queries)
    assert isinstance(measured, Recall) and not measured.sampled and measured.query_count == 150 and measured.k == 10
    assert measured.recall == pytest.approx(counted.mean(), abs=1e-12) and 0.2 < measured.recall < 0.999
    assert measured.worst_decile == pytest.approx(np.quantile(counted, 0.1))
    assert measured.low < measured.recall < measured.high
    spread = 1.96 * counted.std() / np.sqrt(len(counted))
    assert 0.8 < (measured.high - measured.low) / (2 * spread) < 2  # Wilson's is wider near 1
    few = db.measure_recall(queries=queries[:20])
    assert few.high - few.low > measured.high - measured.low
    assert measured.median_ms > 0 and measured.exact_median_ms > 0
    assert f"recall@10 {measured.recall:.4f}" in str(measured) and "150 given queries" in str(measured)
    passing = np.arange(len(vectors)) < 1500
    counted = shares(
        db, np.where(passing, cosine_distances(vectors, queries), np.inf), queries, 5, where={"n": {"$lt": 1500}}
    )
    under = db.measure_recall(k=5, where={"n": {"$lt": 1500}}, queries=queries)
    assert under.recall == pytest.approx(counted.mean(), abs=1e-12)


def test_sampled_recall(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Default queries are found to reach the recall, and a weak handle is found out."""
    vectors = embeddings(rng, 4000, 32)
    db = open_db(dim=32)
    db.add_many(vectors, [{"n": i % 2} for i in range(4000)])
    wait_sealed(db)
    sound = db.measure_recall(sample=100)
    assert sound.high >= 0.99 and sound.query_count == 100 and sound.sampled
    assert db.measure_recall(30, 3, where={"n": 1}).high >= 0.99
    db.ef = 10
    weak = db.measure_recall(sample=100)
    assert weak.high < 0.99 and weak.worst_decile < weak.recall < weak.high


@pytest.mark.engines
def test_a_perfect_sample_is_not_certainty(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Exact answers measure 1.0, duplicates included, and no more certain than so many queries can be."""
    db = open_db(dim=8, index="exact", space="l2")
    db.add_many(np.repeat(gaussian(rng, 50, 8), 2, axis=0))
    perfect = db.measure_recall(sample=40)
    assert (perfect.recall, perfect.worst_decile, perfect.high) == (1, 1, 1) and 0.9 < perfect.low < 0.95


def test_half_of_a_sample_are_records_that_leave_themselves_out(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored vector is asked for one more than k, and its own record is not counted; each is asked both ways."""
    db = open_db(dim=8)
    vectors = gaussian(rng, 100, 8)
    db.add_many(vectors)
    asked: list[Any] = []
    real = type(db._engine).answer_together

    def spy(self: Any, queries: Any) -> Any:
        asked.append(queries)
        return real(self, queries)

    monkeypatch.setattr(type(db._engine), "answer_together", spy)
    db.measure_recall(sample=40, k=3)
    pairs = [queries for queries in asked if len(queries) == 2]
    assert len(pairs) == 40 and all((one.recall, other.recall) == (0.99, 1.0) for one, other in pairs)
    stored = {tuple(vector) for vector in vectors}
    assert [one.k for one, _ in pairs].count(4) == 20
    assert all((one.k == other.k == 4) == (tuple(one.vectors[0]) in stored) for one, other in pairs)


@pytest.mark.parametrize("target", [0.8, 0.99])
def test_an_index_that_finds_too_little_is_not_believed(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, target: float
) -> None:
    """Where a list ends before the k-th place all rows are compared: never fewer hits than there are."""
    vectors, query = gaussian(rng, 3000, 32), gaussian(rng, 1, 32)
    db = open_db(dim=32, index="scan")
    db.add_many(vectors)
    wait_sealed(db)
    kind = type(segments_of(db)[0])
    real = kind.search

    def short(self: Any, queries: Any, ef: int, bits: Any = None, k: Any = None) -> Any:
        rows = real(self, queries, ef, bits, k)
        rows[:, 4:] = -1
        return rows

    monkeypatch.setattr(kind, "search", short)
    assert shares(db, cosine_distances(vectors, query), query, 10, target_recall=target) == [1]
    plan = db.explain(query[0], 10, target_recall=target)
    assert plan.candidates == 4 + 3000 and "did not settle" in plan.searches[0].why


@pytest.mark.engines
def test_the_smallest_collections_are_measured(open_db: Callable[..., NoPokeDB]) -> None:
    """One record, of which a copy of itself finds nothing, and two that cancel out; none at all cannot be sampled."""
    db = open_db(dim=2)
    with pytest.raises(InvalidInputError, match="queries="):
        db.measure_recall()
    assert db.measure_recall(queries=[[1, 0]]).recall == 1
    db.add([1, 0])
    assert db.measure_recall().recall == 1
    db.add([-1, 0])
    for _ in range(5):
        assert db.measure_recall(sample=5, k=1).recall == 1


@pytest.mark.engines
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"sample": 0}, "sample"),
        ({"sample": True}, "sample"),
        ({"sample": 10**9}, "sample"),
        ({"k": 0}, "k "),
        ({"k": 10_001}, "k "),
        ({"k": 2.0}, "k "),
        ({"where": {"a": {"$no": 1}}}, "no"),
        ({"queries": [[1, 2, 3]]}, "shape"),
        ({"queries": []}, "vectors"),
        ({"queries": [[float("nan"), 0]]}, "finite"),
    ],
)
def test_measuring_refuses(open_db: Callable[..., NoPokeDB], arguments: dict[str, Any], error: str) -> None:
    """Each wrong argument by its name."""
    db = open_db(dim=2)
    db.add([1, 0])
    with pytest.raises((InvalidInputError, InvalidVectorError), match=error):
        db.measure_recall(**arguments)


# --- recent queries -----------------------------------------------------------------------------------------


def test_recent_queries_are_few_and_copies() -> None:
    """At most 256 however many were asked, the newest among them; a caller's array may change afterwards."""
    recent = RecentQueries()
    assert recent.vectors() is None
    mine = np.zeros((1, 3), np.float32)
    for n in range(20_000):
        mine[:] = n
        recent.note(mine)
    kept = recent.vectors()
    assert kept is not None and kept.shape == (256, 3)
    assert len(np.unique(kept[:, 0])) == 256
    assert kept[:, 0].max() > 19_900 and kept[:, 0].min() > 15_000


def test_recent_queries_are_a_group_of_calibration(rng: np.random.Generator) -> None:
    """From 50 on; fewer say nothing."""
    vectors, live = gaussian(rng, 1000, 8), np.arange(1000)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    far = gaussian(rng, 50, 8) + 5
    for recent, more in ((None, 0), (far[:49], 0), (far, 1)):
        truth = truth_of_rows("l2", vectors, norms, live, recent)
        assert len(np.unique(truth.groups)) == 3 + more and len(truth.raw) == 600 + 50 * more
        held_out = truth_of_held_out("l2", vectors, norms, live, live[:100], recent)
        assert len(np.unique(held_out.groups)) == 2 + more
    assert {tuple(row) for row in truth.raw[-50:]} == {tuple(row) for row in far}


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("make", [gaussian, clustered, clump, huge])
def test_the_truth_is_exact(space: str, make: Make, seed: int) -> None:
    """The neighbours that indexes are judged by are the nearest in float64, also in crowds that float32 cannot tell
    apart."""
    rng = np.random.default_rng(seed)
    vectors = np.ascontiguousarray(make(rng, 900, 24), np.float32)
    norms, live = np.linalg.norm(vectors.astype(np.float64), axis=1), np.sort(rng.choice(900, 700, replace=False))
    truth = truth_of_rows(space, vectors, norms, live)
    for at, query in enumerate(truth.raw):
        others = live[live != truth.selves[at]]
        assert np.array_equal(truth.distances[at], np.sort(final_order(space, query, vectors[others]))[:100])


def test_what_users_ask_reaches_the_next_seal(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries of the handle, single and many, are what the next segment is calibrated on; measuring leaves none."""
    seen: list[Truth] = []
    real = construction.calibrate

    def spy(segment: Any, truth: Truth, *rest: Any) -> bool:
        seen.append(truth)
        return real(segment, truth, *rest)

    monkeypatch.setattr(construction, "calibrate", spy)
    db = open_db(dim=16)
    db.add_many(gaussian(rng, 500, 16))
    asked = gaussian(rng, 60, 16)
    db.measure_recall(sample=80)
    db.explain(asked[0])
    for query in asked[:59]:
        db.query(query)
    db.query_many(asked[59:])
    db.add_many(gaussian(rng, 1500, 16))
    wait_sealed(db)
    assert seen and {tuple(row) for row in seen[0].raw[seen[0].groups == 3]} == {tuple(row) for row in asked}
