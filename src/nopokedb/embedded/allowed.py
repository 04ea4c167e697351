"""Which rows may be an answer: the live ones, or those whose live label also passes a filter.

A label never changes its meaning, so neither does what a test says of it. The bitmap of a test over the labels [0, n)
stays right for ever: it is computed once, kept, and extended by the labels that came since. A filter combines the
bitmaps of its tests with the live set of a snapshot, which costs label count / 8 bytes of memory traffic.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.recorder import Recorder, count_live
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.sorted_numbers import NumberCache
from nopokedb.embedded.storage.bitmap import Bytes
from nopokedb.embedded.storage.metadata import MetadataReader
from nopokedb.filters import And, Filter, Not, Or, Test, each_test, filter_key

_KEPT_STATES = 128
"""Filters of which the rows of one snapshot are kept."""
_COSTLY_LABELS = 16_384
"""A test looked up among so many records counts as a reason to index its field."""

Labels: TypeAlias = npt.NDArray[np.int64]


class Allowed(Protocol):
    """Rows that may be an answer, by range. Starts are multiples of 8."""

    filtered: bool

    def count(self, start: int, stop: int) -> int: ...
    def bits(self, start: int, stop: int) -> Bytes | None:
        """As a bitmap, the same object each time; None if all rows of the range are allowed."""
        ...

    def members(self, start: int, stop: int) -> Labels: ...


class LiveRows:
    """All live rows of a snapshot."""

    filtered = False

    def __init__(self, snapshot: Snapshot) -> None:
        self.count = snapshot.live_count
        self.bits = snapshot.live_bits
        self.members = snapshot.live_rows.members


class FilteredRows:
    """The rows of the live labels that pass a filter, in one snapshot."""

    filtered = True

    def __init__(self, labels: Bytes, rows: Bytes, label_count: int, row_count: int) -> None:
        self.label_bits = labels
        """Bitmap of the labels [0, label_count)."""
        self.label_count = label_count
        self._rows = rows
        self._row_count = row_count
        self.total = int(np.bitwise_count(labels).sum())
        self._parts: dict[tuple[int, int], tuple[Bytes | None, int]] = {}
        self._members: dict[tuple[int, int], Labels] = {}
        self._labels: Labels | None = None
        self.size_bytes = labels.nbytes + rows.nbytes
        """Kept up to date: it is asked for after every new filter."""

    def _part(self, start: int, stop: int) -> tuple[Bytes | None, int]:
        part = self._parts.get((start, stop))
        if part is None:
            bits = self._rows[start // 8 : -(-stop // 8)]
            if (stop - start) % 8 and len(bits):
                bits = bits.copy()
                bits[-1] &= (1 << ((stop - start) % 8)) - 1
            bits = np.ascontiguousarray(bits)
            count = int(np.bitwise_count(bits).sum())
            part = self._parts[start, stop] = (None if count == stop - start else bits, count)
        return part

    def count(self, start: int, stop: int) -> int:
        return self._part(start, stop)[1]

    def bits(self, start: int, stop: int) -> Bytes | None:
        return self._part(start, stop)[0]

    def members(self, start: int, stop: int) -> Labels:
        found = self._members.get((start, stop))
        if found is None:
            bits, _ = self._part(start, stop)
            if bits is None:
                return np.arange(start, stop)
            flags = np.unpackbits(bits, bitorder="little", count=stop - start)
            found = self._members[start, stop] = np.flatnonzero(flags) + start
            self.size_bytes += found.nbytes
        return found

    def labels(self) -> Labels:
        """The labels that pass, ascending."""
        if self._labels is None:
            self._labels = np.flatnonzero(np.unpackbits(self.label_bits, bitorder="little", count=self.label_count))
            self.size_bytes += self._labels.nbytes
        return self._labels

    def passes(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Which of these labels pass."""
        passed: npt.NDArray[np.bool_] = (self.label_bits[labels >> 3] >> (labels & 7).astype(np.uint8)) & 1 != 0
        return passed


class FilterCache:
    """What tests say of labels, and filters of snapshots. Bounded by memory, least recently used goes first; any number
    of threads may use it."""

    def __init__(self, limit_bytes: int, on_search: Callable[[tuple[str, ...]], object] = lambda path: None) -> None:
        self._limit = limit_bytes
        self._on_search = on_search
        """Told the path of a test for which many records were looked through."""
        self._lock = threading.Lock()
        self._tests: OrderedDict[bytes, tuple[Bytes, int]] = OrderedDict()
        self._tests_bytes = 0
        self._states: OrderedDict[Any, FilteredRows] = OrderedDict()
        self._numbers = NumberCache()
        self._same_rows = (0, True)
        """Up to which label every label has the row of the same number, as without updates of metadata alone."""

    @property
    def size_bytes(self) -> int:
        with self._lock:
            states = sum(state.size_bytes for state in self._states.values())
            return states + self._tests_bytes + self._numbers.size_bytes

    def rows(
        self, node: Filter, snapshot: Snapshot, reader: MetadataReader, record: Recorder | None = None
    ) -> FilteredRows:
        """The rows that the filter allows in this snapshot."""
        key = (snapshot.lsn, snapshot.label_count, filter_key(node))
        with self._lock:
            state = self._states.get(key)
            if state is not None:
                self._states.move_to_end(key)
        if state is not None:
            if record is not None:
                for test in each_test(node):
                    record.test(test, "cache", self._known_matches(test, snapshot))
                record.filtered(state.total, snapshot.live.count, cached=True)
            return state
        count = snapshot.label_count
        labels = self._combined(node, snapshot, reader, record) & snapshot.live.slice(0, count)
        state = FilteredRows(labels, self._row_bits(labels, snapshot), count, snapshot.row_count)
        if record is not None:
            record.filtered(state.total, snapshot.live.count, cached=False)
        with self._lock:
            self._states[key] = state
            while len(self._states) > _KEPT_STATES:
                self._states.popitem(last=False)
        self._shrink()
        return state

    def _combined(self, node: Filter, snapshot: Snapshot, reader: MetadataReader, record: Recorder | None) -> Bytes:
        """The bitmap of a filter over the labels of the snapshot; bits behind the end mean nothing."""
        count = snapshot.label_count
        match node:
            case Test():
                bits, source = self._test_bits(node, count, reader)
                if record is not None:
                    record.test(node, source, count_live(bits, snapshot))
                return bits
            case Not(part):
                return ~self._combined(part, snapshot, reader, record)
            case And(parts) | Or(parts):
                combine = np.bitwise_and if isinstance(node, And) else np.bitwise_or
                start = np.uint8(0xFF if isinstance(node, And) else 0)
                out = np.full(-(-count // 8), start, np.uint8)
                for part in parts:
                    combine(out, self._combined(part, snapshot, reader, record), out=out)
                return out
        raise AssertionError(node)

    def _known_matches(self, test: Test, snapshot: Snapshot) -> int | None:
        """How many live records pass a test that was looked up before; None if that was not kept."""
        with self._lock:
            bits, known = self._tests.get(test.key, (np.empty(0, np.uint8), 0))
        count = snapshot.label_count
        return count_live(bits[: -(-count // 8)], snapshot) if known >= count else None

    def _test_bits(self, test: Test, count: int, reader: MetadataReader) -> tuple[Bytes, str]:
        """The bitmap of a test over the labels [0, count), and where it is from."""
        key, size = test.key, -(-count // 8)
        with self._lock:
            bits, known = self._tests.get(key, (np.empty(0, np.uint8), 0))
            if known:
                self._tests.move_to_end(key)
        if known >= count:
            return bits[:size], "cache"
        labels, source = self._numbers.matching(test, known, count, reader)
        if source == "scan" and test.path is not None and count - known >= _COSTLY_LABELS:
            self._on_search(test.path)
        base = known - known % 8  # the last byte may be half full
        flags = np.zeros(count - base, np.bool_)
        if known > base:
            flags[: known - base] = np.unpackbits(bits[base // 8 : base // 8 + 1], bitorder="little")[: known - base]
        flags[labels - base] = True
        bits = np.concatenate([bits[: base // 8], np.packbits(flags, bitorder="little")])
        with self._lock:
            before, newest = self._tests.get(key, (bits[:0], 0))
            if newest < count:  # another thread may know more by now
                self._tests[key] = (bits, count)
                self._tests_bytes += bits.nbytes - before.nbytes
        return bits, ("cache + " if known else "") + source

    def _row_bits(self, labels: Bytes, snapshot: Snapshot) -> Bytes:
        """The rows of these live labels as a bitmap."""
        count, rows = snapshot.label_count, snapshot.row_count
        column = snapshot.labels.view(count)["row"] if count else np.empty(0, np.uint32)
        known, same = self._same_rows
        if same and known < count:
            same = bool(np.array_equal(column[known:], np.arange(known, count, dtype=np.uint32)))
            self._same_rows = (count, same)
        if same and count == rows:
            return labels
        flags = np.zeros(rows, np.bool_)
        flags[column[np.flatnonzero(np.unpackbits(labels, bitorder="little", count=count))]] = True
        return np.packbits(flags, bitorder="little")

    def _shrink(self) -> None:
        while self.size_bytes > self._limit:
            with self._lock:
                if len(self._states) > 1:
                    self._states.popitem(last=False)
                elif len(self._tests) > 1:
                    self._tests_bytes -= self._tests.popitem(last=False)[1][0].nbytes
                elif not self._numbers.drop_one():
                    return
