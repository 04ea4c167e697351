"""The one float64 kernel that every answer of every engine goes through, and what users see of it. Pure functions.

Equal vectors get equal distances to the last bit wherever they are stored, and one query the same as many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

SMALLEST = 2.0**-149
"""The smallest float32 above 0: two roundings of half of it, of a product and of a sum."""
_BLOCK_NUMBERS = 4_096


def prepare_queries(space: str, queries: Floats) -> Floats:
    """The queries as keys want them: of unit length under cosine, as given otherwise."""
    if space != "cosine":
        return queries
    if len(queries) == 1:  # the same, without the cost of a general product
        wide = queries[0].astype(np.float64)
        unit: Floats = np.multiply(wide, 1.0 / math.sqrt(wide @ wide)).astype(np.float32)
        return unit[None, :]
    out = np.empty(queries.shape, np.float32)
    for block in row_blocks(queries):
        wide = queries[block].astype(np.float64)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        out[block] = wide
    return out


def row_blocks(vectors: Floats) -> Iterator[slice]:
    """Slices of a few rows. As float64 they take 32 KiB, which stay in the first cache; beyond 128 KiB the allocator
    asks the system for fresh pages each time, and a load of 100,000 x 256 took a quarter longer."""
    count, dim = vectors.shape
    step = max(1, _BLOCK_NUMBERS // max(1, dim))
    return (slice(start, start + step) for start in range(0, count, step))


def squared_norms(vectors: Floats) -> Doubles:
    """Squared length of each row, summed in float64: NaN or Inf in a row shows in its result."""
    if len(vectors) == 1:
        wide = vectors.astype(np.float64)
        single: Doubles = np.einsum("ij,ij->i", wide, wide)
        return single
    out = np.empty(len(vectors))
    for block in row_blocks(vectors):
        wide = vectors[block].astype(np.float64)
        np.einsum("ij,ij->i", wide, wide, out=out[block])
    return out


def unit_mean(space: str, vectors: Floats) -> Doubles:
    """The mean of vectors, of unit length each under cosine."""
    mean: Doubles = prepare_queries(space, vectors).mean(axis=0, dtype=np.float64)
    return mean


def final_order(space: str, query: Floats, vectors: Floats, counts: Sequence[int] | None = None) -> Doubles:
    """What answers are ordered by, smaller is better: shape (n,), between a raw query (dim,) and raw vectors (n, dim),
    computed in float64. With `counts` there are several queries: the first `counts[0]` vectors belong to the first.

    cosine: 1 - cos, within [0, 2]; l2: squared Euclidean distance; ip: minus the dot product. (Its distance is
    1 - dot product, as hnswlib has it, but small products lose their digits in that difference.)
    """
    q = query.astype(np.float64)
    wide = vectors.astype(np.float64)
    squared: float | Doubles
    if counts is None:
        pairs, squared = "ij,j->i", q @ q
    else:
        pairs, squared = "ij,ij->i", np.repeat([one @ one for one in q], counts)
        q = np.repeat(q, counts, axis=0)
    # einsum sums each row by itself in one order, where a matrix product may depend on the row's position.
    if space == "l2":
        wide -= q
        return _squares(wide)
    dots: Doubles = np.einsum(pairs, wide, q)
    if space == "ip":
        return np.negative(dots, out=dots)
    # The squared norms go under one root: each is below 1e37, so the product stays finite.
    lengths = _squares(wide)
    lengths *= squared
    dots /= np.sqrt(lengths, out=lengths)
    distances: Doubles = np.subtract(1.0, dots, out=dots)
    np.maximum(distances, 0.0, out=distances)
    np.minimum(distances, 2.0, out=distances)
    return distances


def _squares(wide: Doubles) -> Doubles:
    squares: Doubles = np.einsum("ij,ij->i", wide, wide)
    return squares


def scores_and_distances(space: str, order: list[float]) -> tuple[list[float], list[float]]:
    """What a user sees of final orders: scores, larger is better (cosine, minus squared distance, dot product), and
    distances, smaller is better (1 - cosine, squared distance, 1 - dot product)."""
    if space == "cosine":
        return [1.0 - value for value in order], order
    negated = [-value for value in order]
    return negated, order if space == "l2" else [1.0 + value for value in order]


def rounding_slack(space: str, query: Floats, longest: float) -> float:
    """Upper estimate of the rounding error of float32 keys, beyond a millionth of the key itself.

    A dot product's error grows with both lengths (`longest` is that of the rows, 1 under cosine, whose keys are
    divided by it) and with the square root of the dimension. A squared distance is summed from differences: its error
    is relative to itself. Below float32's normal numbers, as in products of vectors of length 1e-20, each step may
    also be off by half of the smallest number there is.
    """
    smallest = len(query) * SMALLEST
    if space == "l2":
        return smallest
    length = 1.0 if space == "cosine" else float(np.linalg.norm(query.astype(np.float64)))
    return 1e-7 * (8.0 + math.sqrt(len(query))) * length * longest + smallest
