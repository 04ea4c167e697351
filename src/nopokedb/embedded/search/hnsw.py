"""The HNSW kind: a navigable small-world graph, by FAISS, with M, ef_construction and ef honoured.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs" (2016): M is the number of links a node gets, ef_construction and ef are the lengths of the
candidate lists while building and searching.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from nopokedb.distances import Floats
from nopokedb.embedded.search.index import FaissIndex, deserialized
from nopokedb.embedded.search.options import BuildOptions

NEEDS_HOLDOUT = True
NESTED_LISTS = False
CENTRED = MOVED_QUERIES = frozenset({"l2"})
"""A graph by dot product compares rows with rows, which moving them would change."""
_CHUNK_ROWS = 4_096
"""Rows between two looks at whether to stop: about a second."""


class Hnsw(FaissIndex):
    """The graph, with the vectors in it."""

    _by_vectors = True

    def _parameters(self, ef: int, selector: Any) -> Any:
        out = faiss.SearchParametersHNSW()
        out.efSearch = ef
        if selector is not None:
            out.sel = selector
        return out

    def bytes_for(self, ef: int) -> int:
        """For each place of the list the node, its links and the vectors of about half of its neighbours, as the others
        were seen before."""
        return ef * int(self._index.hnsw.nb_neighbors(0)) * (4 + 2 * int(self._index.d))


def build(vectors: Floats, options: BuildOptions) -> Hnsw:
    """Insert all rows."""
    # Among unit vectors both orders are the same, and graphs are better by a true metric.
    metric = faiss.METRIC_INNER_PRODUCT if options.space == "ip" else faiss.METRIC_L2
    index = faiss.IndexHNSWFlat(vectors.shape[1], options.M, metric)
    index.hnsw.efConstruction = options.ef_construction
    for start in range(0, len(vectors), _CHUNK_ROWS):
        options.raise_if_stopped()
        index.add(np.ascontiguousarray(vectors[start : start + _CHUNK_ROWS]))
    return Hnsw(index)


def load(data: memoryview, beside: Path) -> Hnsw:
    """The graph that was serialised."""
    return Hnsw(deserialized(data))
