"""Times one backend, one query at a time from one thread, over a range of `ef`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import peers
from bench.datasets import Dataset, Floats, metadata_for
from bench.machine import versions_of
from bench.peers import Layout, Peer, Setting
from bench.scale import BATCH_SIZE, K, Scale

TARGET_RECALL = 0.99
SWEEP_EFS = (10, 20, 40, 100, 200, 400, 800)
TABLE_EFS = (40, 100, 200)
"""Rows of this project in the table, beside its default."""
SHORTEST_CPU_SECONDS = 0.05


@dataclass(frozen=True)
class Round:
    """One timed stretch of queries: rate, latency percentiles, and what it took in all."""

    qps: float
    p50_us: float
    p95_us: float
    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Point:
    """One setting of one backend. `ef` None is its default; times are medians over the rounds.

    `cores` is processor time divided by wall time: above 1 the backend used more threads than one; 0 is
    unknown.
    """

    ef: int | None
    recall: float
    qps: float
    p50_us: float
    p95_us: float
    cores: float


def say(text: str) -> None:
    """A line of progress, kept apart from the tables on standard output."""
    print(text, file=sys.stderr, flush=True)


def recall_of(answers: list[list[int]], dataset: Dataset) -> float:
    """Share of the true k nearest that the answers hold, over all queries."""
    found = sum(
        len(set(answer[: dataset.k]) & set(truth.tolist()))
        for answer, truth in zip(answers, dataset.truth, strict=True)
    )
    return found / dataset.truth.size


def time_round(query: Callable[[Any], object], vectors: Any, least_seconds: float) -> Round:
    """Asks all the queries, again and again until `least_seconds` have passed. Warm up first."""
    latencies_ns: list[int] = []
    cpu_started, started = time.process_time(), time.perf_counter()
    while True:
        for vector in vectors:
            before = time.perf_counter_ns()
            query(vector)
            latencies_ns.append(time.perf_counter_ns() - before)
        wall = time.perf_counter() - started
        if wall >= least_seconds:
            break
    p50, p95 = np.percentile(latencies_ns, [50, 95]) / 1e3
    cpu = time.process_time() - cpu_started
    return Round(len(latencies_ns) / (sum(latencies_ns) / 1e9), float(p50), float(p95), cpu, wall)


def point_of(ef: int | None, recall: float, rounds: list[Round]) -> Point:
    """One setting's figures from its rounds."""
    wall = sum(each.wall_s for each in rounds)
    return Point(
        ef,
        recall,
        qps=statistics.median(each.qps for each in rounds),
        p50_us=statistics.median(each.p50_us for each in rounds),
        p95_us=statistics.median(each.p95_us for each in rounds),
        cores=sum(each.cpu_s for each in rounds) / wall if wall >= SHORTEST_CPU_SECONDS else 0.0,
    )


def lowest_ef(recall_at: Callable[[int], float], limit: int, target: float = TARGET_RECALL) -> int | None:
    """The smallest ef that reaches the target, to 2 %, by doubling and halving; None if `limit` does not."""
    low, high = K - 1, K
    while recall_at(min(high, limit)) < target:
        if high >= limit:
            return None
        low, high = high, high * 2
    high = min(high, limit)
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if recall_at(middle) < target:
            low = middle
        else:
            high = middle
    return high


def build_of(peer: Peer, vectors: Floats, folder: Path) -> dict[str, float]:
    """Fills a peer. `seconds` ends in the state that is then queried.

    `acknowledged_seconds` ends when the last write has returned. `save_seconds` is what it takes on top to have its
    index on disk, where its writes do not see to that.
    """
    metadatas = metadata_for(len(vectors))
    batch = BATCH_SIZE if peer.is_database else len(vectors)
    started = time.perf_counter()
    peer.create(folder, Layout(vectors.shape[1], len(vectors), metadatas[0]))
    for start in range(0, len(vectors), batch):
        peer.add(start, vectors[start : start + batch], metadatas[start : start + batch])
    acknowledged = time.perf_counter() - started
    peer.finish()
    seconds = time.perf_counter() - started
    peer.save(folder)
    saved = time.perf_counter() - started - seconds
    return {"seconds": seconds, "acknowledged_seconds": acknowledged, "save_seconds": saved}


def _setting(ef: int | None) -> Setting:
    return {} if ef is None else {"ef": ef}


def run_peer(name: str, dataset: Dataset, folder: Path, scale: Scale) -> dict[str, object]:
    """Builds the backend in `folder`; measures its default, its sweep, and the lowest ef for the target.

    Each round goes through all settings, so that a disturbance of the machine does not fall on one alone.
    """
    peer = peers.load(name)
    parameters = peer.parameters()
    say(f"  {name}: building {len(dataset.vectors):,} x {dataset.vectors.shape[1]}")
    build = build_of(peer, dataset.vectors, folder)
    say(f"  {name}: built in {build['seconds']:.2f} s")

    def recall_at(ef: int | None) -> float:
        peer.use(_setting(ef))
        return recall_of([peer.ids(peer.query(query, dataset.k)) for query in dataset.queries], dataset)

    sweep = SWEEP_EFS if peer.largest_effort else ()
    tuned = lowest_ef(recall_at, limit=len(dataset.vectors)) if sweep else None
    settings: list[int | None] = [None, *sorted({*sweep, *([tuned] if tuned else [])})]
    recalls = {ef: recall_at(ef) for ef in settings}
    rounds: dict[int | None, list[Round]] = {ef: [] for ef in settings}
    for _ in range(scale.round_count):
        for ef in settings:
            peer.use(_setting(ef))
            peer.query(dataset.queries[0], dataset.k)
            asked = time_round(lambda query: peer.query(query, dataset.k), dataset.queries, scale.round_s)
            rounds[ef].append(asked)
    points = [point_of(ef, recalls[ef], rounds[ef]) for ef in settings]
    for point in points:
        shown = "default" if point.ef is None else f"ef {point.ef}"
        say(f"  {name}: {shown}: recall {point.recall:.4f}, {point.qps:,.0f} QPS, {point.cores:.2f} cores")
    peer.close()
    return {
        "label": peer.label,
        "build": build,
        "count": len(dataset.vectors),
        "points": [asdict(point) for point in points],
        "table_efs": [None, *(TABLE_EFS if name == peers.OURS else ())],
        "tuned_ef": tuned,
        "parameters": parameters,
        "versions": versions_of(peer.packages),
    }
