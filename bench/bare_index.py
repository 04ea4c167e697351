"""The native calls of a query by themselves, to see what the database around them costs.

This is the one place in the benchmarks that reaches into the package. It does what a default query does
natively: the candidates of each segment and their exact distances, and the rows that no segment covers. All
conversions are done beforehand and every result array is made once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from bench.datasets import Floats
from bench.measure import time_round
from bench.scale import K, Scale
from nopokedb import NoPokeDB
from nopokedb.distances import prepare_queries
from nopokedb.embedded.search.index import places_for
from nopokedb.embedded.search.symphony import Symphony

_native: Any = faiss  # its annotations do not name the raw calls
_pointer = faiss.swig_ptr


def _segment_calls(segment: Any, vectors: Floats) -> Callable[[Floats], None]:
    """The two native calls for one segment: candidates, then their exact products."""
    index, dim = segment._index, vectors.shape[1]
    ef = min(segment.ef_for(K), index.count)
    if isinstance(index, Symphony):
        return _graph_calls(index, vectors, ef)
    parameters, index = index._parameters(ef, None), index._index
    rows = np.empty((1, ef), np.int64)
    found = np.empty((1, ef), np.float32)
    row_pointer, found_pointer, vector_pointer = (
        _pointer(rows),
        _pointer(found),
        _pointer(vectors[segment.start :]),
    )

    # A pointer does not keep its array: without `kept` the results would be written over whatever came to lie there.
    def call(query: Floats, kept: tuple[object, ...] = (rows, found)) -> None:
        query_pointer = _pointer(query)
        index.search_c(1, query_pointer, ef, found_pointer, row_pointer, parameters)
        _native.fvec_inner_products_by_idx(found_pointer, query_pointer, vector_pointer, row_pointer, dim, 1, ef)

    return call


def _graph_calls(index: Any, vectors: Floats, ef: int) -> Callable[[Floats], None]:
    """The one call of a graph that `rabitqlib` searches, and ranks by the vectors that it holds."""
    graph = index._index

    def call(query: Floats) -> None:
        graph.search_batch(query[None], places_for(K, ef), ef, num_threads=1)

    return call


def _tail_call(vectors: Floats, start: int) -> Callable[[Floats], None]:
    """The native call for the rows from `start` on."""
    tail, dim = vectors[start:], vectors.shape[1]
    keys = np.empty(len(tail), np.float32)
    key_pointer, tail_pointer = _pointer(keys), _pointer(tail)

    def call(query: Floats, kept: object = keys) -> None:
        _native.fvec_inner_products_ny(key_pointer, _pointer(query), tail_pointer, dim, len(tail))

    return call


def bare_index_us(db: NoPokeDB, queries: Floats, scale: Scale) -> float:
    """Median microseconds of the native calls that a default query makes, on one thread."""
    engine: Any = db._engine
    snapshot = engine.snapshot()
    calls = [_segment_calls(segment, snapshot.vectors) for segment in snapshot.segments]
    if snapshot.tail_start < snapshot.row_count:
        calls.append(_tail_call(snapshot.vectors, snapshot.tail_start))
    prepared = prepare_queries("cosine", queries)

    def native(query: Floats) -> None:
        for call in calls:
            call(query)

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        native(prepared[0])
        return time_round(native, prepared, scale.round_s).p50_us
    finally:
        faiss.omp_set_num_threads(threads)
