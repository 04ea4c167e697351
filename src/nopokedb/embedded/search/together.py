"""Exact search for many queries at once: blocks of rows times all queries, as matrix products on all cores.

A product costs a fraction of comparing row by row, and rounds a little more. So it only chooses: the rows that may be
among the k nearest of a query, as far as its rounding can tell. Their keys come from the same kernel as for a single
query, and the answers are the same.

FAISS multiplies, on as many threads as it was told to use in this thread. NumPy's products take all cores, and those
of indexes that are built in the background took them from the queries beside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, Floats
from nopokedb.embedded.search.exact import Rows

MIN_QUERIES = 8
"""Fewer are compared one by one: a product of so few reads the rows as often and gains nothing."""
_QUERIES = 256
_BLOCK_ROWS = 4_096
"""Products of 256 queries and 4,096 rows take 4 MB."""
_CROWD = 64
"""So many times k rows within the rounding on average: then the data have to be compared one by one."""
_Hits: TypeAlias = tuple[npt.NDArray[np.intp], npt.NDArray[np.int64], Floats]
"""Query, row and key of each hit."""


def possible_nearest(
    space: str, queries: Floats, vectors: Floats, norms: Doubles, rows: Rows | range, k: int
) -> list[Rows] | None:
    """For each prepared query those of these rows that may be among its k nearest; None where rounding cannot tell them
    from too many others."""
    if not len(rows):
        return [np.empty(0, np.int64)] * len(queries)
    found: list[Rows] = []
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is noticed, and compared one by one
        for at in range(0, len(queries), _QUERIES):
            part = _of_some(space, queries[at : at + _QUERIES], vectors, norms, rows, k)
            if part is None:
                return None
            found += part
    return found


def _of_some(
    space: str, queries: Floats, vectors: Floats, norms: Doubles, rows: Rows | range, k: int
) -> list[Rows] | None:
    centre = None
    if space == "l2":  # far from the origin products have no digits left for differences
        centre = _block(vectors, rows, 0)[0].mean(axis=0, dtype=np.float64).astype(np.float32)
        queries = queries - centre
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    products = _Products(queries)
    limits = np.full(len(queries), np.inf)
    slack = np.zeros(len(queries))
    kept: _Hits = np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0, np.float32)
    for at in range(0, len(rows), _BLOCK_ROWS):
        block, numbers = _block(vectors, rows, at)
        keys, longest = _keys(space, products, block, norms[numbers], centre)
        # Later blocks may have longer rows: what was let in by a smaller slack before was let in by its own.
        slack = np.maximum(slack, _rounding(space, lengths, longest, queries.shape[1]))
        if not math.isfinite(float(keys.sum())):
            return None
        if not at and len(numbers) > k:  # else all of the first block would be hits
            limits = np.partition(keys, k - 1, axis=0)[k - 1].astype(np.float64)
        # In float32, rounded up: a comparison with float64 would convert every key.
        highest = np.nextafter((limits + 2.0 * slack).astype(np.float32), np.float32(np.inf))
        place, query = np.nonzero(keys <= highest)
        hits = query, numbers[place], keys[place, query]
        kept, limits = _pruned(_joined(kept, hits), len(queries), k, slack)
        if len(kept[0]) > len(queries) * (_CROWD * k + _CROWD):
            return None
    ends = np.searchsorted(kept[0], np.arange(len(queries) + 1))
    return [kept[1][first:last] for first, last in itertools.pairwise(ends)]


def _block(vectors: Floats, rows: Rows | range, at: int) -> tuple[Floats, Rows]:
    """The vectors and numbers of some rows."""
    part = rows[at : at + _BLOCK_ROWS]
    if isinstance(part, range):
        return vectors[part.start : part.stop], np.arange(part.start, part.stop)
    return vectors[part], part


class _Products:
    """Products of some queries with blocks of rows, in one piece of memory."""

    def __init__(self, queries: Floats) -> None:
        count, dim = queries.shape
        self._transform = faiss.LinearTransform(dim, count, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(queries).reshape(-1), self._transform.A)
        self._transform.is_trained = True
        self._out = np.empty((_BLOCK_ROWS, count), np.float32)

    def with_rows(self, block: Floats) -> Floats:
        """Shape (rows, queries), until the next block."""
        block = np.ascontiguousarray(block)
        out = self._out[: len(block)]
        self._transform.apply_noalloc(len(block), faiss.swig_ptr(block), faiss.swig_ptr(out))
        return out


def _keys(
    space: str, products: _Products, block: Floats, norms: Doubles, centre: Floats | None
) -> tuple[Floats, float]:
    """Keys of shape (rows, queries), without what is the same for all rows of a query; and the longest row."""
    if centre is not None:
        block = block - centre
        squared = np.einsum("ij,ij->i", block, block)
        keys = products.with_rows(block)
        keys *= -2.0
        keys += squared[:, None]
        return keys, math.sqrt(float(squared.max()))
    keys = products.with_rows(block)
    if space == "cosine":
        keys *= (-1.0 / norms).astype(np.float32)[:, None]
        return keys, 1.0
    np.negative(keys, out=keys)
    return keys, float(norms.max())


def _rounding(space: str, lengths: Doubles, longest: float, dim: int) -> Doubles:
    """Upper estimate of the error of these keys: float32 carries 6e-8, a sum of so many products a multiple of it that
    grows like the square root of their number."""
    unit = 2e-7 * (8.0 + math.sqrt(dim))
    error: Doubles = unit * (lengths + longest) ** 2 if space == "l2" else unit * lengths * longest
    return error


def _joined(a: _Hits, b: _Hits) -> _Hits:
    return np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]]), np.concatenate([a[2], b[2]])


def _pruned(hits: _Hits, count: int, k: int, slack: Doubles) -> tuple[_Hits, Doubles]:
    """The hits that may still be among the k nearest, by query, and the k-th key of each query."""
    order = np.lexsort((hits[2], hits[0]))
    query, rows, keys = hits[0][order], hits[1][order], hits[2][order]
    starts = np.searchsorted(query, np.arange(count + 1))
    limits = np.full(count, np.inf)
    full = np.diff(starts) >= k
    limits[full] = keys[starts[:-1][full] + k - 1]
    stay = keys <= (limits + 2.0 * slack)[query]
    return (query[stay], rows[stay], keys[stay]), limits


def worth_it(queries: Sequence[int], row_count: int, k: int) -> bool:
    """Whether so many queries and rows are faster together."""
    return len(queries) >= MIN_QUERIES and row_count > 4 * k
