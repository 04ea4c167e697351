"""An immutable index over the rows [start, stop): what all kinds share, how one is stored and loaded.

Kinds are modules with two functions, listed in `_KINDS`; a further kind is a further line there.

    build(vectors, options) -> faiss index     vectors are prepared: centred, of unit length under cosine
    parameters(ef, selector) -> object         search parameters

File layout: 8s magic "NPKSEG01", u32 version 1, u32 dim, f32[dim] centre, then the index as FAISS serialises
it. The manifest has the file's size and CRC-32C, and both are compared before a byte of it reaches native code;
a file that does not fit is built anew, never loaded.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

import faiss
import numpy as np

from nopokedb.embedded.search import hnsw, scan
from nopokedb.embedded.search.exact import Floats, Rows, prepare_queries
from nopokedb.embedded.search.options import BuildOptions

_HEAD = struct.Struct("<8sII")
_MAGIC = b"NPKSEG01"
_pointer = faiss.swig_ptr


class _Kind(Protocol):
    def build(self, vectors: Floats, options: BuildOptions) -> Any: ...
    def parameters(self, ef: int, selector: Any) -> Any: ...


_KINDS: dict[str, _Kind] = {"scan": scan, "hnsw": hnsw}


class Segment:
    """One loaded index. Searching is thread-safe; nothing is ever added to it."""

    def __init__(self, kind: str, space: str, start: int, stop: int, data: bytes) -> None:
        magic, version, dim = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != 1:
            raise ValueError(f"expected a segment file of version 1, got {magic!r} {version}")
        self.kind = kind
        self.start = start
        self.stop = stop
        self._space = space
        self._dim = dim
        self._centre = np.frombuffer(data, "<f4", dim, _HEAD.size)
        self._index = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=_HEAD.size + 4 * dim))
        if self._index.ntotal != stop - start:
            raise ValueError(f"expected an index of {stop - start} rows, got {self._index.ntotal}")
        self.size_bytes = len(data)
        self.ef_at_10 = 0
        self.ef_at_100 = 0
        self.recall = 0.0

    @property
    def row_count(self) -> int:
        return self.stop - self.start

    def ef_for(self, k: int) -> int:
        """Candidates that reach the recall goal for k results, from the two measured points."""
        if k <= 10:
            return self.ef_at_10
        if k >= 100:
            return -(-self.ef_at_100 * k // 100)
        return self.ef_at_10 + (self.ef_at_100 - self.ef_at_10) * (k - 10) // 90

    def search(self, queries: Floats, ef: int, bits: Any = None) -> Rows:
        """Rows of shape (n, ef), best first by the index' own estimate, -1 where it found fewer.

        `queries` are prepared (`prepare_queries`). `bits` has one bit for each row from `start` on; rows whose
        bit is 0 are not returned.
        """
        ef = min(ef, self.row_count)
        queries = _fit(queries - self._centre if self._space == "l2" else queries, self._index.d)
        count = len(queries)
        found = np.empty((count, ef), np.float32)
        rows = np.empty((count, ef), np.int64)
        selector = None
        if bits is not None:
            assert bits.dtype == np.uint8 and bits.flags.c_contiguous and len(bits) * 8 >= self.row_count
            selector = faiss.IDSelectorBitmap(len(bits), _pointer(bits))
        parameters = _KINDS[self.kind].parameters(ef, selector)
        self._index.search_c(count, _pointer(queries), ef, _pointer(found), _pointer(rows), parameters)
        if self.start:
            np.add(rows, self.start, out=rows, where=rows >= 0)
        return rows


def build_segment_file(kind: str, vectors: Floats, options: BuildOptions) -> bytes:
    """The bytes of a segment file over these raw vectors of shape (n, dim)."""
    prepared = prepare_queries(options.space, vectors)
    centre = np.zeros(vectors.shape[1], "<f4")
    if options.space == "l2" or kind == "scan":
        # Distances, and one query's order of dot products, do not change when all vectors are moved alike, and
        # numbers near zero keep their digits. (A graph by dot product compares rows with rows: not moved.)
        centre = prepared.mean(axis=0, dtype=np.float64).astype("<f4")
        prepared = prepared - centre
    index = _KINDS[kind].build(prepared, options)
    head = _HEAD.pack(_MAGIC, 1, vectors.shape[1])
    serialized: bytes = faiss.serialize_index(index).tobytes()
    return head + centre.tobytes() + serialized


def _fit(queries: Floats, dim: int) -> Floats:
    """Contiguous queries, padded with zeros to the dimension that the index was built for."""
    if queries.shape[1] != dim:
        queries = np.pad(queries, ((0, 0), (0, dim - queries.shape[1])))
    return queries if queries.flags.c_contiguous else np.ascontiguousarray(queries)
