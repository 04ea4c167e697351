"""What a filter costs when it is seen for the first time, and when it is known.

Every filter of this part is new: its value has not been asked for since the collection was opened. Each query is asked
three times in a row: without the filter, with it for the first time, and with it again. A field that filters use often
gets an index by itself; the fields that are to have none are asked so seldom after each opening that they stay without.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.conversation import serve
from bench.datasets import Floats
from bench.filters import dataset
from bench.filters.records import NUMBER_RANGE
from bench.filters.scale import Scale
from bench.measure import say
from bench.peers.nopokedb_ours import settle
from bench.scale import K
from bench.timing import timed_us
from nopokedb import NoPokeDB

UNINDEXED = ("plain_number", "plain_group")
FEW = 3
"""Filters of such a field after each opening: with the first they look through all records seven times, and the eighth
time is what makes an index."""

# Kind -> the n-th filter of it. Ranges let a tenth pass, equalities a thousandth.
KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "unindexed range": lambda number: {"plain_number": {"$lt": NUMBER_RANGE // 10 + number}},
    "unindexed equality": lambda number: {"plain_group": number},
    "indexed range": lambda number: {"number": {"$lt": NUMBER_RANGE // 10 + number}},
    "indexed equality": lambda number: {"one_in_1000": number},
}


def _sample(db: Any, make: Callable[[int], dict[str, Any]], number: int, query: Floats) -> dict[str, float]:
    """One filter that is only counted, and another one that a query carries."""
    counted, asked = make(2 * number), make(2 * number + 1)
    count = partial(db.count, where=counted)
    filtered = partial(db.query, query, k=K, where=asked)
    count_new, count_known = timed_us(count), timed_us(count)
    plain = timed_us(partial(db.query, query, k=K))
    new, known = timed_us(filtered), timed_us(filtered)
    return {
        "count_new_us": count_new,
        "count_known_us": count_known,
        "plain_query_us": plain,
        "new_over_plain_us": new - plain,
        "known_over_plain_us": known - plain,
        "new_over_known_us": new - known,
    }


def _round(folder: Path, queries: Floats, scale: Scale, samples: dict[str, dict[str, list[float]]]) -> None:
    """One round on a freshly opened collection, in which nothing is known yet."""
    opened: Any = NoPokeDB(path=folder)
    with opened as db:
        for field in UNINDEXED:
            if field in db.stats().indexed_fields:  # left by something else that used the same collection
                db.drop_index(field)
        settle(db)
        for query in queries:
            db.query(query, k=K)
        for kind, make in KINDS.items():
            found = samples.setdefault(kind, defaultdict(list))
            # The first of a kind also pays for whatever is read once per field.
            found["first_of_field_us"].append(timed_us(partial(db.count, where=make(0))))
            count = min(FEW, scale.fresh_count) if kind.startswith("unindexed") else scale.fresh_count
            for number in range(1, count + 1):
                for name, value in _sample(db, make, number, queries[number % len(queries)]).items():
                    found[name].append(value)
        if made := set(UNINDEXED) & set(db.stats().indexed_fields):
            raise RuntimeError(f"expected no index on {', '.join(UNINDEXED)}, found one on {', '.join(made)}")


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
    serve(lambda: {"measure": lambda: measure(Path(DATA), Path(FOLDER), Scale(**json.loads(SCALE)))})
