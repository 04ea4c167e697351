"""How many candidates an index needs: measured against exact search when a segment is sealed.

Groups of queries, because what users ask is not what is stored: rows of the segment (themselves excluded from
the answers), points between a row and one of its neighbours, and points halfway between unrelated rows, which are as
far from everything as a question is from the documents that answer it. A graph looks better from its own nodes than
from elsewhere (by 6 percentage points in one measurement), so its queries are made of rows that it does not contain
yet. All distances are computed in float64: float32 cannot tell near-duplicates apart, and would count what it cannot
tell as found.

Where 50 or more recent queries of users are known, they are a group of their own.

What is found is kept as curves of recall against the length of the list (curve.py). An index is accepted if some list
reaches the promise with 98 % confidence in every group; one that has no such list is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, Floats, final_order, prepare_queries, rounding_slack
from nopokedb.embedded.search.curve import GOAL, HIGHEST, Curve, decile_goal, shortest
from nopokedb.embedded.search.exact import Rows, keys_by_rows
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.search.together import possible_nearest

_CONFIDENCE = 2.0
"""Standard errors below the mean: the lower bound that holds in 98 of 100 cases."""
SAMPLE = 200
"""Queries of each group."""
MIN_RECENT = 50
"""Fewer recent queries than this are too few to be judged as a group."""
LONGEST = 2_048
"""No longer list is tried: comparing that many exactly takes as long as many a scan."""
_LONGEST_WALK = 4_096
"""But of a graph, if nothing shorter reaches the goal: over a million rows the hardest questions may need more than
LONGEST, and such a walk still takes less than a scan."""
_NESTED_STEP, _STEP = 1.12, 1.42
"""Ratios of one length to the next. Where lists are nested all lengths come with the longest one; others are searched
one by one, and then some more around the goal."""
_CLOSER_LOOKS = 3
_FIRST_LOOK = 400
"""Long enough for nearly every scan; a longer list is only looked at where this one does not reach everything."""
KS = (10, 100)
"""Numbers of results that have a curve."""
_SEED = 1_966
_BLOCK_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Truth:
    """Sample queries and the exact distances of their neighbours, nearest first."""

    raw: Floats
    prepared: Floats
    selves: npt.NDArray[np.int64]
    """The row that a query is a copy of, -1 if none: never counted as an answer."""
    groups: npt.NDArray[np.int64]
    """Number of the group that each query belongs to."""
    distances: Doubles
    """Shape (queries, up to 100)."""


def truth_of_rows(space: str, vectors: Floats, norms: Doubles, live: Rows, recent: Floats | None = None) -> Truth:
    """Queries sampled from these live rows, points between them, and recent queries of users."""
    random = np.random.default_rng(_SEED)
    chosen = random.choice(live, min(3 * SAMPLE, len(live)), replace=False).astype(np.int64)
    rows, near, far = np.array_split(chosen, 3)
    _, neighbours = _nearest(space, vectors[near], vectors, norms, live, min(8, len(live)))
    groups = [
        vectors[rows],
        between(vectors[near], vectors[neighbours[:, -1]]),
        between(vectors[far], vectors[far[::-1]]),
        *_asked(recent),
    ]
    selves = np.full(sum(map(len, groups)), -1)
    selves[: len(rows)] = rows
    return _truth(space, groups, selves, vectors, norms, live)


def truth_of_held_out(
    space: str, vectors: Floats, norms: Doubles, live: Rows, held_out: Rows, recent: Floats | None = None
) -> Truth:
    """The held-out rows, points between them and recent queries as queries, the other live rows as their neighbours."""
    others = np.setdiff1d(live, held_out)
    shuffled = np.random.default_rng(_SEED).permutation(held_out)
    groups = [vectors[shuffled], between(vectors[shuffled], vectors[shuffled[::-1]]), *_asked(recent)]
    return _truth(space, groups, np.full(sum(map(len, groups)), -1), vectors, norms, others)


def _asked(recent: Floats | None) -> list[Floats]:
    """The group of recent queries, if they are enough for one."""
    if recent is None or len(recent) < MIN_RECENT:
        return []
    return [recent[np.random.default_rng(_SEED).permutation(len(recent))[:SAMPLE]]]


def between(a: Floats, b: Floats) -> Floats:
    """Points halfway between each two vectors; the first where they cancel out."""
    middle: Floats = np.multiply(a + b, np.float32(0.5))
    lost = np.einsum("ij,ij->i", middle, middle, dtype=np.float64) < 1e-28
    middle[lost] = a[lost]
    return middle


def _truth(
    space: str,
    queries: list[Floats],
    selves: npt.NDArray[np.int64],
    vectors: Floats,
    norms: Doubles,
    live: Rows,
) -> Truth:
    raw = np.ascontiguousarray(np.concatenate(queries))
    groups = np.repeat(np.arange(len(queries)), [len(part) for part in queries])
    distances, rows = _nearest(space, raw, vectors, norms, live, min(101, len(live)))
    distances[rows == selves[:, None]] = np.inf
    distances.sort(axis=1)
    return Truth(raw, prepare_queries(space, raw), selves, groups, distances[:, :100])


def _nearest(space: str, raw: Floats, vectors: Floats, norms: Doubles, live: Rows, depth: int) -> tuple[Doubles, Rows]:
    """Distances and rows of the nearest `depth` live rows of each query, nearest first."""
    rows: Rows | range = range(live[0], live[-1] + 1) if len(live) == live[-1] + 1 - live[0] else live
    found = possible_nearest(space, prepare_queries(space, raw), vectors, norms, rows, depth)
    if found is None:
        return _nearest_of_crowds(space, raw, vectors, live, depth)
    distances, numbers = np.empty((len(raw), depth)), np.empty((len(raw), depth), np.int64)
    for at, (query, possible) in enumerate(zip(raw, found, strict=True)):
        values = final_order(space, query, vectors[possible])
        order = np.argsort(values, kind="stable")[:depth]
        distances[at], numbers[at] = values[order], possible[order]
    return distances, numbers


def _nearest_of_crowds(space: str, raw: Floats, vectors: Floats, live: Rows, depth: int) -> tuple[Doubles, Rows]:
    """The same by products in float64, for rows that float32 cannot tell apart."""
    queries = raw.astype(np.float64)
    centre = vectors[live[: min(len(live), 1000)]].mean(axis=0, dtype=np.float64) if space == "l2" else 0.0
    queries = queries - centre
    squared = np.einsum("ij,ij->i", queries, queries)[:, None]
    best = np.full((len(raw), depth), np.inf)
    best_rows = np.full((len(raw), depth), -1, np.int64)
    for at in range(0, len(live), _BLOCK_ROWS):
        rows = live[at : at + _BLOCK_ROWS]
        block = vectors[rows].astype(np.float64) - centre
        dots = queries @ block.T
        if space == "ip":
            found = -dots
        else:
            lengths = np.einsum("ij,ij->i", block, block)
            found = lengths - 2.0 * dots + squared if space == "l2" else 1.0 - dots / np.sqrt(lengths * squared)
        joined = np.concatenate([best, found], axis=1)
        joined_rows = np.concatenate([best_rows, np.broadcast_to(rows, found.shape)], axis=1)
        order = np.argpartition(joined, depth - 1, axis=1)[:, :depth]
        best = np.take_along_axis(joined, order, axis=1)
        best_rows = np.take_along_axis(joined_rows, order, axis=1)
    # The matrix product rounds a little; the kernel that every answer goes through has the last word.
    for at, query in enumerate(raw):
        best[at] = final_order(space, query, vectors[best_rows[at]])
    order = np.argsort(best, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(best_rows, order, axis=1)


def calibrate(
    segment: Segment, truth: Truth, space: str, vectors: Floats, norms: Doubles, bits: npt.NDArray[np.uint8] | None
) -> bool:
    """Give the segment its curves of recall. False: it cannot reach the goal and is refused."""
    found = _Found(segment, truth, space, vectors, norms, bits)
    most = max(64, segment.row_count // 4)
    longest = min(LONGEST, most)
    if segment.nested_lists:
        for length in (min(_FIRST_LOOK, longest), longest):
            if not all(found.reaches(k, HIGHEST) for k in KS):
                found.measure_up_to(length)
    else:
        further = _lengths(longest, min(_LONGEST_WALK, most), _STEP)
        for length in sorted({*_lengths(KS[0], longest, _STEP), *further, *KS}):
            if length > LONGEST and found.reaches(KS[0], GOAL):
                break
            found.measure(length)
            if all(found.reaches(k, HIGHEST) for k in KS):
                break
        for k in KS:
            found.narrow(k)
    at_10, at_100 = found.curve(10), found.curve(100)
    ef_at_10 = shortest(at_10, GOAL)
    if ef_at_10 is None:
        return False
    segment.set_curves(at_10, at_100, found.mean(10, ef_at_10))
    return True


def _lengths(first: int, last: int, step: float) -> list[int]:
    """Lengths from `first` to `last`, each about `step` times the one before."""
    lengths = [first]
    while lengths[-1] < last:
        lengths.append(min(last, max(lengths[-1] + 1, round(lengths[-1] * step))))
    return lengths


class _Found:
    """The points of both curves, as far as they are measured."""

    def __init__(
        self,
        segment: Segment,
        truth: Truth,
        space: str,
        vectors: Floats,
        norms: Doubles,
        bits: npt.NDArray[np.uint8] | None,
    ) -> None:
        self._segment = segment
        self._truth = truth
        self._space = space
        self._vectors = vectors
        self._norms = norms
        self._bits = bits
        self._depth = int(np.isfinite(truth.distances).sum(axis=1).min())
        """Neighbours that every query has."""
        self._points: dict[int, dict[int, tuple[float, float, float]]] = {k: {} for k in KS}
        """By k and length: lower bound of the recall, worst decile, mean."""

    def curve(self, k: int) -> Curve:
        """The points up to the first that reaches everything."""
        points = []
        for ef, (lower, worst, _) in sorted(self._points[k].items()):
            points.append((ef, max(0, math.floor(lower * 1e5)) / 1e5, math.floor(worst * 1e5) / 1e5))
            if lower >= HIGHEST and worst >= decile_goal(HIGHEST):
                break
        return tuple(points)

    def reaches(self, k: int, target: float) -> bool:
        return shortest(self.curve(k), target) is not None

    def mean(self, k: int, ef: int) -> float:
        """Mean recall of the shortest measured list of that length or more."""
        points = self._points[k]
        return points[min((length for length in points if length >= ef), default=max(points))][2]

    def measure(self, length: int) -> None:
        """Add the points of one length."""
        hits = self._hits(length)
        for k in KS:
            if length >= k:
                self._add(k, length, hits[k].sum(axis=1))

    def measure_up_to(self, longest: int) -> None:
        """Add the points of all lengths up to this one, of which shorter lists are the beginning."""
        hits = self._hits(longest)
        itself = (self._truth.selves >= 0).astype(np.int64)
        for k in KS:
            sums = np.cumsum(hits[k], axis=1, dtype=np.int32)
            for length in _lengths(k, longest, _NESTED_STEP) if longest >= k else ():
                # A query that is a copy of a row finds that first, and it is not counted.
                last = np.minimum(length + itself, sums.shape[1]) - 1
                self._add(k, length, np.take_along_axis(sums, last[:, None], axis=1)[:, 0])

    def narrow(self, k: int) -> None:
        """Look closer at where the goal is reached."""
        for _ in range(_CLOSER_LOOKS):
            length = shortest(self.curve(k), GOAL)
            if length in self._points[k]:
                below = max((point for point in self._points[k] if point < length), default=length)
                length = round(math.sqrt(below * length))
            if length is None or length in self._points[k]:
                return
            self.measure(length)

    def _add(self, k: int, length: int, hits: npt.NDArray[np.integer]) -> None:
        among = min(k, self._depth)
        recall = np.minimum(hits, among) / among if among else np.ones(len(hits))
        groups = self._truth.groups
        lower = min(_lower_bound(recall[groups == group]) for group in np.unique(groups))
        self._points[k][length] = (lower, float(np.quantile(recall, 0.1)), float(recall.mean()))

    def _hits(self, length: int) -> dict[int, npt.NDArray[np.bool_]]:
        """For each k which candidates, shape (queries, candidates), are as near as the k-th neighbour; equals count by
        distance, so ties are no misses."""
        itself = 1 if (self._truth.selves >= 0).any() else 0
        if self._segment.nested_lists or self._bits is not None:
            return self._near(KS, self._segment.search(self._truth.prepared, length + itself, self._bits))
        # What a graph meets on its way depends a little on how many places are asked for.
        found: dict[int, npt.NDArray[np.bool_]] = {}
        for k in KS:
            found |= self._near([k], self._segment.search(self._truth.prepared, length, None, k))
        return found

    def _near(self, ks: Sequence[int], rows: Rows) -> dict[int, npt.NDArray[np.bool_]]:
        """For each k which of these rows, shape (queries, candidates), are as near as the k-th neighbour of their
        query. float32 keys say which of them are worth a look in float64."""
        truth, space = self._truth, self._space
        keys = keys_by_rows(space, truth.prepared, self._vectors, self._norms, rows)
        keys[rows == truth.selves[:, None]] = np.inf
        limits = {k: truth.distances[:, max(0, min(k, self._depth) - 1)] for k in ks}
        near = {k: np.zeros(rows.shape, np.bool_) for k in ks}
        longest = float(self._norms.max(initial=0.0)) if space == "ip" else 1.0
        for at, query in enumerate(truth.raw):
            furthest = max(limits[k][at] for k in ks) - (1.0 if space == "cosine" else 0.0)
            slack = 1e-5 * abs(furthest) + 4.0 * rounding_slack(space, truth.prepared[at], longest)
            places = np.flatnonzero(keys[at] <= furthest + slack)
            values = final_order(space, query, self._vectors[rows[at][places]])
            for k in ks:
                limit = limits[k][at]
                near[k][at, places] = values <= limit + abs(limit) * 1e-12
        return near


def _lower_bound(recall: Doubles) -> float:
    """What the mean recall is at least, with confidence."""
    return float(recall.mean() - _CONFIDENCE * recall.std() / np.sqrt(len(recall)))
