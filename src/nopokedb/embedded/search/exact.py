"""Exact distances: the candidates' float32 keys, and the one float64 kernel that every answer goes through.

A *key* ranks candidates within one query, smaller is better: squared distance for l2, minus the dot product for
ip, minus the dot product with the normalised vector for cosine. Keys never leave the search; what a user sees
comes from `final_order`, which is the same for one query and for many, so equal vectors get equal distances
to the last bit wherever they are stored.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int64]

_pointer = faiss.swig_ptr
_SCRATCH_ROWS = 1 << 18


def prepare_queries(space: str, queries: Floats) -> Floats:
    """The queries as keys want them: of unit length under cosine, as given otherwise."""
    if space != "cosine":
        return queries
    if len(queries) == 1:  # the same, without the cost of a general product
        wide = queries.astype(np.float64)
        return np.multiply(wide, 1.0 / math.sqrt(float(wide[0] @ wide[0]))).astype(np.float32)
    out = np.empty(queries.shape, np.float32)
    for start in range(0, len(queries), 1024):  # blocks that stay in the cache once widened
        wide = queries[start : start + 1024].astype(np.float64)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        out[start : start + 1024] = wide
    return out


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


def nearest(keys: Floats, rows: Rows, k: int, slack: float) -> Rows:
    """The rows of the k smallest keys, and of all others that float32 cannot tell from the k-th."""
    if len(keys) > k:
        limit = float(np.partition(keys, k - 1)[k - 1])
        rows = rows[keys <= limit + (abs(limit) * 1e-6 + slack)]
    return rows


def rounding_slack(space: str, query: Floats, longest: float) -> float:
    """Upper estimate of the rounding error of float32 keys, beyond a millionth of the key itself.

    A dot product's error grows with both lengths (`longest` is that of the rows, 1 under cosine, whose keys are
    divided by it) and with the square root of the dimension. A squared distance is summed from differences: its error
    is relative to itself.
    """
    if space == "l2":
        return 0.0
    length = 1.0 if space == "cosine" else float(np.linalg.norm(query.astype(np.float64)))
    return 1e-7 * (8.0 + math.sqrt(len(query))) * length * longest


def final_order(space: str, query: Floats, vectors: Floats) -> Doubles:
    """What answers are ordered by, smaller is better: shape (n,), between a raw query (dim,) and raw vectors (n, dim),
    computed in float64.

    cosine: 1 - cos, within [0, 2]; l2: squared Euclidean distance; ip: minus the dot product. (Its distance is
    1 - dot product, as hnswlib has it, but small products lose their digits in that difference.)
    """
    q = query.astype(np.float64)
    wide = vectors.astype(np.float64)
    # einsum sums each row by itself in one order, where a matrix product may depend on the row's position.
    if space == "l2":
        wide -= q
        squared: Doubles = np.einsum("ij,ij->i", wide, wide)
        return squared
    dots: Doubles = np.einsum("ij,j->i", wide, q)
    if space == "ip":
        return np.negative(dots, out=dots)
    # The squared norms go under one root: each is below 1e37, so the product stays finite.
    dots /= np.sqrt(np.einsum("ij,ij->i", wide, wide) * (q @ q))
    distances: Doubles = np.subtract(1.0, dots, out=dots)
    np.maximum(distances, 0.0, out=distances)
    np.minimum(distances, 2.0, out=distances)
    return distances


def scores_and_distances(space: str, order: list[float]) -> tuple[list[float], list[float]]:
    """What a user sees of final orders: scores, larger is better (cosine, minus squared distance, dot product), and
    distances, smaller is better (1 - cosine, squared distance, 1 - dot product)."""
    if space == "cosine":
        return [1.0 - value for value in order], order
    negated = [-value for value in order]
    return negated, order if space == "l2" else [1.0 + value for value in order]
