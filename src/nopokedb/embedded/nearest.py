"""The rows of the nearest vectors in one snapshot: per segment and tail the cheapest way that reaches the recall.

    exact   every allowed row compared: the tail, few rows, selective filters
    scan    all codes compared, the allowed rows kept inside the scan; then the vectors of the best `ef`
    graph   a walk through the neighbourhoods, ranked by the vectors it meets; then the best of the list

Of the indexes of a segment and of comparing all its rows the cheapest way is taken (search/planner.py). Under a
filter a list that was long enough for all rows may be too short for those that are allowed: their order among the codes
is decided by smaller differences. So the list is doubled until the k best stay what they were (all of them, or below
the usual recall as many as that asks for), and rows that no list settles are compared exactly.

What comes out are not the k best but those that may be among them: who asks puts them in order in float64. So float32
keys are only computed to leave rows out, which does not pay where there are few.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np

from nopokedb.distances import Doubles, Floats, prepare_queries, rounding_slack
from nopokedb.embedded.allowed import Allowed
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.search.curve import GOAL
from nopokedb.embedded.search.exact import Rows, keys_by_rows, keys_of_range, nearest
from nopokedb.embedded.search.planner import choose
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.search.threads import usable_threads
from nopokedb.embedded.search.together import possible_nearest, worth_it
from nopokedb.embedded.snapshot import Snapshot

_CPU_COUNT = os.cpu_count() or 1
_FEW_NUMBERS = 10_240
"""Candidates of one query that have no more numbers than this, all together, are all put in order in float64: that
takes 4 ns for a number, and leaving rows out before takes 30 us and 1 ns for a number."""


class Nearest(NamedTuple):
    """The rows that may be among the k nearest, query after query."""

    rows: Rows
    counts: list[int]
    """How many rows each query has."""


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
) -> Nearest:
    """Per query the allowed rows with the k smallest float32 keys, those that float32 cannot tell from them, and some
    more where that is cheaper. A given `ef` is the length of the lists, exactly; else they are as long as the recall
    asks for. Several queries are searched on all cores, unless the caller uses the others itself."""
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
        return found.best()
    finally:
        if threads != wanted:  # the setting belongs to the calling thread, which is the user's
            faiss.omp_set_num_threads(threads)


class _Candidates:
    """Rows found so far: lists that all queries have, and rows that only one has."""

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
        self._allowed = allowed
        self._prepared = prepared
        self._k = k
        self._ef = ef
        self._recall = recall
        self._record = record
        self._single = len(prepared) == 1
        self._lists: list[Rows] = []
        """Rows of shape (n, m), a line for each query."""
        self._own: dict[int, list[tuple[Floats, Rows]]] = {}
        """By query, keys and rows that only it has."""

    @property
    def _norms(self) -> Doubles:
        norms: Doubles = self._snapshot.rows["norm"]
        return norms

    # --- parts ---------------------------------------------------------------------------------------------

    def search_tail(self) -> None:
        """Add the rows that no segment covers."""
        start, stop = self._snapshot.tail_start, self._snapshot.row_count
        if start == stop:
            return
        count = self._allowed.count(start, stop)
        if count and self._record is not None:
            self._record.choose("exact", "no segment covers it yet", count)
        self.compare(range(len(self._prepared)), start, stop)
        if self._record is not None:
            self._record.end_part("tail", "none", stop - start, count)

    def search_segment(self, segment: Segment) -> None:
        """Add the segment's candidates of each query."""
        start, stop = segment.start, segment.stop
        count = self._allowed.count(start, stop)
        if not count:
            return
        record, k = self._record, self._k
        choice = choose(segment, count, k, self._ef, self._recall)
        chosen, length = choice.index, choice.length
        if chosen is None:
            if record is not None:
                record.choose("exact", choice.why, count)
            self.compare(range(len(self._prepared)), start, stop)
            return
        bits = self._allowed.bits(start, stop)
        # A calibrated list is long enough among all rows. With rows left out, by a filter or because a graph has to
        # walk around retired ones, it shows in a longer list whether it is.
        settles = self._ef is None and bits is not None and (self._allowed.filtered or chosen.kind != "scan")
        searched = min(2 * length, count) if settles else length
        if record is not None:
            record.choose("scan" if chosen.kind == "scan" else "graph", choice.why, searched, length)
        if self._single and bits is None:
            found = chosen.best(self._prepared, length, k, self._vectors)
            if found is not None:
                if record is not None:
                    record.listed(chosen, length, found)
                self._lists.append(found[None, :])
                return
        rows = chosen.search(self._prepared, searched, bits, None if settles else k)
        if record is not None:
            record.listed(chosen, searched, rows)
        beside = self._left_out(chosen)
        if not settles and rows.shape[1] >= min(k, count) and rows[:, -1].min() >= 0:  # missing rows come last
            self._lists.append(rows)
            if len(beside):
                self._lists.append(np.repeat(beside[None, :], len(rows), axis=0))
            return
        keys = self._keys_of(self._prepared, rows)
        for at in range(len(self._prepared)):
            line, line_keys = rows[at], keys[at]
            if settles and not self._stays(line_keys, length, count):
                line, line_keys = self._longer(chosen, at, searched, count, bits)
            if len(line) and line[-1] < 0:
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
            keys = self._keys_of(query, rows)
            if self._record is not None:
                self._record.listed(index, searched, rows, doubled=True)
            if self._stays(keys[0], length, count):
                return rows[0], keys[0]
        return np.empty(0, np.int64), np.empty(0, np.float32)

    def compare(self, queries: Sequence[int], start: int, stop: int) -> None:
        """Add all allowed rows of [start, stop) as candidates of these queries."""
        count = self._allowed.count(start, stop)
        if not count:
            return
        if self._record is not None:
            self._record.compared(count)
        space, vectors = self._space, self._vectors
        whole = count == stop - start
        chosen = np.arange(start, stop) if whole else self._allowed.members(start, stop)
        if self._single and (2 * count < stop - start or count * vectors.shape[1] <= _FEW_NUMBERS):
            self._lists.append(chosen[None, :])
            return
        norms = self._norms
        if worth_it(queries, count, self._k):
            prepared = np.ascontiguousarray(self._prepared[list(queries)])
            rows: Rows | range = range(start, stop) if whole else chosen
            found = possible_nearest(space, prepared, vectors, norms, rows, self._k)
            if found is not None:
                for at, possible in zip(queries, found, strict=True):
                    self._add_rows(at, possible)
                return
        if 2 * count < stop - start:
            for at in queries:
                self._add_rows(at, chosen)
            return
        for at in queries:
            keys = keys_of_range(space, self._prepared[at], vectors, norms, start, stop)
            keys = keys if whole else keys[chosen - start]
            near = nearest(keys, self._k, self._slack(at, chosen))
            if self._single:
                self._lists.append(chosen[near][None, :])
            else:
                self._add(at, chosen[near], keys[near])

    # --- what was found ------------------------------------------------------------------------------------

    def _keys_of(self, prepared: Floats, rows: Rows) -> Floats:
        return keys_by_rows(self._space, prepared, self._vectors, self._norms, rows)

    def _add(self, at: int, rows: Rows, keys: Floats) -> None:
        self._own.setdefault(at, []).append((keys, rows))

    def _add_rows(self, at: int, rows: Rows) -> None:
        """Add all of these rows as candidates of a query."""
        self._add(at, rows, self._keys_of(self._prepared[at : at + 1], rows[None, :])[0])

    def best(self) -> Nearest:
        """The rows that may be among the k nearest."""
        lists = self._lists or [np.empty((len(self._prepared), 0), np.int64)]
        rows = lists[0] if len(lists) == 1 else np.concatenate(lists, axis=1)
        count, width = rows.shape
        if not self._own:
            if width <= 2 * self._k or width * self._vectors.shape[1] <= _FEW_NUMBERS:
                return Nearest(rows.reshape(-1), [width] * count)
            return self._best_of_lists(rows)
        keys = self._keys_of(self._prepared, rows)
        lines = []
        for at in range(count):
            own = self._own.get(at, [])
            line = np.concatenate([rows[at], *(part for _, part in own)])
            line_keys = np.concatenate([keys[at], *(part for part, _ in own)])
            lines.append(line[nearest(line_keys, self._k, self._slack(at, line))])
        return Nearest(np.concatenate(lines), [len(line) for line in lines])

    def _best_of_lists(self, rows: Rows) -> Nearest:
        keys = self._keys_of(self._prepared, rows)
        if self._single:
            line = rows[0][nearest(keys[0], self._k, self._slack(0, rows[0]))]
            return Nearest(line, [len(line)])
        limits = np.partition(keys, self._k - 1, axis=1)[:, self._k - 1 : self._k].astype(np.float64)
        if self._space == "ip":
            slack = np.array([[self._slack(at, line)] for at, line in enumerate(rows)])
        else:  # the same for all
            slack = np.array([[self._slack(0, rows[0])]])
        kept = ~(keys > limits + (np.abs(limits) * 1e-6 + slack))  # a damaged row's key may be no number
        return Nearest(rows[kept], kept.sum(axis=1).tolist())

    def _slack(self, at: int, rows: Rows) -> float:
        # Only a dot product's rounding depends on the lengths of the rows.
        longest = float(self._norms[rows].max(initial=0.0)) if self._space == "ip" else 1.0
        return rounding_slack(self._space, self._prepared[at], longest)
