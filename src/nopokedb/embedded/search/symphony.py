"""The SymphonyQG kind: a graph whose nodes hold short codes of their neighbours, compared 32 at a time in registers.

Gou, Gao, Xu and Long, "SymphonyQG: Towards Symphonious Integration of Quantization and Graph for Approximate Nearest
Neighbor Search" (2025), as built into the authors' `rabitqlib`. It walks by estimates and ranks what it visits by the
vectors themselves, which it keeps, so a node takes about 2.4 times its vector at 256 dimensions.

It visits about as many nodes as the list has places and ranks those; asked for as many as it visits, it also looks at
their neighbours. So it is asked for little more than k, with a list that is somewhat longer.

What the library asks for, and what is done here so that it gets it: at least 64 dimensions (padded with zeros), more
points than links, finite numbers of a middle size (all are multiplied by one power of two), rows that are given at
once (none is added later: held-out rows stay outside and are compared exactly). It takes no bitmap, so where rows are
left out a longer list is asked for and thinned. It loads from a path, so its file stands beside the segment's; size and
checksum of both are compared before the library sees the path.
"""

from __future__ import annotations

import importlib.util
import math
import os
import struct
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from nopokedb.distances import Floats
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.search.index import Bits, fit, places_for
from nopokedb.embedded.search.options import BuildOptions

NEEDS_HOLDOUT = True
NESTED_LISTS = False
CENTRED = MOVED_QUERIES = frozenset({"cosine", "l2"})
"""Estimates are good where the rows surround the origin: with a mean of 100 in each dimension recall fell to 0.009.
Unit vectors are compared by l2, which moving them does not change; dot products between rows it would."""
DEGREE = 32
"""Links of a node; the smallest number that the library takes. 64 was no better at any recall up to 0.99."""
_MIN_DIM = 64
_ABOUT = struct.Struct("<8sfI")
_MAGIC = b"NPKSYQG1"
_SPARE = 16
"""Places beyond the expected number where rows are left out: near a query more may be missing than on average."""


@cache
def available() -> bool:
    """Whether the library is installed. It is imported when the first graph is loaded or built."""
    return importlib.util.find_spec("rabitqlib") is not None


@cache
def _library() -> Any:
    """The library. ImportError also where its wheel is for another system or processor."""
    import rabitqlib

    return rabitqlib


class Symphony:
    """The graph, with the vectors in it."""

    grows = False

    def __init__(self, index: Any, scale: float) -> None:
        self._index = index
        self._scale = np.float32(scale)
        self._by_products = index.metric == "ip"

    @property
    def count(self) -> int:
        return int(self._index.num_points)

    def search(self, queries: Floats, ef: int, bits: Bits | None, k: int | None = None) -> Rows:
        count = self.count
        ef = asked = min(ef, count)
        passing = None
        if bits is not None:
            assert len(bits) * 8 >= count
            passing = np.unpackbits(bits, bitorder="little", count=count).view(np.bool_)
            share = int(passing.sum()) / count
            asked = min(count, math.ceil(ef / share) + _SPARE) if share else 0
        if not asked:
            return np.full((len(queries), ef), -1, np.int64)
        threads = 1 if len(queries) == 1 else faiss.omp_get_max_threads()
        queries = fit(queries, self._index.dim) * self._scale
        try:
            if passing is None and k is not None:
                return self._beginning(queries, ef, min(k, ef), threads)[0]
            positions, _ = self._index.search_batch(queries, asked, asked, num_threads=threads)
        except RuntimeError:  # a query so far away that its distances are not finite: nothing is proposed for it
            return self._one_by_one(queries, ef, bits)
        rows: Rows = positions.astype(np.int64)
        return rows if passing is None else _thinned(rows, passing[rows], ef)

    def _limit(self, query: Floats, distance: float) -> float:
        """The distance that float32 cannot tell from this one. Stored numbers were multiplied so that none is above 1;
        they and the query's are off by their rounding."""
        dim = len(query)
        unit = 1e-7 * (8.0 + math.sqrt(dim))
        if self._by_products:  # 1 - the dot product
            return distance + unit * (1.0 + math.sqrt(dim) * float(np.linalg.norm(query)))
        return distance + unit * distance + 2.5e-7 * math.sqrt(dim * distance) + 1e-13 * dim

    def best(self, query: Floats, ef: int, k: int) -> tuple[Rows, float] | None:
        ef = min(ef, self.count)
        if k > ef:
            return None
        try:
            positions, (limit,) = self._beginning(fit(query, self._index.dim) * self._scale, ef, k, 1)
        except RuntimeError:
            return None
        return positions[0], (limit - 1.0 if self._by_products else limit) / float(self._scale) ** 2

    def _beginning(self, scaled: Floats, ef: int, k: int, threads: int) -> tuple[Rows, list[float]]:
        """Of lists of `ef` (at least k) the places, shape (n, m), that have the k best of each query, and the distance
        up to which float32 cannot tell others from these. Few places are asked for; all, where few end before it."""
        places = places_for(k, ef)
        while True:
            positions, distances = self._index.search_batch(scaled, places, ef, num_threads=threads)
            limits = list(map(self._limit, scaled, distances[:, k - 1].tolist()))
            width = max(map(_places_up_to, distances, limits))
            if width < places or places == ef:
                return positions[:, :width].astype(np.int64), limits
            places = ef

    def _one_by_one(self, queries: Floats, ef: int, bits: Bits | None) -> Rows:
        none = np.full((1, ef), -1, np.int64)
        if len(queries) == 1:
            return none
        back = queries / self._scale
        return np.concatenate([self.search(back[at : at + 1], ef, bits) for at in range(len(back))])

    def add(self, vectors: Floats) -> None:
        raise NotImplementedError("a SymphonyQG graph does not grow")

    def bytes_for(self, ef: int) -> int:
        """A node for each place of the list: its vector, the codes and numbers of its links."""
        return ef * int(_node_bytes(self._index.dim))

    def dump(self, beside: Path) -> bytes:
        self._index.save(os.fspath(beside))
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        return _ABOUT.pack(_MAGIC, self._scale, self.count)


def build(vectors: Floats, options: BuildOptions) -> Symphony:
    """Build the graph of all rows at once."""
    if len(vectors) <= DEGREE:
        raise RuntimeError(f"expected more than {DEGREE} rows for a graph, got {len(vectors)}")
    scale = _scale_for(vectors)
    padded = np.zeros((len(vectors), max(_MIN_DIM, vectors.shape[1])), np.float32)
    np.multiply(vectors, np.float32(scale), out=padded[:, : vectors.shape[1]])
    metric = "ip" if options.space == "ip" else "l2"
    try:
        index = _library().SymqgIndex(padded.shape[1], DEGREE, metric)
        index.build(padded, options.ef_construction, num_threads=max(1, faiss.omp_get_max_threads()))
    except (ValueError, ImportError) as error:
        raise RuntimeError(f"no SymphonyQG graph: {error}") from error
    return Symphony(index, scale)


def load(data: memoryview, beside: Path) -> Symphony:
    """The graph beside, whose bytes were compared with their checksum."""
    if len(data) != _ABOUT.size:
        raise ValueError(f"expected {_ABOUT.size} bytes about a graph, got {len(data)}")
    magic, scale, count = _ABOUT.unpack(data)
    if magic != _MAGIC:
        raise ValueError(f"expected a graph of SymphonyQG, got {magic!r}")
    try:
        index = _library().SymqgIndex.load(os.fspath(beside))
    except (RuntimeError, ImportError) as error:
        raise ValueError(f"cannot be loaded: {error}") from None
    if index.num_points != count:
        raise ValueError(f"expected a graph of {count} rows, got {index.num_points}")
    return Symphony(index, scale)


def _scale_for(vectors: Floats) -> float:
    """The power of two that brings the largest number to about 1; squares of any vector are then far from both ends of
    float32."""
    largest = float(np.abs(vectors).max(initial=0.0))
    return 2.0 ** -max(-120, min(120, math.frexp(largest)[1])) if largest else 1.0


def _places_up_to(distances: Floats, limit: float) -> int:
    return int(distances.searchsorted(np.float32(limit), "right"))


def _node_bytes(dim: int) -> int:
    """A vector, and for each link a code of a bit per dimension, three factors and a number."""
    return 4 * dim + DEGREE * (-(-dim // 8) + 16)


def _thinned(rows: Rows, passing: Any, ef: int) -> Rows:
    """The first `ef` of each line that pass, -1 where there are fewer."""
    order = np.argsort(~passing, axis=1, kind="stable")[:, :ef]
    kept = np.take_along_axis(rows, order, axis=1)
    kept[~np.take_along_axis(passing, order, axis=1)] = -1
    if kept.shape[1] < ef:
        kept = np.pad(kept, ((0, 0), (0, ef - kept.shape[1])), constant_values=-1)
    return np.ascontiguousarray(kept)
