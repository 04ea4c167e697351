"""An immutable index over the rows [start, stop): what all kinds share, how one is built, stored and loaded.

Kinds are modules with four names, listed in `_KINDS`; a further kind is a further line there.

    NEEDS_HOLDOUT                          whether queries from its own rows flatter it (graphs)
    NESTED_LISTS                           whether a shorter list is the beginning of a longer one (scans)
    build(vectors, options) -> index       vectors are prepared: centred, of unit length under cosine
    parameters(ef, selector) -> object     search parameters

File layout, little-endian: 8s magic "NPKSEG01", u32 version 1, u32 dim, u32 1 if an order follows else 0, u32 row
count, f32[dim] centre, u32[row count] order (the row, from `start`, of each index position), then the index as
FAISS serialises it. The manifest has the file's size and CRC-32C, and both are compared before a byte of it
reaches native code; a file that does not fit is built anew, never loaded.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from nopokedb.distances import Floats, prepare_queries
from nopokedb.embedded.search import hnsw, scan
from nopokedb.embedded.search.curve import GOAL, HIGHEST, Curve, length_for, shortest
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.search.options import BuildOptions

_HEAD = struct.Struct("<8sIIII")
_MAGIC = b"NPKSEG01"
_pointer = faiss.swig_ptr
_KEPT_TARGETS = 64


class _Kind(Protocol):
    NEEDS_HOLDOUT: bool
    NESTED_LISTS: bool

    def build(self, vectors: Floats, options: BuildOptions) -> Any: ...
    def parameters(self, ef: int, selector: Any) -> Any: ...


_KINDS: dict[str, _Kind] = {"scan": scan, "hnsw": hnsw}


class Segment:
    """One index. Searching is thread-safe; once it is published nothing is added to it."""

    def __init__(
        self, kind: str, space: str, start: int, stop: int, index: Any, centre: Floats, order: Rows | None
    ) -> None:
        self.kind = kind
        self.start = start
        self.stop = stop
        self._space = space
        self._index = index
        self._centre = centre
        self._order = order
        self._permuted: tuple[Any, npt.NDArray[np.uint8]] | None = None
        self.scan: Segment | None = None
        """A scan of the same rows that a graph keeps for filters, which it serves badly."""
        self.size_bytes = 0
        self.recall = 0.0
        """Mean recall@10 of the list that reaches the goal, when it was sealed."""
        self.curves: dict[int, Curve] = {}
        self._lengths: dict[float, tuple[int | None, int | None]] = {GOAL: (None, None)}
        """For 10 and for 100 results, by target recall."""

    @property
    def row_count(self) -> int:
        return self.stop - self.start

    def keeps(self, other: Segment) -> bool:
        """Whether this graph keeps the other index beside itself: a scan of the same rows."""
        return self.kind != "scan" and other.kind == "scan" and (self.start, self.stop) == (other.start, other.stop)

    def set_curves(self, at_10: Curve, at_100: Curve, ef_at_10: int, ef_at_100: int, recall: float) -> None:
        """What calibration found. The two lengths are those for GOAL; an index from before there were curves has
        nothing else."""
        self.curves = {10: at_10, 100: at_100}
        self._lengths = {GOAL: (ef_at_10, ef_at_100)}
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

    def search(self, queries: Floats, ef: int, bits: Any = None) -> Rows:
        """Rows of shape (n, ef), best first by the index' own estimate, -1 where it found fewer.

        `queries` are prepared (`prepare_queries`). `bits` has one bit for each row from `start` on; rows whose
        bit is 0 are not returned.
        """
        ef = min(ef, self._index.ntotal)
        queries = _fit(queries - self._centre if self._space == "l2" else queries, self._index.d)
        count = len(queries)
        found = np.empty((count, ef), np.float32)
        rows = np.empty((count, ef), np.int64)
        selector = None
        if bits is not None:
            bits = self._by_position(bits)
            assert bits.dtype == np.uint8 and bits.flags.c_contiguous and len(bits) * 8 >= self._index.ntotal
            selector = faiss.IDSelectorBitmap(len(bits), _pointer(bits))
        parameters = _KINDS[self.kind].parameters(ef, selector)
        self._index.search_c(count, _pointer(queries), ef, _pointer(found), _pointer(rows), parameters)
        if self._order is not None:
            return np.where(rows >= 0, self._order[rows] + self.start, -1)
        if self.start:
            np.add(rows, self.start, out=rows, where=rows >= 0)
        return rows

    def bytes_for(self, ef: int) -> int:
        """Estimate of what a search reads of the index: every code of a scan; of a graph for each place of the list the
        node, its links and the vectors of about half of its neighbours, as the others were seen before."""
        if self.kind == "scan":
            return self.row_count * int(self._index.code_size)
        links = int(self._index.hnsw.nb_neighbors(0))
        return ef * links * (4 + 2 * int(self._index.d))

    def _by_position(self, bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The bitmap of rows as one of index positions; the last one is kept, as queries repeat it."""
        if self._order is None:
            return bits
        kept = self._permuted
        if kept is None or kept[0] is not bits:
            flags = np.unpackbits(bits, bitorder="little", count=self.row_count)
            kept = self._permuted = (bits, np.packbits(flags[self._order], bitorder="little"))
        return kept[1]

    def add_held_out(self, held_out: Rows, vectors: Floats) -> None:
        """Complete an index that was built without some rows, before it is published."""
        assert self._order is not None
        self._index.add(np.ascontiguousarray(prepare_queries(self._space, vectors[held_out]) - self._centre))
        self._order = np.concatenate([self._order, held_out])

    def to_bytes(self) -> bytes:
        """The segment's file."""
        assert self._index.ntotal == self.row_count
        ordered = self._order is not None
        head = _HEAD.pack(_MAGIC, 1, len(self._centre), ordered, self.row_count)
        order = b"" if self._order is None else self._order.astype("<u4").tobytes()
        serialized: bytes = faiss.serialize_index(self._index).tobytes()
        data = head + self._centre.astype("<f4").tobytes() + order + serialized
        self.size_bytes = len(data)
        return data


def load_segment(kind: str, space: str, start: int, stop: int, data: bytes) -> Segment:
    """The segment of a file whose bytes were compared with the manifest's checksum."""
    magic, version, dim, ordered, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != 1 or count != stop - start:
        raise ValueError(f"expected a segment file of version 1 over {stop - start} rows, got {magic!r} {version}")
    if kind not in _KINDS:
        raise ValueError(f"expected a segment of kind {', '.join(_KINDS)}, got {kind!r}")
    centre = np.frombuffer(data, "<f4", dim, _HEAD.size).copy()  # a view would keep the whole file in memory
    at = _HEAD.size + 4 * dim
    order = None
    if ordered:
        order = np.frombuffer(data, "<u4", count, at).astype(np.int64)
        at += 4 * count
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=at))
    if index.ntotal != count:
        raise ValueError(f"expected an index of {count} rows, got {index.ntotal}")
    segment = Segment(kind, space, start, stop, index, centre, order)
    segment.size_bytes = len(data)
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
    if space == "l2" or kind == "scan":
        # Distances, and one query's order of dot products, do not change when all vectors are moved alike, and
        # numbers near zero keep their digits. (A graph by dot product compares rows with rows: not moved.)
        centre = prepared.mean(axis=0, dtype=np.float64).astype("<f4")
        prepared = prepared - centre
    index = _KINDS[kind].build(prepared, options)
    return Segment(kind, space, start, stop, index, centre, order)


def _fit(queries: Floats, dim: int) -> Floats:
    """Contiguous queries, padded with zeros to the dimension that the index was built for."""
    if queries.shape[1] != dim:
        queries = np.pad(queries, ((0, 0), (0, dim - queries.shape[1])))
    return queries if queries.flags.c_contiguous else np.ascontiguousarray(queries)
