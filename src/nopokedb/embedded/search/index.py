"""What the kinds of indexes have in common, and what those that FAISS implements share.

An index numbers its vectors from 0 in the order in which they were given. It is immutable once published, but for
`add`, which completes one that was built without its held-out rows before that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from nopokedb.distances import Floats
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.search.options import BuildOptions

_pointer = faiss.swig_ptr
Bits = npt.NDArray[np.uint8]


class Index(Protocol):
    """Positions by vector. Searching is thread-safe."""

    grows: bool
    """Whether `add` is possible."""

    @property
    def count(self) -> int:
        """Vectors in it."""
        ...

    def search(self, queries: Floats, ef: int, bits: Bits | None) -> Rows:
        """Positions of shape (n, ef), best first, -1 where there are fewer; with a bitmap only positions whose bit is
        set. Uses as many threads as OpenMP is set to in the calling thread."""
        ...

    def add(self, vectors: Floats) -> None: ...

    def bytes_for(self, ef: int) -> int:
        """Estimate of what a search with such a list reads."""
        ...

    def dump(self, beside: Path) -> bytes:
        """What its file holds. What does not go through memory is written to `beside`, durably."""
        ...


class Kind(Protocol):
    """A module that builds and loads one kind of index."""

    NEEDS_HOLDOUT: bool
    """Whether queries from its own rows flatter it (graphs)."""
    NESTED_LISTS: bool
    """Whether a shorter list is the beginning of a longer one (scans)."""
    CENTRED: frozenset[str]
    """Spaces in which the rows are moved so that their mean is at the origin."""
    MOVED_QUERIES: frozenset[str]
    """Spaces in which the queries have to be moved alike."""

    def build(self, vectors: Floats, options: BuildOptions) -> Index:
        """An index of these prepared vectors: centred, of unit length under cosine. RuntimeError or MemoryError where
        that is not possible."""
        ...

    def load(self, data: memoryview, beside: Path) -> Index:
        """What `dump` gave, once size and checksum of both files were compared. ValueError if it is of another
        version."""
        ...


class FaissIndex:
    """An index of FAISS that takes a bitmap while it searches."""

    grows = True

    def __init__(self, index: Any) -> None:
        self._index = index

    @property
    def count(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Floats, ef: int, bits: Bits | None) -> Rows:
        queries = fit(queries, self._index.d)
        ef = min(ef, self.count)
        found = np.empty((len(queries), ef), np.float32)
        rows = np.empty((len(queries), ef), np.int64)
        selector = None
        if bits is not None:  # native code checks nothing
            assert bits.dtype == np.uint8 and bits.flags.c_contiguous and len(bits) * 8 >= self.count
            selector = faiss.IDSelectorBitmap(len(bits), _pointer(bits))
        parameters = self._parameters(ef, selector)
        self._index.search_c(len(queries), _pointer(queries), ef, _pointer(found), _pointer(rows), parameters)
        return rows

    def _parameters(self, ef: int, selector: Any) -> Any:
        """Search parameters of the kind."""
        raise NotImplementedError

    def add(self, vectors: Floats) -> None:
        self._index.add(fit(vectors, self._index.d))

    def dump(self, beside: Path) -> bytes:
        data: bytes = faiss.serialize_index(self._index).tobytes()
        return data


def deserialized(data: memoryview) -> Any:
    """The index of FAISS in these bytes, which were compared with their checksum."""
    return faiss.deserialize_index(np.frombuffer(data, np.uint8))


def fit(vectors: Floats, dim: int) -> Floats:
    """Contiguous vectors, padded with zeros to the dimension that an index was built for."""
    if vectors.shape[1] != dim:
        vectors = np.pad(vectors, ((0, 0), (0, dim - vectors.shape[1])))
    return vectors if vectors.flags.c_contiguous else np.ascontiguousarray(vectors)
