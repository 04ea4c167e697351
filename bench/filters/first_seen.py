"""What a filter costs when it is seen for the first time, and when it is known.

Every filter of this part is new: its value has not been asked for since the collection was opened. Each query is asked
three times in a row: without the filter, with it for the first time, and with it again.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.datasets import Floats
from bench.filters import dataset
from bench.filters.conversation import serve
from bench.filters.records import NUMBER_RANGE
from bench.filters.scale import K, Scale
from bench.measure import say
from bench.peers.nopokedb_ours_filters import settle
from nopokedb import NoPokeDB

# Kind -> the n-th filter of it. Ranges let a tenth pass, equalities a thousandth.
KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "unindexed range": lambda number: {"plain_number": {"$lt": NUMBER_RANGE // 10 + number}},
    "unindexed equality": lambda number: {"plain_group": number},
    "indexed range": lambda number: {"number": {"$lt": NUMBER_RANGE // 10 + number}},
    "indexed equality": lambda number: {"one_in_1000": number},
}


def _timed_us(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e6


def _round(folder: Path, queries: Floats, scale: Scale, samples: dict[str, dict[str, list[float]]]) -> None:
    """One round on a freshly opened collection, in which nothing is known yet."""
    with NoPokeDB(path=folder) as db:
        settle(db)
        for query in queries:
            db.query(query, k=K)
        for kind, make in KINDS.items():
            found = samples.setdefault(kind, {})

            def sample(name: str, value: float, into: dict[str, list[float]] = found) -> None:
                into.setdefault(name, []).append(value)

            # The first of a kind also pays for whatever is read once per field.
            sample("first_of_field_us", _timed_us(lambda make=make: db.count(where=make(0))))  # type: ignore[misc]
            for number in range(1, scale.fresh_count + 1):
                counted, asked = make(2 * number), make(2 * number + 1)
                query = queries[number % len(queries)]
                sample("count_new_us", _timed_us(lambda counted=counted: db.count(where=counted)))  # type: ignore[misc]
                sample("count_known_us", _timed_us(lambda counted=counted: db.count(where=counted)))  # type: ignore[misc]
                plain = _timed_us(lambda query=query: db.query(query, k=K))  # type: ignore[misc]
                new, known = (
                    _timed_us(lambda query=query, asked=asked: db.query(query, k=K, where=asked))  # type: ignore[misc]
                    for _ in range(2)
                )
                sample("plain_query_us", plain)
                sample("new_over_plain_us", new - plain)
                sample("known_over_plain_us", known - plain)
                sample("new_over_known_us", new - known)


def measure(data: Path, folder: Path, scale: Scale) -> dict[str, Any]:
    """Medians over all samples of all rounds, in microseconds, per kind."""
    queries = dataset.read(data).queries
    samples: dict[str, dict[str, list[float]]] = {}
    for number in range(scale.round_count):
        _round(folder, queries, scale, samples)
        say(f"  round {number + 1} of {scale.round_count}")
    kinds = {kind: {name: statistics.median(each) for name, each in found.items()} for kind, found in samples.items()}
    return {"kinds": kinds}


if __name__ == "__main__":
    DATA, FOLDER, _, SCALE = sys.argv[1:]
    serve({"measure": lambda: measure(Path(DATA), Path(FOLDER), Scale(**json.loads(SCALE)))})
