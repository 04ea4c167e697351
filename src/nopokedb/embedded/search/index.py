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

    def search(self, queries: Floats, ef: int, bits: Bits | None, k: int | None = None) -> Rows:
        """Positions of shape (n, ef), best first, -1 where there are fewer; with a bitmap only positions whose bit is
        set. With `k`, kinds that rank by the vectors themselves give only the beginning of the lists, in which the k
        best are as far as float32 can tell. Uses as many threads as OpenMP is set to in the calling thread."""
        ...

    def best(self, query: Floats, ef: int, k: int) -> tuple[Rows, float] | None:
        """Of one query (1, dim) the positions of the k best in a list of `ef`, and of what float32 cannot tell from
        them; and what none of them exceeds: the squared distance, or minus the dot product. None where the index ranks
        by something else, or does not find k."""
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
    _by_vectors = False
    """Whether lists are in the order of the vectors themselves."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @property
    def count(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Floats, ef: int, bits: Bits | None, k: int | None = None) -> Rows:
        queries = fit(queries, self._index.d)
        ef = min(ef, self.count)
        wanted = places_for(k, ef) if self._by_vectors and k is not None else ef
        found = np.empty((len(queries), wanted), np.float32)
        rows = np.empty((len(queries), wanted), np.int64)
        selector = None
        if bits is not None:  # native code checks nothing
            assert bits.dtype == np.uint8 and bits.flags.c_contiguous and len(bits) * 8 >= self.count
            selector = faiss.IDSelectorBitmap(len(bits), _pointer(bits))
        parameters = self._parameters(ef, selector)
        self._index.search_c(len(queries), _pointer(queries), wanted, _pointer(found), _pointer(rows), parameters)
        return rows

    def _parameters(self, ef: int, selector: Any) -> Any:
        """Search parameters of the kind."""
        raise NotImplementedError

    def best(self, query: Floats, ef: int, k: int) -> tuple[Rows, float] | None:
        return None

    def add(self, vectors: Floats) -> None:
        self._index.add(fit(vectors, self._index.d))

    def dump(self, beside: Path) -> bytes:
        data: bytes = faiss.serialize_index(self._index).tobytes()
        return data


def places_for(k: int, ef: int) -> int:
    """How many places of a list of `ef` that is ordered by float32 distances have the k best: what those order wrongly
    are near-duplicates, which are few around the k-th."""
    return min(2 * k + 16, ef)


def deserialized(data: memoryview) -> Any:
    """The index of FAISS in these bytes, which were compared with their checksum."""
    return faiss.deserialize_index(np.frombuffer(data, np.uint8))


def fit(vectors: Floats, dim: int) -> Floats:
    """Contiguous vectors, padded with zeros to the dimension that an index was built for."""
    if vectors.shape[1] != dim:
        vectors = np.pad(vectors, ((0, 0), (0, dim - vectors.shape[1])))
    return vectors if vectors.flags.c_contiguous else np.ascontiguousarray(vectors)
