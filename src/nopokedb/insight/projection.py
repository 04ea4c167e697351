"""The directions in which vectors differ most, and where records lie along them: principal components.

Pearson, "On Lines and Planes of Closest Fit to Systems of Points in Space" (1901). The console draws its map in the
same way (server/console/pca.js): the same centre, the same axes, the same signs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, prepare_queries
from nopokedb.insight.blocks import Block, chosen_blocks, places
from nopokedb.reading import Reading
from nopokedb.records import Id, Vectors
from nopokedb.where import Where

_SEED = 20_260
_BLOCK_RECORDS = 4_096
MAX_COVARIANCE_DIM = 4_096
"""Up to here axes are those of all records; the matrix of covariances has 128 MiB then. Beyond, of a sample."""
_SAMPLE = 2_048
"""Records of that sample."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Records in a few dimensions."""

    ids: list[Id]
    """In id order."""
    coordinates: npt.NDArray[np.float32]
    """Shape (n, dims), along the axes, from the mean."""
    explained_variance: npt.NDArray[np.float64]
    """Shape (dims,): the share of the vectors' variance along each axis, 0 to 1, falling."""
    mean: npt.NDArray[np.float32]
    """Shape (dim,)."""
    axes: npt.NDArray[np.float32]
    """Shape (dims, dim), of length 1; a new vector lies at `(vector - mean) @ axes.T`. Under cosine vectors are brought
    to length 1 first."""


def projection_of(
    db: Reading, space: str, dim: int, dims: int, sample: int | None, where: Where, keep: Callable[[Block], object]
) -> Projection:
    """See `NoPokeDB.project`. `keep` is told the blocks whose records are in it, in order."""
    total = db.count(where)
    chosen = places(total, sample, _SEED)
    count = total if chosen is None else len(chosen)
    fitted = chosen
    if dim > MAX_COVARIANCE_DIM and count > _SAMPLE:
        fitted = places(count, _SAMPLE, _SEED)
        fitted = fitted if chosen is None or fitted is None else chosen[fitted]
    prepared = (prepare_queries(space, block.vectors) for block in chosen_blocks(db, where, _BLOCK_RECORDS, fitted))
    mean, axes, shares = principal_axes(prepared, dim, dims)
    ids: list[Id] = []
    parts = [np.empty((0, dims), np.float32)]
    for block in chosen_blocks(db, where, _BLOCK_RECORDS, chosen):
        keep(block)
        ids += block.ids
        parts.append(((prepare_queries(space, block.vectors) - mean) @ axes.T).astype(np.float32))
    return Projection(ids, np.concatenate(parts), shares, mean.astype(np.float32), axes.astype(np.float32))


def principal_axes(blocks: Iterable[Vectors], dim: int, dims: int) -> tuple[Doubles, Doubles, Doubles]:
    """The mean (dim,), the first axes (dims, dim) and the share of the variance along each.

    An axis' sign is such that its component of the largest magnitude is positive. Where there are fewer directions
    than asked for, the axes behind them are zero.
    """
    axes, shares = np.zeros((dims, dim)), np.zeros(dims)
    if dim <= MAX_COVARIANCE_DIM:
        mean, spread = _spread(blocks, dim)
        values, vectors = np.linalg.eigh(spread)
        total, directions = float(np.trace(spread)), vectors.T
    else:  # fewer records than dimensions: the axes are combinations of them
        rows = np.concatenate([np.empty((0, dim)), *(block.astype(np.float64) for block in blocks)])
        mean = rows.mean(axis=0) if len(rows) else np.zeros(dim)
        rows -= mean
        values, combinations = np.linalg.eigh(rows @ rows.T)
        total = float(values.sum())
        directions = combinations.T @ rows
    for place, at in enumerate(range(len(values) - 1, max(-1, len(values) - 1 - dims), -1)):
        length = float(np.linalg.norm(directions[at]))
        if values[at] <= 1e-12 * total or not length:
            break  # no direction is left
        axis = directions[at] / length
        axes[place] = axis if axis[np.argmax(np.abs(axis))] > 0 else -axis
        shares[place] = values[at] / total
    return mean, axes, shares


def _spread(blocks: Iterable[Vectors], dim: int) -> tuple[Doubles, Doubles]:
    """The mean, and the sums of the products of what differs from it: shape (dim, dim)."""
    shift, sums, products, count = np.zeros(dim), np.zeros(dim), np.zeros((dim, dim)), 0
    for rows in _wide(blocks):
        if not count:
            shift = rows.mean(axis=0)  # near zero sums keep their digits
        rows -= shift
        sums += rows.sum(axis=0)
        products += rows.T @ rows
        count += len(rows)
    offset = sums / max(count, 1)
    return shift + offset, products - count * np.outer(offset, offset)


def _wide(blocks: Iterable[Vectors]) -> Iterator[Doubles]:
    for block in blocks:
        yield block.astype(np.float64)
