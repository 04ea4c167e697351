"""How many candidates an index needs: measured against exact search when a segment is sealed.

Half of the queries are rows of the segment (themselves excluded from the answers), half lie between a row and one
of its neighbours: a graph looks better from its own nodes than from elsewhere. An index is accepted with the
shortest candidate list that reaches the goal; one that does not is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.search.exact import Doubles, Floats, Rows, keys_by_rows, prepare_queries
from nopokedb.embedded.search.segments import Segment

GOAL = 0.9935
"""Mean recall to reach on the sample. The promise is 0.99: the rest is for the sample's own error (2,000
neighbours have a standard error near 0.0016) and for queries less like the rows."""
WORST_DECILE_GOAL = 0.9
"""Recall of the query that only a tenth of the queries do worse than."""
_SAMPLE = 200
_LADDER = (
    16,
    24,
    32,
    40,
    50,
    64,
    80,
    100,
    128,
    160,
    200,
    256,
    320,
    400,
    512,
    640,
    800,
    1024,
    1280,
    1600,
    2048,
    2560,
)
_SEED = 1_966


@dataclass(frozen=True, slots=True)
class Truth:
    """Sample queries and the exact keys of their 1st to 100th neighbours among live rows of a range."""

    raw: Floats
    prepared: Floats
    selves: npt.NDArray[np.int64]
    """The row that a query is a copy of, -1 if none: never counted as an answer."""
    keys: Floats


def find_truth(space: str, vectors: Floats, norms: Doubles, live: Rows, start: int) -> Truth:
    """Sample the live rows (absolute numbers, from `start` on) and search them exactly."""
    random = np.random.default_rng(_SEED)
    chosen = random.choice(live, min(_SAMPLE, len(live)), replace=False)
    half = len(chosen) // 2
    raw = vectors[chosen].astype(np.float32)
    selves = chosen.astype(np.int64)
    depth = min(101, len(live))
    keys, rows = _exact(space, raw, vectors, norms, live, min(8, len(live)))
    # The second half moves to a point between each row and its last found neighbour.
    raw[half:] = (raw[half:] + vectors[rows[half:, -1]]) / 2
    if space == "cosine":
        degenerate = np.einsum("ij,ij->i", raw, raw, dtype=np.float64) < 1e-28
        raw[degenerate] = vectors[chosen[degenerate]]
    selves[half:] = -1
    keys, rows = _exact(space, raw, vectors, norms, live, depth)
    keys[rows == selves[:, None]] = np.inf
    keys.sort(axis=1)
    return Truth(raw, prepare_queries(space, raw), selves, keys)


def _exact(space: str, raw: Floats, vectors: Floats, norms: Doubles, live: Rows, depth: int) -> tuple[Floats, Rows]:
    """Keys and rows of the nearest `depth` live rows of each query."""
    queries = prepare_queries(space, raw)
    best_keys = np.full((len(raw), depth), np.inf, np.float32)
    best_rows = np.full((len(raw), depth), -1, np.int64)
    for at in range(0, len(live), 4096):
        rows = live[at : at + 4096]
        block = vectors[rows]
        if space == "l2":
            centre = block.mean(axis=0, dtype=np.float64).astype(np.float32)
            moved, moved_queries = block - centre, queries - centre
            keys = (
                np.einsum("ij,ij->i", moved, moved)
                - 2.0 * (moved_queries @ moved.T)
                + np.einsum("ij,ij->i", moved_queries, moved_queries)[:, None]
            )
        else:
            keys = -(queries @ block.T)
            if space == "cosine":
                keys /= norms[rows]
        joined = np.concatenate([best_keys, keys.astype(np.float32)], axis=1)
        joined_rows = np.concatenate([best_rows, np.broadcast_to(rows, (len(raw), len(rows)))], axis=1)
        order = np.argpartition(joined, depth - 1, axis=1)[:, :depth]
        best_keys = np.take_along_axis(joined, order, axis=1)
        best_rows = np.take_along_axis(joined_rows, order, axis=1)
    # The block product rounds; the kernel that ranks candidates decides the order.
    best_keys = keys_by_rows(space, queries, vectors, norms, np.ascontiguousarray(best_rows))
    order = np.argsort(best_keys, axis=1, kind="stable")
    return np.take_along_axis(best_keys, order, axis=1), np.take_along_axis(best_rows, order, axis=1)


def calibrate(
    segment: Segment,
    truth: Truth,
    space: str,
    vectors: Floats,
    norms: Doubles,
    bits: npt.NDArray[np.uint8] | None,
) -> bool:
    """Set the segment's `ef_at_10`, `ef_at_100` and `recall`. False: it cannot reach the goal and is refused."""
    reached: dict[int, int] = {}
    longest = min(_LADDER[-1], max(64, segment.row_count // 4))
    for ef in (*(step for step in _LADDER if step < longest), longest):
        rows = segment.search(truth.prepared, ef + 1, bits)
        keys = keys_by_rows(space, truth.prepared, vectors, norms, rows)
        keys[rows == truth.selves[:, None]] = np.inf
        keys.sort(axis=1)
        for k in (10, 100):
            if k in reached or ef < k:
                continue
            recall = _recall(keys, truth.keys, k)
            if recall.mean() >= GOAL and np.quantile(recall, 0.1) >= WORST_DECILE_GOAL:
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


def _recall(keys: Floats, truth: Floats, k: int) -> npt.NDArray[np.float64]:
    """Share of the k nearest that was found, per query; equals count by distance, so ties are no misses."""
    k = min(k, int(np.isfinite(truth).sum(axis=1).min()))
    if k == 0:
        return np.ones(len(truth))
    limit = truth[:, k - 1 : k]
    hits = (keys[:, :k] <= limit + np.abs(limit) * 1e-6 + 1e-7).sum(axis=1)
    found: npt.NDArray[np.float64] = hits / k
    return found
