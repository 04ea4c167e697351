"""`nopokedb bench`: speed and recall of this collection on this machine."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import click
import numpy as np

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option, where_option
from nopokedb.cli.output import Output
from nopokedb.database import engine_of
from nopokedb.errors import InvalidInputError

_WARM_UP = 50


@click.command()
@click.argument("path")
@click.option("--queries", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Timed queries.")
@click.option("-k", type=int, default=10, show_default=True, help="Answers of each.")
@where_option
@click.option("--ef", type=int, help="Length of the candidate list; else what reaches a recall of 0.99.")
@click.option("--sample", type=int, default=100, show_default=True, help="Queries that are compared with exact search.")
@json_option
def bench(path: str, queries: int, k: int, where: Any, ef: int | None, sample: int, json: bool) -> None:
    """Measure queries to the collection at PATH: one at a time, in this process, with vectors made of its records.

    Half of them are stored vectors, half points between two. It shows what you get here, not what other machines do.
    """
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True, ef=ef) as db:
        count = len(db)
        vectors = _questions(db, queries, where)
        with output.progress(f"measuring {path}"):
            for vector in vectors[:_WARM_UP]:
                db.query(vector, k=k, where=where)
            times_ms = []
            began = time.perf_counter()
            for vector in vectors:
                start = time.perf_counter_ns()
                db.query(vector, k=k, where=where)
                times_ms.append((time.perf_counter_ns() - start) / 1e6)
            seconds = time.perf_counter() - began
            recall = db.measure_recall(sample, min(k, 10_000), where=where)
    p50, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 95, 99)))
    document = {
        "path": path,
        "count": count,
        "k": k,
        "queries": len(vectors),
        "qps": len(vectors) / seconds,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "recall": asdict(recall),
    }
    output.document(document)
    output.table(
        f"{path}: {count} records, k = {k}, {len(vectors)} queries one at a time",
        ("what", "value"),
        [
            ("queries a second", f"{document['qps']:,.1f}"),
            ("p50, p95, p99", f"{p50:.3f} ms, {p95:.3f} ms, {p99:.3f} ms"),
            (f"recall@{recall.k}", f"{recall.recall:.4f} ({recall.low:.4f} to {recall.high:.4f})"),
            ("exact search, median", f"{recall.exact_median_ms:.3f} ms"),
        ],
    )


def _questions(db: NoPokeDB, count: int, where: Any) -> Any:
    """Vectors to ask: stored ones and points between two, by turns."""
    from nopokedb.where import parse_filter

    _, stored = engine_of(db).sample(count, parse_filter(where))
    if not len(stored):
        raise InvalidInputError("expected records to make queries of, found none")
    between = (stored + np.roll(stored, 1, axis=0)) / 2
    lost = np.linalg.norm(between.astype(np.float64), axis=1) < 1e-12  # opposite vectors: no direction is left
    between[lost] = stored[lost]
    mixed = np.where((np.arange(len(stored)) % 2 == 0)[:, None], stored, between)
    return np.resize(mixed, (count, stored.shape[1])) if len(mixed) < count else mixed
