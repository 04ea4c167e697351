"""What a search of an index costs, measured when the index was sealed: the other half of its curve of recall.

A list of n places takes `fixed_us + n * place_us` microseconds in one thread, the exact comparison of its rows
included; `row_us` is one row of an exact search over the same vectors. Each is the least of several rounds, so that
other work on the machine counts little, and the mean over the queries, so that slow ones count.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import faiss
import numpy as np

from nopokedb.distances import Doubles, Floats
from nopokedb.embedded.search.curve import Cost
from nopokedb.embedded.search.exact import Rows, keys_by_rows
from nopokedb.embedded.search.index import Bits
from nopokedb.embedded.search.segments import Segment

_QUERIES, _ROUNDS = 16, 3
_SHORT, _LONG = 32, 512
_EXACT_ROWS = 2_048
_K = 10


def measure(
    segment: Segment, prepared: Floats, space: str, vectors: Floats, norms: Doubles, live: Rows, bits: Bits | None
) -> Cost:
    """The cost of this index, from some of these prepared queries."""
    at = np.linspace(0, len(prepared) - 1, min(_QUERIES, len(prepared))).astype(np.int64)
    queries = [np.ascontiguousarray(prepared[one : one + 1]) for one in at]
    long = max(2, min(_LONG, segment.row_count // 4))
    short = max(1, min(_SHORT, long // 2))
    some = np.random.default_rng(segment.start).choice(live, min(_EXACT_ROWS, len(live)), replace=False)
    some = np.sort(some)[None, :].astype(np.int64)

    def listed(length: int) -> Callable[[Floats], object]:
        def search(query: Floats) -> None:
            if bits is not None or segment.best(query, length, _K, vectors) is None:
                keys_by_rows(space, query, vectors, norms, segment.search(query, length, bits))

        return search

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        short_us = _mean_us(queries, listed(short))
        long_us = _mean_us(queries, listed(long))
        row_us = _mean_us(queries, lambda query: keys_by_rows(space, query, vectors, norms, some)) / some.size
    finally:
        faiss.omp_set_num_threads(threads)
    place_us = max(row_us, (long_us - short_us) / (long - short))
    return Cost(max(0.0, short_us - short * place_us), place_us, row_us)


def _mean_us(queries: list[Floats], search: Callable[[Floats], object]) -> float:
    """The mean over the queries of the least of their rounds, in microseconds."""
    total = 0.0
    for query in queries:
        best = float("inf")
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            search(query)
            best = min(best, time.perf_counter() - start)
        total += best
    return total / len(queries) * 1e6
