"""An immutable index over the rows [start, stop): what all kinds share, how one is built, stored and loaded.

Kinds are modules with the names of `index.Kind`, listed in `_KINDS`; a further kind is a further line there.

File layout, little-endian: 8s magic "NPKSEG01", u32 version 1, u32 dim, u32 order, u32 row count, f32[dim] centre; then
if order is 1: u32[row count], the row (from `start`) of each index position; if it is 2: u32 number, u32[number] rows
that the index leaves out, ascending; then what the kind dumps. The manifest has the file's size and CRC-32C, and both
are compared before a byte of it reaches native code; a file that does not fit is built anew, never loaded. What a kind
cannot load from memory stands in a second file beside it, which is treated alike.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.distances import Floats, prepare_queries
from nopokedb.embedded.search import hnsw, scan, symphony
from nopokedb.embedded.search.beside import Beside
from nopokedb.embedded.search.curve import GOAL, HIGHEST, Curve, assumed_cost, length_for, shortest
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.search.index import Bits, Index, Kind
from nopokedb.embedded.search.options import BuildOptions

_HEAD = struct.Struct("<8sIIII")
_MAGIC = b"NPKSEG01"
_U32 = struct.Struct("<I")
_COMPLETE, _ORDERED, _LEFT_OUT = 0, 1, 2
_KEPT_TARGETS = 64

_KINDS: dict[str, Kind] = {"scan": scan, "hnsw": hnsw, "symphony": symphony}


class Segment:
    """One index. Searching is thread-safe; once it is published nothing is added to it."""

    def __init__(
        self, kind: str, space: str, start: int, stop: int, index: Index | None, centre: Floats, order: Rows | None
    ) -> None:
        self.kind = kind
        self.start = start
        self.stop = stop
        self._space = space
        self._index = index
        """None until it is loaded."""
        self._centre = centre
        self._order = order
        self._numbers: Rows | None = None
        self._number()
        self._moves_queries = space in _KINDS[kind].MOVED_QUERIES
        self._permuted: tuple[Bits, Bits] | None = None
        self._beside: Beside | None = None
        self.left_out: Rows = np.empty(0, np.int64)
        """Rows that the index cannot take: compared exactly beside it."""
        self.scan: Segment | None = None
        """A scan of the same rows that a graph keeps for filters, which it serves badly."""
        self.size_bytes = 0
        self.recall = 0.0
        """Mean recall@10 of the list that reaches the goal, when it was sealed."""
        self.curves: dict[int, Curve] = {}
        self.cost = assumed_cost(stop - start if self.nested_lists else 0, len(centre))
        self.damage = ""
        """Why it could not be loaded, if so."""
        self._lengths: dict[float, tuple[int | None, int | None]] = {GOAL: (None, None)}
        """For 10 and for 100 results, by target recall."""
        self.choices: dict[Any, Any] = {}
        """What the planner chose for questions like those before, once all its indexes were loaded."""

    @property
    def row_count(self) -> int:
        return self.stop - self.start

    @property
    def ready(self) -> bool:
        """Whether it can be searched: its index is loaded."""
        return self._index is not None

    def fill(self, loaded: Segment) -> None:
        """Become ready, by what was loaded for it."""
        self._centre, self._order, self.left_out = loaded._centre, loaded._order, loaded.left_out
        self._number()
        self._index = loaded._index  # last: from here on others search it

    def keeps(self, other: Segment) -> bool:
        """Whether this graph keeps the other index beside itself: a scan of the same rows."""
        return self.kind != "scan" and other.kind == "scan" and (self.start, self.stop) == (other.start, other.stop)

    def set_curves(
        self, at_10: Curve, at_100: Curve, recall: float, known: tuple[int | None, int | None] = (None, None)
    ) -> None:
        """What calibration found. An index from before there were curves has nothing but the lengths for GOAL that are
        `known`."""
        self.curves = {10: at_10, 100: at_100}
        self._lengths = {GOAL: known}
        self._lengths[GOAL] = self._lengths_for(GOAL)
        self.recall = recall

    @property
    def ef_at_10(self) -> int:
        """Candidates that reach GOAL at 10 results."""
        return self._lengths[GOAL][0] or 0

    @property
    def ef_at_100(self) -> int:
        return self._lengths[GOAL][1] or 0

    def ef_for(self, k: int, target: float = GOAL) -> int | None:
        """Candidates that reach the recall for k results by the curves; None: no list was seen to reach it."""
        lengths = self._lengths.get(target)
        if lengths is None:
            lengths = self._lengths_for(target)
            if len(self._lengths) < _KEPT_TARGETS:
                self._lengths[target] = lengths
        return length_for(k, *lengths)

    def _lengths_for(self, target: float) -> tuple[int | None, int | None]:
        if not self.curves.get(10):
            return self._lengths[GOAL] if target <= GOAL else (None, None)
        at_10, at_100 = (shortest(self.curves[k], target) for k in (10, 100))
        if at_10 is not None and at_100 is None and target <= HIGHEST:
            # A list that cannot reach 100 within what was measured grows with k from what 10 needed, exact search
            # being near.
            last = self.curves[100][-1][0] if self.curves[100] else 0
            at_100 = max(last, 10 * at_10)
        return at_10, at_100

    @property
    def nested_lists(self) -> bool:
        """Whether a shorter list is the beginning of a longer one."""
        return _KINDS[self.kind].NESTED_LISTS

    def search(self, queries: Floats, ef: int, bits: Bits | None = None, k: int | None = None) -> Rows:
        """Rows of shape (n, ef), best first by the index' own estimate, -1 where it found fewer.

        `queries` are prepared (`prepare_queries`). `bits` has one bit for each row from `start` on; rows whose
        bit is 0 are not returned. With `k` the lists may be shorter: they still have the k best of what was found.
        """
        assert self._index is not None
        if self._moves_queries:
            queries = queries - self._centre
        rows = self._index.search(queries, ef, None if bits is None else self._by_position(bits), k)
        if self._numbers is not None:
            return self._numbers[rows]
        if self.start:
            np.add(rows, self.start, out=rows, where=rows >= 0)
        return rows

    def best(self, query: Floats, ef: int, k: int, vectors: Floats) -> Rows | None:
        """Of one prepared query (1, dim) the rows that may be its k nearest: of a list of `ef`, and of those that the
        index leaves out. None where the index cannot tell. `vectors` are those of all rows."""
        assert self._index is not None
        if self._moves_queries:
            query = query - self._centre
        found = self._index.best(query, ef, k)
        if found is None:
            return None
        positions, limit = found
        rows = positions + self.start if self._numbers is None else self._numbers[positions]
        if not len(self.left_out):
            return rows
        beside = self._beside
        if beside is None:
            prepared = prepare_queries(self._space, vectors[self.left_out])
            beside = self._beside = Beside(self._space, self.left_out, prepared - self._centre)
        return np.concatenate([rows, beside.within(query[0], limit)])

    def _number(self) -> None:
        """The row of each position, and at the end, where -1 leads, -1."""
        if self._order is not None:
            self._numbers = np.append(self._order + self.start, -1)

    def bytes_for(self, ef: int) -> int:
        """Estimate of what a search reads of the index."""
        return 0 if self._index is None else self._index.bytes_for(ef)

    def _by_position(self, bits: Bits) -> Bits:
        """The bitmap of rows as one of index positions; the last one is kept, as queries repeat it."""
        if self._order is None:
            return bits
        kept = self._permuted
        if kept is None or kept[0] is not bits:
            flags = np.unpackbits(bits, bitorder="little", count=self.row_count)
            kept = self._permuted = (bits, np.packbits(flags[self._order], bitorder="little"))
        return kept[1]

    def add_held_out(self, held_out: Rows, vectors: Floats) -> None:
        """Complete an index that was built without some rows, before it is published: they are added, or left out of
        it for good where it does not grow."""
        assert self._order is not None and self._index is not None
        if self._index.grows:
            self._index.add(np.ascontiguousarray(prepare_queries(self._space, vectors[held_out]) - self._centre))
            self._order = np.concatenate([self._order, held_out])
            self._number()
        else:
            self.left_out = held_out + self.start

    def dump(self, beside: Path) -> bytes:
        """The segment's file. What does not go through memory is written to `beside`, durably."""
        assert self._index is not None and self._index.count + len(self.left_out) == self.row_count
        order, listed = _COMPLETE, b""
        if len(self.left_out):
            order = _LEFT_OUT
            listed = _U32.pack(len(self.left_out)) + (self.left_out - self.start).astype("<u4").tobytes()
        elif self._order is not None:
            order, listed = _ORDERED, self._order.astype("<u4").tobytes()
        head = _HEAD.pack(_MAGIC, 1, len(self._centre), order, self.row_count)
        data = head + self._centre.astype("<f4").tobytes() + listed + self._index.dump(beside)
        self.size_bytes = len(data) + (beside.stat().st_size if beside.exists() else 0)
        return data


def beside(path: Path) -> Path:
    """Where what does not go through memory stands, beside the file of a segment."""
    return path.with_suffix(".graph")


def load_segment(kind: str, space: str, start: int, stop: int, data: bytes, path: Path) -> Segment:
    """The segment of a file at `path` and of the one beside it, after both were compared with the manifest's checksums.
    ValueError if it is not for this version."""
    magic, version, dim, order_kind, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != 1 or count != stop - start:
        raise ValueError(f"expected a segment file of version 1 over {stop - start} rows, got {magic!r} {version}")
    if kind not in _KINDS:
        raise ValueError(f"expected a segment of kind {', '.join(_KINDS)}, got {kind!r}")
    centre = np.frombuffer(data, "<f4", dim, _HEAD.size).copy()  # a view would keep the whole file in memory
    at = _HEAD.size + 4 * dim
    order, left_out = None, np.empty(0, np.int64)
    if order_kind == _ORDERED:
        order = np.frombuffer(data, "<u4", count, at).astype(np.int64)
        at += 4 * count
    elif order_kind == _LEFT_OUT:
        (number,) = _U32.unpack_from(data, at)
        left_out = np.frombuffer(data, "<u4", number, at + _U32.size).astype(np.int64)
        order = np.setdiff1d(np.arange(count), left_out)
        at += _U32.size + 4 * number
    index = _KINDS[kind].load(memoryview(data)[at:], beside(path))
    if index.count + len(left_out) != count:
        raise ValueError(f"expected an index of {count - len(left_out)} rows, got {index.count}")
    segment = Segment(kind, space, start, stop, index, centre, order)
    segment.left_out = left_out + start
    segment.size_bytes = len(data) + (beside(path).stat().st_size if beside(path).exists() else 0)
    return segment


def needs_holdout(kind: str) -> bool:
    """Whether an index of this kind must be calibrated on rows that it does not contain yet."""
    return _KINDS[kind].NEEDS_HOLDOUT


def build_segment(
    kind: str, start: int, vectors: Floats, options: BuildOptions, held_out: Rows | None = None
) -> Segment:
    """An index over these raw vectors (n, dim), which stand in the rows from `start` on, without those at the
    positions `held_out`."""
    space, stop = options.space, start + len(vectors)
    order = None
    if held_out is not None:
        order = np.setdiff1d(np.arange(len(vectors)), held_out)
        vectors = vectors[order]
    prepared = prepare_queries(space, vectors)
    centre = np.zeros(vectors.shape[1], "<f4")
    if space in _KINDS[kind].CENTRED:
        centre = prepared.mean(axis=0, dtype=np.float64).astype("<f4")
        prepared = prepared - centre
    index = _KINDS[kind].build(prepared, options)
    return Segment(kind, space, start, stop, index, centre, order)
