"""Reads about answers: how one came about, several on one state, and samples of what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from nopokedb.embedded.ranking import Ranking
from nopokedb.embedded.read_path import ReadPath
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.text_view import TextView
from nopokedb.engine import Answer, Query
from nopokedb.filters import Filter
from nopokedb.plan import Plan
from nopokedb.records import Group, Id, Vectors


def explained(
    reads: ReadPath, take_snapshot: Callable[[], Snapshot], view: Callable[[], TextView], query: Query
) -> Plan:
    """Answer a query, and say how."""
    row_bytes = 4 * (query.vectors.shape[1] if query.vectors is not None else take_snapshot().vectors.shape[1])
    record = Recorder(query.ef, row_bytes)
    if query.plain:
        snapshot = take_snapshot()
        answers: list[Answer] = [*reads.query(snapshot, query, record)]
    else:
        ranking = Ranking(reads, take_snapshot, view, query, record)
        snapshot, answers = ranking.snapshot, ranking.answers()
    hit_count = sum(len(item.hits) if isinstance(item, Group) else 1 for item in answers[0])
    return record.plan(query, snapshot, hit_count)


def answered(reads: ReadPath, snapshot: Snapshot, queries: Sequence[Query]) -> list[tuple[list[Answer], float]]:
    """The answers to several plain queries on one snapshot, and the milliseconds of each query."""
    found = []
    for query in queries:
        start = time.perf_counter()
        answers: list[Answer] = [*reads.query(snapshot, query)]
        found.append((answers, (time.perf_counter() - start) * 1e3))
    return found


def sampled(reads: ReadPath, snapshot: Snapshot, count: int, where: Filter | None) -> tuple[list[Id], Vectors]:
    """Ids and vectors of up to `count` records that pass the filter, by chance."""
    rows = reads.allowed(snapshot, where).members(0, snapshot.row_count)
    chosen = np.random.default_rng().choice(rows, min(count, len(rows)), replace=False)
    return [item.id for item in reads.stored(snapshot, chosen)], snapshot.verified_vectors(chosen)
