"""Pairs of vectors within a distance: chosen by matrix products, in float64 where their rounding cannot tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, Floats, final_order, prepare_queries, scores_and_distances, squared_norms
from nopokedb.insight.blocks import Positions
from nopokedb.records import Vectors

_ROWS, _COLUMNS = 1_024, 4_096
"""Products of so many vectors take 16 MB."""
_DECIDED = 65_536
"""Pairs that are decided in one go: where vectors are crowded, most of the pairs behind them are joined by then."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Vectors, and what is multiplied."""

    vectors: Vectors
    """As they are stored, shape (n, dim)."""
    factors: Floats
    squared: Doubles
    """Squared lengths of the factors."""


class Within:
    """Which pairs of vectors of two sets are at most `threshold` apart, as `query` tells distances."""

    def __init__(self, space: str, threshold: float) -> None:
        self._space = space
        self._threshold = threshold
        self._centre: Floats | None = None
        self.copies_are_near = space != "ip"
        """Equal vectors are at distance 0, but for the last bit; a dot product may be anything."""

    def prepared(self, vectors: Vectors) -> Prepared:
        """The vectors, ready to be multiplied; under l2 moved to the middle of the first that come, since far from the
        origin products have no digits left for differences."""
        factors = prepare_queries(self._space, vectors)
        if self._space == "l2":
            if self._centre is None:
                self._centre = vectors[:_COLUMNS].mean(axis=0, dtype=np.float64).astype(np.float32)
            factors = vectors - self._centre
        return Prepared(vectors, factors, squared_norms(factors))

    def pairs(self, first: Prepared, second: Prepared) -> Iterator[tuple[Positions, Positions, bool]]:
        """Pairs of a row of each, in parts; the flag says that they are within the distance, else they may be. Of a set
        with itself each pair comes once."""
        same = first is second
        limit = self._limit()
        for top in range(0, len(first.vectors), _ROWS):
            for left in range(top if same else 0, len(second.vectors), _COLUMNS):
                keys, slack = self._keys(first, slice(top, top + _ROWS), second, slice(left, left + _COLUMNS))
                near = keys <= limit + slack
                if same and left < top + _ROWS:
                    near &= np.arange(left, left + near.shape[1]) > np.arange(top, top + near.shape[0])[:, None]
                row, column = np.nonzero(near)
                if not len(row):
                    continue
                sure = keys[row, column] < limit - slack
                for flag in (True, False):
                    yield row[sure == flag] + top, column[sure == flag] + left, flag

    def _limit(self) -> float:
        """The key of the threshold: keys are of dot products, but under l2."""
        return self._threshold if self._space == "l2" else self._threshold - 1.0

    def _keys(self, first: Prepared, rows: slice, second: Prepared, columns: slice) -> tuple[Floats, float]:
        """Keys of shape (rows, columns), and an upper estimate of their error: float32 carries 6e-8, a sum of so many
        products a multiple of it that grows like the square root of their number (as in search/together.py)."""
        unit = 2e-7 * (8.0 + math.sqrt(first.factors.shape[1]))
        squared, others = first.squared[rows], second.squared[columns]
        longest, other_longest = math.sqrt(float(squared.max())), math.sqrt(float(others.max()))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            keys = first.factors[rows] @ second.factors[columns].T
            if self._space == "l2":
                keys *= -2.0
                keys += squared.astype(np.float32)[:, None]
                keys += others.astype(np.float32)
                slack = unit * (longest + other_longest) ** 2
            else:
                np.negative(keys, out=keys)
                slack = unit * longest * other_longest
        limit = self._limit()
        if not math.isfinite(float(keys.sum())):
            keys[~np.isfinite(keys)] = limit  # what overflowed may be anything, and is decided in float64
        # The limit is rounded to float32 when it is compared, and products of tiny numbers vanish.
        return keys, slack + 1e-6 * abs(limit) + 1e-37

    def decided(self, first: Prepared, second: Prepared, row: Positions, column: Positions) -> npt.NDArray[np.bool_]:
        """Which of these pairs are within the distance; pairs of one row stand together."""
        found = np.zeros(len(row), bool)
        ends = np.flatnonzero(np.diff(row)) + 1
        for start, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(row)], strict=True):
            query, near = first.vectors[row[start]], second.vectors[column[start:stop]]
            order = final_order(self._space, query, near)
            distances = np.array(scores_and_distances(self._space, order.tolist())[1])
            found[start:stop] = distances <= self._threshold
            if self.copies_are_near:
                found[start:stop] |= (near == query).all(axis=1)
        return found


def portions(row: Positions, column: Positions) -> Iterator[tuple[Positions, Positions]]:
    """The pairs, some at a time."""
    for start in range(0, len(row), _DECIDED):
        yield row[start : start + _DECIDED], column[start : start + _DECIDED]
