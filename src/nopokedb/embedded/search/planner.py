"""Which index of a segment answers, with how long a list: the cheapest that was measured to reach the recall.

How long a list has to be and what lists cost was measured when the segment was sealed (curve.py, cost.py). Comparing
all allowed rows is a choice like the others: among few rows the cheapest, and where no index is ready the only one.
"""

from __future__ import annotations

from dataclasses import dataclass

from nopokedb.embedded.search.curve import HIGHEST
from nopokedb.embedded.search.segments import Segment

_GRAPH_MIN_ALLOWED = 0.5
"""A graph in which less than this share of the rows is allowed walks mostly through the others: a scan or exact."""
_KEPT = 256


@dataclass(frozen=True, slots=True)
class Choice:
    """How the allowed rows of a segment are searched."""

    index: Segment | None
    """None: all of them are compared."""
    length: int
    """Of the candidate list."""
    why: str


def choose(segment: Segment, count: int, k: int, ef: int | None, recall: float) -> Choice:
    """The index to ask for `count` allowed rows of the segment: for a list of `ef`, or else of the recall."""
    key = (count, k, ef, recall, segment.scan is None)
    found: Choice | None = segment.choices.get(key)
    if found is None:
        # What is still being loaded will be a choice later.
        complete = segment.ready and (segment.scan is None or segment.scan.ready)
        found = _by_length(segment, count, k, ef) if ef is not None else _by_recall(segment, count, k, recall)
        if complete and len(segment.choices) < _KEPT:
            segment.choices[key] = found
    return found


def _sparse(segment: Segment, count: int) -> bool:
    return count < _GRAPH_MIN_ALLOWED * segment.row_count


def _by_length(segment: Segment, count: int, k: int, ef: int) -> Choice:
    if segment.scan is not None and (_sparse(segment, count) or not segment.ready):
        segment = segment.scan
    if not segment.ready:
        return Choice(None, 0, "its index is being loaded")
    return Choice(segment, min(max(k, ef), count), "ef is given")


def _by_recall(segment: Segment, count: int, k: int, recall: float) -> Choice:
    if recall > HIGHEST:
        return Choice(None, 0, "a recall that only a full comparison reaches")
    indexes = [index for index in (segment, segment.scan) if index is not None and index.ready]
    if not indexes:
        return Choice(None, 0, "its index is being loaded")
    sparse = _sparse(segment, count)
    best: Segment | None = None
    best_length, best_us, reached = 0, count * segment.cost.row_us, False
    for index in indexes:
        graph = index.kind != "scan"
        if graph and sparse:
            continue
        needed = index.ef_for(k, recall)
        if needed is None:
            continue
        reached = True
        length = min(max(k, needed), count)
        # A graph walks through the rows that are not allowed as well.
        us = index.cost.list_us(length * (segment.row_count / count if graph else 1.0))
        if us < best_us:
            best, best_length, best_us = index, length, us
    if best is not None:
        return Choice(best, best_length, "the cheapest list that reaches the recall")
    if reached:
        return Choice(None, 0, "the allowed rows are compared faster than an index is asked")
    return Choice(
        None, 0, "no list of its index reaches the recall" if not sparse else "a graph among few allowed rows"
    )
