"""One larger collection: loaded durably, asked at once, closed, opened, and compared with its bare index."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from pathlib import Path

from bench.bare_index import bare_index_us
from bench.datasets import EMBEDDING_LIKE_RECIPE, Dataset, Floats, metadata_for
from bench.measure import point_of, recall_of, say, time_round
from bench.opening import measure_opening
from bench.peers.nopokedb_ours import settle
from bench.scale import BATCH_SIZE, K, Scale
from nopokedb import NoPokeDB


def _load(folder: Path, dataset: Dataset) -> tuple[NoPokeDB, dict[str, object]]:
    """Adds everything in durable batches and asks every query at once, without waiting for anything."""
    metadatas = metadata_for(len(dataset.vectors))
    db = NoPokeDB(dataset.vectors.shape[1], path=folder, space="cosine")
    started = time.perf_counter()
    for start in range(0, len(dataset.vectors), BATCH_SIZE):
        db.add_many(dataset.vectors[start : start + BATCH_SIZE], metadatas[start : start + BATCH_SIZE])
    seconds = time.perf_counter() - started
    answers: list[list[int]] = []
    latencies_us: list[float] = []
    for query in dataset.queries:
        before = time.perf_counter()
        hits = db.query(query, k=K)
        latencies_us.append((time.perf_counter() - before) * 1e6)
        answers.append([hit["id"] for hit in hits])
    rate, recall = len(dataset.vectors) / seconds, recall_of(answers, dataset)
    say(f"  loaded at {rate:,.0f} v/s; asked at once: recall {recall:.4f}, first {latencies_us[0]:,.0f} us")
    return db, {
        "per_s": rate,
        "recall_at_once": recall,
        "first_query_at_once_us": latencies_us[0],
        "median_query_at_once_us": statistics.median(latencies_us),
    }


def _overhead(db: NoPokeDB, queries: Floats, scale: Scale) -> dict[str, float]:
    """Median query times with and without metadata, and that of the bare index, in microseconds, in turn.

    The very first pass, in which most metadata is read for the first time, is reported apart.
    """
    unread = time_round(lambda query: db.query(query, k=K), queries, least_seconds=0.0).p50_us
    without: list[float] = []
    returned: list[float] = []
    bare: list[float] = []
    for _ in range(scale.round_count):
        without.append(time_round(lambda query: db.query(query, k=K, include=()), queries, scale.round_s).p50_us)
        returned.append(time_round(lambda query: db.query(query, k=K), queries, scale.round_s).p50_us)
        bare.append(bare_index_us(db, queries, scale))
    figures = {
        "first_pass_us": unread,
        "query_us": statistics.median(without),
        "query_with_metadata_us": statistics.median(returned),
        "bare_index_us": statistics.median(bare),
    }
    say("  " + ", ".join(f"{name} {value:.0f}" for name, value in figures.items()))
    return figures


def measure_bulk(dataset: Dataset, data: Path, folder: Path, scale: Scale) -> dict[str, object]:
    """Everything measured on the larger collection; `data` is the file `dataset` came from."""
    db, loaded = _load(folder, dataset)
    started = time.perf_counter()
    settle(db)
    settle_seconds = time.perf_counter() - started
    answers = [[hit["id"] for hit in db.query(query, k=K)] for query in dataset.queries]
    rounds = [
        time_round(lambda query: db.query(query, k=K), dataset.queries, scale.round_s) for _ in range(scale.round_count)
    ]
    rested = point_of(None, recall_of(answers, dataset), rounds)
    say(f"  settled in {settle_seconds:.2f} s: recall {rested.recall:.4f}, {rested.qps:,.0f} QPS")
    started = time.perf_counter()
    db.close()
    close_seconds = time.perf_counter() - started
    opening = measure_opening(folder, data, scale.open_count)
    say(f"  opened in {opening['open_ms']:.1f} ms, from a cold process in {opening['cold_ms']:.0f} ms")
    with NoPokeDB(path=folder) as reopened:
        overhead = _overhead(reopened, dataset.queries, scale)
    return {
        "count": len(dataset.vectors),
        "dim": dataset.vectors.shape[1],
        "recipe": EMBEDDING_LIKE_RECIPE,
        "load": loaded,
        "settle_s": settle_seconds,
        "rested": asdict(rested),
        "close_s": close_seconds,
        "disk_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "opening": opening,
        "overhead": overhead,
    }
