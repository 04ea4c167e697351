"""How many candidates an index needs: measured against exact search when a segment is sealed.

Three groups of queries, because what users ask is not what is stored: rows of the segment (themselves excluded from
the answers), points between a row and one of its neighbours, and points halfway between unrelated rows, which are as
far from everything as a question is from the documents that answer it. A graph looks better from its own nodes than
from elsewhere (by 6 percentage points in one measurement), so its queries are made of rows that it does not contain
yet. All distances are computed in float64: float32 cannot tell near-duplicates apart, and would count what it cannot
tell as found.

An index is accepted with the shortest candidate list whose recall reaches the promise with 98 % confidence in every
group; one that has no such list is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.search.exact import Doubles, Floats, Rows, final_order, prepare_queries
from nopokedb.embedded.search.segments import Segment

GOAL = 0.99
"""Mean recall to reach with confidence."""
_CONFIDENCE = 2.0
"""Standard errors below the mean: the lower bound that holds in 98 of 100 cases."""
WORST_DECILE_GOAL = 0.9
"""Recall of the query that only a tenth of the queries do worse than."""
SAMPLE = 200
"""Queries of each group."""
_LADDER = (
    *(64, 72, 80, 90, 100, 112, 128, 144, 160, 180, 200, 225, 256, 288, 320, 360, 400, 450),
    *(512, 640, 800, 1024, 1280, 1600, 2048),
)
"""Lengths to try. Shorter ones save next to nothing (a scan's cost is the scan) and leave no margin for queries that
are unlike the rows: for sentences asked of docstrings a list that was just enough for the rows themselves found
0.979, one of 40 found 0.9995."""
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


def truth_of_rows(space: str, vectors: Floats, live: Rows) -> Truth:
    """Queries sampled from these live rows, and points between them."""
    random = np.random.default_rng(_SEED)
    chosen = random.choice(live, min(3 * SAMPLE, len(live)), replace=False).astype(np.int64)
    rows, near, far = np.array_split(chosen, 3)
    _, neighbours = _nearest(space, vectors[near], vectors, live, min(8, len(live)))
    raw = np.concatenate(
        [vectors[rows], _between(vectors[near], vectors[neighbours[:, -1]]), _between(vectors[far], vectors[far[::-1]])]
    )
    selves = np.concatenate([rows, np.full(len(near) + len(far), -1)])
    groups = np.repeat([0, 1, 2], [len(rows), len(near), len(far)])
    return _truth(space, raw, selves, groups, vectors, live)


def truth_of_held_out(space: str, vectors: Floats, live: Rows, held_out: Rows) -> Truth:
    """The held-out rows and points between them as queries, the other live rows as their neighbours."""
    others = np.setdiff1d(live, held_out)
    shuffled = np.random.default_rng(_SEED).permutation(held_out)
    raw = np.concatenate([vectors[shuffled], _between(vectors[shuffled], vectors[shuffled[::-1]])])
    groups = np.repeat([0, 1], len(shuffled))
    return _truth(space, raw, np.full(len(raw), -1), groups, vectors, others)


def _between(a: Floats, b: Floats) -> Floats:
    """Points halfway between each two vectors; the first where they cancel out."""
    middle: Floats = np.multiply(a + b, np.float32(0.5))
    lost = np.einsum("ij,ij->i", middle, middle, dtype=np.float64) < 1e-28
    middle[lost] = a[lost]
    return middle


def _truth(
    space: str,
    raw: Floats,
    selves: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    vectors: Floats,
    live: Rows,
) -> Truth:
    distances, rows = _nearest(space, raw, vectors, live, min(101, len(live)))
    distances[rows == selves[:, None]] = np.inf
    distances.sort(axis=1)
    return Truth(raw, prepare_queries(space, raw), selves, groups, distances[:, :100])


def _nearest(space: str, raw: Floats, vectors: Floats, live: Rows, depth: int) -> tuple[Doubles, Rows]:
    """Distances and rows of the nearest `depth` live rows of each query, nearest first."""
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


def calibrate(segment: Segment, truth: Truth, space: str, vectors: Floats, bits: npt.NDArray[np.uint8] | None) -> bool:
    """Set the segment's `ef_at_10`, `ef_at_100` and `recall`. False: it cannot reach the goal and is refused."""
    reached: dict[int, int] = {}
    longest = min(_LADDER[-1], max(64, segment.row_count // 4))
    for ef in (*(step for step in _LADDER if step < longest), longest):
        wanted = [k for k in (10, 100) if k not in reached and ef >= k]
        if not wanted:
            continue
        distances = _found(segment, truth, space, vectors, bits, ef)
        for k in wanted:
            recall = _recall(distances, truth.distances, k)
            worst = min(_lower_bound(recall[truth.groups == group]) for group in np.unique(truth.groups))
            if worst >= GOAL and np.quantile(recall, 0.1) >= WORST_DECILE_GOAL:
                reached[k] = ef
                if k == 10:
                    segment.recall = float(recall.mean())
        if len(reached) == 2:
            break
    if 10 not in reached:
        return False
    segment.ef_at_10 = reached[10]
    # A list that cannot reach 100 within the ladder grows with k from what 10 needed, exact search being near.
    segment.ef_at_100 = reached.get(100, max(longest, 10 * reached[10]))
    return True


def _found(
    segment: Segment, truth: Truth, space: str, vectors: Floats, bits: npt.NDArray[np.uint8] | None, ef: int
) -> Doubles:
    """Distances of the segment's candidates for each query, nearest first, missing ones infinite."""
    itself = 1 if (truth.selves >= 0).any() else 0  # found first, and not counted
    rows = segment.search(truth.prepared, ef + itself, bits)
    distances = np.full(rows.shape, np.inf)
    for at, query in enumerate(truth.raw):
        there = (rows[at] >= 0) & (rows[at] != truth.selves[at])
        distances[at, there] = final_order(space, query, vectors[rows[at][there]])
    distances.sort(axis=1)
    return distances


def _lower_bound(recall: Doubles) -> float:
    """What the mean recall is at least, with confidence."""
    return float(recall.mean() - _CONFIDENCE * recall.std() / np.sqrt(len(recall)))


def _recall(found: Doubles, truth: Doubles, k: int) -> Doubles:
    """Share of the k nearest that was found, per query; equals count by distance, so ties are no misses."""
    k = min(k, int(np.isfinite(truth).sum(axis=1).min()))
    if k == 0:
        return np.ones(len(truth))
    limit = truth[:, k - 1 : k]
    hits = (found[:, :k] <= limit + np.abs(limit) * 1e-12).sum(axis=1)
    return np.asarray(hits / k, np.float64)
