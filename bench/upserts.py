"""Metadata-only upserts, over and over on the same thousand records: the rate, and that all stays right."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bench.datasets import Dataset, embedding_like
from bench.measure import recall_of, say
from bench.scale import BATCH_SIZE, K, Scale
from nopokedb import NoPokeDB

CHECK_COUNT = 10


def _metadata(record: int, round_number: int) -> dict[str, object]:
    return {"record": record, "round": round_number, "even": round_number % 2 == 0}


def _problems(db: NoPokeDB, dataset: Dataset, round_number: int) -> tuple[int, float]:
    """Records or hits whose metadata is not that of the newest round, and the recall of the default query."""
    count = len(dataset.vectors)
    wrong = abs(len(db) - count)
    wrong += sum(db.get(record) != _metadata(record, round_number) for record in range(count))
    answers: list[list[int]] = []
    for query in dataset.queries:
        hits = db.query(query, k=K)
        wrong += sum(hit["metadata"] != _metadata(hit["id"], round_number) for hit in hits)
        answers.append([hit["id"] for hit in hits])
    return wrong, recall_of(answers, dataset)


def measure_upserts(folder: Path, scale: Scale) -> dict[str, object]:
    """Upserts in batches of 1,000, checked ten times on the way and once more after a reopen."""
    dataset = embedding_like(scale.upsert_record_count, scale.upsert_dim, scale.query_count, K)
    count = scale.upsert_record_count
    db = NoPokeDB(scale.upsert_dim, path=folder, space="cosine")
    ids = db.add_many(dataset.vectors, [_metadata(record, 0) for record in range(count)])
    round_count = max(1, scale.upsert_count // count)
    wrong, lowest_recall = _problems(db, dataset, 0)
    batch_seconds: list[float] = []
    for round_number in range(1, round_count + 1):
        metadatas = [_metadata(record, round_number) for record in range(count)]
        for start in range(0, count, BATCH_SIZE):
            started = time.perf_counter()
            db.upsert_many(ids[start : start + BATCH_SIZE], metadatas=metadatas[start : start + BATCH_SIZE])
            batch_seconds.append(time.perf_counter() - started)
        if round_number % max(1, round_count // CHECK_COUNT) == 0:
            found, recall = _problems(db, dataset, round_number)
            wrong, lowest_recall = wrong + found, min(lowest_recall, recall)
            rate = round_number * count / sum(batch_seconds)
            say(f"  {round_number * count:,} upserts: {rate:,.0f}/s, recall {recall:.4f}, {wrong} wrong")
    started = time.perf_counter()
    db.close()
    close_seconds = time.perf_counter() - started
    started = time.perf_counter()
    db = NoPokeDB(path=folder)
    reopen_seconds = time.perf_counter() - started
    found, recall = _problems(db, dataset, round_count)
    db.close()
    return {
        "upsert_count": round_count * count,
        "per_s": round_count * count / sum(batch_seconds),
        "slowest_batch_ms": max(batch_seconds) * 1e3,
        "median_batch_ms": float(np.median(batch_seconds)) * 1e3,
        "wrong_count": wrong + found,
        "lowest_recall": min(lowest_recall, recall),
        "close_s": close_seconds,
        "reopen_ms": reopen_seconds * 1e3,
        "disk_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }
