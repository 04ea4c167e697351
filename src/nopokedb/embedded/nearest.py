"""The rows of the nearest vectors in one snapshot: per segment and tail the cheapest way that reaches the recall.

    exact   every allowed row compared: the tail, few rows, selective filters
    scan    all codes compared, the allowed rows kept inside the scan; then exact keys of the best `ef`
    graph   a walk through the neighbourhoods; then exact keys of the best `ef`

How long a list has to be for the recall that is asked for, and what lists cost, was measured when the segment was
sealed (search/curve.py); of the indexes of a segment and of comparing all its rows the cheapest way is taken. Under a
filter a list that was long enough for all rows may be too short for those that are allowed: their order among the codes
is decided by smaller differences. So the list is doubled until the k best stay what they were (all of them, or below
the usual recall as many as that asks for), and rows that no list settles are compared exactly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from nopokedb.distances import Floats, prepare_queries, rounding_slack
from nopokedb.embedded.allowed import Allowed
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.search.curve import GOAL, HIGHEST
from nopokedb.embedded.search.exact import Rows, keys_by_rows, keys_of_range, nearest
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.search.threads import usable_threads
from nopokedb.embedded.search.together import possible_nearest, worth_it
from nopokedb.embedded.snapshot import Snapshot

_GRAPH_MIN_ALLOWED = 0.5
"""A graph in which less than this share of the rows is allowed walks mostly through the others: a scan or exact."""
_CPU_COUNT = os.cpu_count() or 1


def nearest_rows(
    space: str,
    snapshot: Snapshot,
    allowed: Allowed,
    queries: Floats,
    k: int,
    ef: int | None,
    recall: float = GOAL,
    record: Recorder | None = None,
    *,
    all_cores: bool = True,
) -> list[Rows]:
    """Per query the allowed rows with the k smallest float32 keys, and those that float32 cannot tell from them. A
    given `ef` is the length of the lists, exactly; else they are as long as the recall asks for. Several queries are
    searched on all cores, unless the caller uses the others itself."""
    prepared = prepare_queries(space, queries)
    found = _Candidates(space, snapshot, allowed, prepared, k, ef, recall, record)
    threads = faiss.omp_get_max_threads()
    wanted = usable_threads(_CPU_COUNT) if all_cores and len(queries) > 1 else 1
    if threads != wanted:
        faiss.omp_set_num_threads(wanted)
    try:
        if record is not None:
            record.begin_round()
        for at, segment in enumerate(snapshot.segments):
            found.search_segment(segment)
            if record is not None:
                count = allowed.count(segment.start, segment.stop)
                record.end_part(f"segment {at}", segment.kind, segment.row_count, count)
        found.search_tail()
    finally:
        if threads != wanted:  # the setting belongs to the calling thread, which is the user's
            faiss.omp_set_num_threads(threads)
    return found.best()


class _Candidates:
    """Rows and keys found so far, per query."""

    def __init__(
        self,
        space: str,
        snapshot: Snapshot,
        allowed: Allowed,
        prepared: Floats,
        k: int,
        ef: int | None,
        recall: float,
        record: Recorder | None,
    ) -> None:
        self._space = space
        self._snapshot = snapshot
        self._vectors = snapshot.vectors
        self._norms = snapshot.rows["norm"]
        self._allowed = allowed
        self._prepared = prepared
        self._k = k
        self._ef = ef
        self._recall = recall
        self._record = record
        self._keys: list[list[Floats]] = [[] for _ in prepared]
        self._rows: list[list[Rows]] = [[] for _ in prepared]

    def best(self) -> list[Rows]:
        found = []
        for at, query in enumerate(self._prepared):
            keys, rows = _joined(self._keys[at]), _joined(self._rows[at])
            # Only a dot product's rounding depends on the lengths of the rows.
            longest = float(self._norms[rows].max()) if self._space == "ip" and len(rows) else 1.0
            found.append(nearest(keys, rows, self._k, rounding_slack(self._space, query, longest)))
        return found

    def search_tail(self) -> None:
        """Add the rows that no segment covers."""
        start, stop = self._snapshot.tail_start, self._snapshot.row_count
        if self._record is None:
            self.compare(range(len(self._prepared)), start, stop)
        elif start < stop:
            count = self._allowed.count(start, stop)
            if count:
                self._record.choose("exact", "no segment covers it yet", count)
                self.compare(range(len(self._prepared)), start, stop)
            self._record.end_part("tail", "none", stop - start, count)

    def search_segment(self, segment: Segment) -> None:
        """Add the segment's candidates of each query."""
        start, stop = segment.start, segment.stop
        count = self._allowed.count(start, stop)
        if not count:
            return
        record, k = self._record, self._k
        chosen, length, why = self._choose(segment, count)
        if chosen is None:
            if record is not None:
                record.choose("exact", why, count)
            self.compare(range(len(self._prepared)), start, stop)
            return
        bits = self._allowed.bits(start, stop)
        # A calibrated list is long enough among all rows. With rows left out, by a filter or because a graph has to
        # walk around retired ones, it shows in a longer list whether it is.
        settles = self._ef is None and bits is not None and (self._allowed.filtered or chosen.kind != "scan")
        searched = min(2 * length, count) if settles else length
        if record is not None:
            record.choose("scan" if chosen.kind == "scan" else "graph", why, searched, length)
        rows = chosen.search(self._prepared, searched, bits)
        keys = keys_by_rows(self._space, self._prepared, self._vectors, self._norms, rows)
        if record is not None:
            record.listed(chosen, searched, int((rows >= 0).sum()), doubled=False)
        beside = self._left_out(chosen)
        for at in range(len(self._prepared)):
            line, line_keys = rows[at], keys[at]
            if settles and not self._stays(line_keys, length, count):
                line, line_keys = self._longer(chosen, at, searched, count, bits)
            if len(line) and line[-1] < 0:  # missing rows come last
                there = line >= 0
                line, line_keys = line[there], line_keys[there]
            if len(line) < min(k, count):  # never fewer than there are
                self.compare([at], start, stop)
            else:
                self._add(at, line, line_keys)
                if len(beside):
                    self._add_rows(at, beside)

    def _left_out(self, segment: Segment) -> Rows:
        """The allowed rows that its index does not contain: they are compared beside it."""
        rows = segment.left_out
        if not len(rows) or (bits := self._allowed.bits(segment.start, segment.stop)) is None:
            return rows
        at = rows - segment.start
        allowed: Rows = rows[(bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1 != 0]
        return allowed

    def _add(self, at: int, rows: Rows, keys: Floats) -> None:
        self._keys[at].append(keys)
        self._rows[at].append(rows)

    def _add_rows(self, at: int, rows: Rows) -> None:
        """Add all of these rows as candidates of a query."""
        keys = keys_by_rows(self._space, self._prepared[at : at + 1], self._vectors, self._norms, rows[None, :])
        self._add(at, rows, keys[0])

    def _choose(self, segment: Segment, count: int) -> tuple[Segment | None, int, str]:
        """The index to ask for `count` allowed rows of the segment, the length of its list, and why; None: compare them
        all, which is cheaper or the only way."""
        k = self._k
        sparse = count < _GRAPH_MIN_ALLOWED * segment.row_count
        if self._ef is not None:
            if segment.scan is not None and (sparse or not segment.ready):
                segment = segment.scan
            if not segment.ready:
                return None, 0, "its index is being loaded"
            return segment, min(max(k, self._ef), count), "ef is given"
        if self._recall > HIGHEST:
            return None, 0, "a recall that only a full comparison reaches"
        best: Segment | None = None
        best_length, best_us, reached = 0, count * segment.cost.row_us, False
        indexes = [index for index in (segment, segment.scan) if index is not None and index.ready]
        if not indexes:
            return None, 0, "its index is being loaded"
        for index in indexes:
            graph = index.kind != "scan"
            if graph and sparse:
                continue
            needed = index.ef_for(k, self._recall)
            if needed is None:
                continue
            reached = True
            length = min(max(k, needed), count)
            # A graph walks through the rows that are not allowed as well.
            us = index.cost.list_us(length * (segment.row_count / count if graph else 1.0))
            if us < best_us:
                best, best_length, best_us = index, length, us
        if best is not None:
            return best, best_length, "the cheapest list that reaches the recall"
        if reached:
            return None, 0, "the allowed rows are compared faster than an index is asked"
        return None, 0, "no list of its index reaches the recall" if not sparse else "a graph among few allowed rows"

    def _stays(self, keys: Floats, length: int, count: int) -> bool:
        """Whether the k best of the whole list are in its first `length` places, but for as many as the recall may
        miss."""
        if len(keys) <= length:
            return len(keys) >= count  # all there are, or no longer list was asked for
        k = min(self._k, length)
        limit = np.partition(keys[:length], k - 1)[k - 1]
        if self._recall >= GOAL:
            return bool(keys[length:].min() >= limit)
        return int((keys[length:] < limit).sum()) <= int((1.0 - self._recall) * k + 1e-9)

    def _longer(self, index: Segment, at: int, searched: int, count: int, bits: Any) -> tuple[Rows, Floats]:
        """The first list that a list of twice its length would not change; empty where comparing all is cheaper."""
        query = self._prepared[at : at + 1]
        while 4 * searched <= count:
            length, searched = searched, 2 * searched
            rows = index.search(query, searched, bits)
            keys = keys_by_rows(self._space, query, self._vectors, self._norms, rows)
            if self._record is not None:
                self._record.listed(index, searched, int((rows >= 0).sum()), doubled=True)
            if self._stays(keys[0], length, count):
                return rows[0], keys[0]
        return np.empty(0, np.int64), np.empty(0, np.float32)

    def compare(self, queries: Sequence[int], start: int, stop: int) -> None:
        """Add all allowed rows of [start, stop) as candidates of these queries."""
        if start >= stop:
            return
        space, vectors, norms = self._space, self._vectors, self._norms
        count = self._allowed.count(start, stop)
        if not count:
            return
        if self._record is not None:
            self._record.compared(count)
        sparse = 2 * count < stop - start
        chosen: Rows | range = self._allowed.members(start, stop) if count < stop - start else range(start, stop)
        if worth_it(queries, count, self._k):
            prepared = np.ascontiguousarray(self._prepared[list(queries)])
            found = possible_nearest(space, prepared, vectors, norms, chosen, self._k)
            if found is not None:
                for at, rows in zip(queries, found, strict=True):
                    self._add_rows(at, rows)
                return
        if sparse:
            for at in queries:
                self._add_rows(at, np.asarray(chosen))
            return
        kept = None if isinstance(chosen, range) else chosen - start
        for at in queries:
            line = keys_of_range(space, self._prepared[at], vectors, norms, start, stop)
            self._add(at, np.asarray(chosen), line if kept is None else line[kept])


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
