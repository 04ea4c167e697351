"""The HNSW kind: a navigable small-world graph, by FAISS, with M, ef_construction and ef honoured.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs" (2016): M is the number of links a node gets, ef_construction and ef are the lengths of the
candidate lists while building and searching.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from nopokedb.distances import Floats
from nopokedb.embedded.search.options import BuildOptions, Stopped

NEEDS_HOLDOUT = True
NESTED_LISTS = False
_CHUNK_ROWS = 4_096
"""Rows between two looks at whether to stop: about a second."""


def build(vectors: Floats, options: BuildOptions) -> Any:
    """Insert all rows."""
    # Among unit vectors both orders are the same, and graphs are better by a true metric.
    metric = faiss.METRIC_INNER_PRODUCT if options.space == "ip" else faiss.METRIC_L2
    index = faiss.IndexHNSWFlat(vectors.shape[1], options.M, metric)
    index.hnsw.efConstruction = options.ef_construction
    for start in range(0, len(vectors), _CHUNK_ROWS):
        if options.should_stop():
            raise Stopped
        index.add(np.ascontiguousarray(vectors[start : start + _CHUNK_ROWS]))
    return index


def parameters(ef: int, selector: Any) -> Any:
    """Search parameters: the candidate list is as long as the list asked for."""
    out = faiss.SearchParametersHNSW()
    out.efSearch = ef
    if selector is not None:
        out.sel = selector
    return out
