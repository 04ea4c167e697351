"""How many candidates an index needs: measured against exact search when a segment is sealed.

The queries of a scan are rows of the segment, themselves excluded from the answers, and points between a row and
one of its neighbours. A graph looks better from its own nodes than from elsewhere (by 6 percentage points in one
measurement), so its queries are rows that it does not contain yet. All distances are computed in float64: float32
cannot tell near-duplicates apart, and would count what it cannot tell as found.

An index is accepted with the shortest candidate list whose recall reaches the promise with 99 % confidence; one
that has no such list is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.search.exact import Doubles, Floats, Rows, final_order, prepare_queries
from nopokedb.embedded.search.segments import Segment

GOAL = 0.99
"""Mean recall to reach with confidence."""
_CONFIDENCE = 2.33
"""Standard errors below the mean: the lower bound that holds in 99 of 100 cases."""
WORST_DECILE_GOAL = 0.9
"""Recall of the query that only a tenth of the queries do worse than."""
SAMPLE = 256
_LADDER = (16, 24, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600, 2048)
_SEED = 1_966
_BLOCK_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Truth:
    """Sample queries and the exact distances of their neighbours, nearest first."""

    raw: Floats
    prepared: Floats
    selves: npt.NDArray[np.int64]
    """The row that a query is a copy of, -1 if none: never counted as an answer."""
    distances: Doubles
    """Shape (queries, up to 100)."""


def truth_of_rows(space: str, vectors: Floats, live: Rows) -> Truth:
    """Queries sampled from these live rows, and points between them."""
    random = np.random.default_rng(_SEED)
    selves = random.choice(live, min(SAMPLE, len(live)), replace=False).astype(np.int64)
    raw = vectors[selves].astype(np.float32)
    half = len(selves) // 2
    _, near = _nearest(space, raw[half:], vectors, live, min(8, len(live)))
    raw[half:] = (raw[half:] + vectors[near[:, -1]]) / 2
    if space == "cosine":  # opposite vectors meet in zero
        lengths = np.einsum("ij,ij->i", raw, raw, dtype=np.float64)
        raw[lengths < 1e-28] = vectors[selves[lengths < 1e-28]]
    selves[half:] = -1
    return _truth(space, raw, selves, vectors, live)


def truth_of_held_out(space: str, vectors: Floats, live: Rows, held_out: Rows) -> Truth:
    """The held-out rows as queries, the other live rows as their neighbours."""
    others = np.setdiff1d(live, held_out)
    return _truth(space, vectors[held_out].astype(np.float32), np.full(len(held_out), -1), vectors, others)


def _truth(space: str, raw: Floats, selves: npt.NDArray[np.int64], vectors: Floats, live: Rows) -> Truth:
    distances, rows = _nearest(space, raw, vectors, live, min(101, len(live)))
    distances[rows == selves[:, None]] = np.inf
    distances.sort(axis=1)
    return Truth(raw, prepare_queries(space, raw), selves, distances[:, :100])


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
            bound = recall.mean() - _CONFIDENCE * recall.std() / np.sqrt(len(recall))
            if bound >= GOAL and np.quantile(recall, 0.1) >= WORST_DECILE_GOAL:
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


def _recall(found: Doubles, truth: Doubles, k: int) -> Doubles:
    """Share of the k nearest that was found, per query; equals count by distance, so ties are no misses."""
    k = min(k, int(np.isfinite(truth).sum(axis=1).min()))
    if k == 0:
        return np.ones(len(truth))
    limit = truth[:, k - 1 : k]
    hits = (found[:, :k] <= limit + np.abs(limit) * 1e-12).sum(axis=1)
    return np.asarray(hits / k, np.float64)
