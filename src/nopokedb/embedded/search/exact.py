"""The candidates' float32 keys, by native kernels.

A *key* ranks candidates within one query, smaller is better: squared distance for l2, minus the dot product for
ip, minus the dot product with the normalised vector for cosine. Keys never leave the search; what a user sees
comes from `distances.final_order`.
"""

from __future__ import annotations

from typing import TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, Floats

Rows: TypeAlias = npt.NDArray[np.int64]

_pointer = faiss.swig_ptr
_GROUPS_OF_A_RESULT = 32
"""So many groups for each result: of 10 results about one in seven queries gets one row more than it needs."""


def keys_by_rows(space: str, queries: Floats, vectors: Floats, norms: Doubles, rows: Rows) -> Floats:
    """Keys of shape (n, m) of the rows (n, m) of `vectors`, each line for its query; row -1 gets +Inf."""
    count, width = rows.shape
    keys = np.empty((count, width), np.float32)
    if not width:
        return keys
    # The native calls check nothing: a row outside of the matrix would read foreign memory. As unsigned numbers
    # missing rows are large, so one look finds both.
    missing = int(rows.view(np.uint64).max()) >= len(vectors)
    if missing and (rows.max() >= len(vectors) or rows.min() < -1):
        raise IndexError(f"expected rows below {len(vectors)}, got {rows.min()} to {rows.max()}")
    assert queries.shape == (count, vectors.shape[1]) and queries.flags.c_contiguous and rows.flags.c_contiguous
    distance = faiss.fvec_L2sqr_by_idx if space == "l2" else faiss.fvec_inner_products_by_idx
    distance(_pointer(keys), _pointer(queries), _pointer(vectors), _pointer(rows), vectors.shape[1], count, width)
    if space == "cosine":
        keys /= norms[rows]
    if space != "l2":
        np.negative(keys, out=keys)
    if missing:
        keys[rows < 0] = np.inf
    return keys


def keys_of_range(space: str, query: Floats, vectors: Floats, norms: Doubles, start: int, stop: int) -> Floats:
    """Keys of shape (stop - start,) of all rows in [start, stop), for one query of shape (dim,)."""
    if not 0 <= start <= stop <= len(vectors):
        raise IndexError(f"expected a range within {len(vectors)} rows, got [{start}, {stop})")
    assert query.shape == (vectors.shape[1],) and query.flags.c_contiguous
    block = vectors[start:stop]
    keys = np.empty(stop - start, np.float32)
    distance = faiss.fvec_L2sqr_ny if space == "l2" else faiss.fvec_inner_products_ny
    distance(_pointer(keys), _pointer(query), _pointer(block), vectors.shape[1], stop - start)
    if space != "l2":
        np.negative(keys, out=keys)
        if space == "cosine":
            keys /= norms[start:stop]
    return keys


def products_with(query: Floats, vectors: Floats) -> Floats:
    """Dot products of shape (n,) of a query (dim,) with vectors (n, dim) in one piece, in this thread."""
    assert query.shape == vectors.shape[1:] and query.flags.c_contiguous and vectors.flags.c_contiguous
    products = np.empty(len(vectors), np.float32)
    faiss.fvec_inner_products_ny(_pointer(products), _pointer(query), _pointer(vectors), len(query), len(vectors))
    return products


def nearest(keys: Floats, k: int, slack: float) -> Rows:
    """The places of the k smallest keys, of all others that float32 cannot tell from the k-th, and of few more."""
    if len(keys) <= k:
        return np.arange(len(keys))
    limit = _limit(keys, k)
    return np.flatnonzero(~(keys > limit + (abs(limit) * 1e-6 + slack)))  # a damaged row's key may be no number


def _limit(keys: Floats, k: int) -> float:
    """A number that at least k of these keys do not exceed, and hardly any other: the k-th of the smallest of each
    group, where two of the best rarely meet. That looks at each key once, a tenth of what the k-th of all costs."""
    group_count = _GROUPS_OF_A_RESULT * k
    fold = len(keys) // group_count
    if fold > 1:
        keys = keys[: fold * group_count].reshape(fold, group_count).min(axis=0)
    return float(np.partition(keys, k - 1)[k - 1])
