"""How the recall of one index grows with the length of its candidate list, as measured when it was sealed.

A curve is a tuple of points (ef, recall, worst decile), ascending in ef. The recall is what the mean is at least, with
confidence, in the group of queries that is served worst; the worst decile is the recall of the query that only a tenth
of the queries do worse than. There is one curve for 10 results and one for 100; in between they are interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

Curve: TypeAlias = tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds in one thread (search/cost.py measures them)."""

    fixed_us: float
    """A search with an empty list: all codes of a scan."""
    place_us: float
    """Each place of the list, its exact comparison included."""
    row_us: float
    """A row of an exact search over the same vectors."""

    def list_us(self, length: float) -> float:
        """A search with a list of that length."""
        return self.fixed_us + length * self.place_us


def assumed_cost(scanned_rows: int, dim: int) -> Cost:
    """What an index from before costs were measured is taken for: a scan of so many rows, or a graph (0)."""
    row_us = 0.01 + dim * 6e-5
    if scanned_rows:
        return Cost(scanned_rows * row_us / 16, row_us, row_us)
    return Cost(10.0, 40 * row_us, row_us)


GOAL = 0.99
"""Mean recall that a query reaches when nothing is said."""
WORST_DECILE_GOAL = 0.9
"""Recall at GOAL of the query that only a tenth of the queries do worse than."""
HIGHEST = 0.999
"""Above this some hundred queries cannot tell one recall from another: what asks for more is compared exactly."""
_MIN_LENGTH = 64
"""Lists that have to reach GOAL or more are not shorter. It saves next to nothing (a scan's cost is the scan) and would
leave no margin for queries that are unlike the rows: for sentences asked of docstrings a list that was just enough for
the rows themselves found 0.979, one of 40 found 0.9995."""

_STEEPER = 2.0
"""Slopes of neighbours differ by up to that much on real embeddings, because some hundred queries are few."""


def decile_goal(target: float) -> float:
    """What the worst tenth of the queries has to find where the mean finds `target`: answers that miss 1 - target on
    average may miss up to four times as much now and then, and never more than a tenth at GOAL."""
    return min(WORST_DECILE_GOAL, max(0.0, 1.0 - 4.0 * (1.0 - target)))


def shortest(curve: Curve, target: float) -> int | None:
    """The shortest length that reaches the target, None if none does.

    Between a measured length that does not reach it and the next, which does, the recall is taken to grow in proportion
    to the logarithm of the length: as a rule it grows ever more slowly, and is rather above that. Not so where it has
    just become much steeper, as where a part of the rows is only reached by long lists, nor where the worst decile
    misses something at the shorter length: there the longer one is taken.
    """
    if target > HIGHEST:
        return None
    decile = decile_goal(target)
    before = below = None
    for ef, recall, worst in curve:
        if recall >= target and worst >= decile:
            if before is not None and below is not None and below[2] >= decile:
                slope = (recall - below[1]) / math.log(ef / below[0])
                if slope * math.log(below[0] / before[0]) <= _STEEPER * (below[1] - before[1]):
                    ef = math.ceil(below[0] * math.exp((target - below[1]) / slope))
            return max(ef, _MIN_LENGTH) if target >= GOAL else ef
        before, below = below, (ef, recall, worst)
    return None


def length_for(k: int, at_10: int | None, at_100: int | None) -> int | None:
    """Candidates for k results, from the lengths for 10 and for 100; never fewer than k."""
    if at_10 is None or at_100 is None:
        return at_10 if k <= 10 else None
    if k <= 10:
        return at_10
    if k >= 100:
        return -(-at_100 * k // 100)
    return at_10 + (at_100 - at_10) * (k - 10) // 90
