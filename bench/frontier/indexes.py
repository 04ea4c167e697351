"""The indexes that are compared: how each is built, what is varied, and how it answers one query.

Vectors are of unit length, so the largest products are the nearest. What keeps only codes is reranked by exact products
of the best `length` candidates; that length is part of the setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from bench.datasets import Floats, Labels

_native: Any = faiss
_pointer = faiss.swig_ptr
Ask = Callable[[Floats], Labels]


@dataclass(frozen=True)
class Index:
    """One built index: `ask(setting)` gives a function from a query (1, dim) to the rows of its k best."""

    settings: Sequence[tuple[int, ...]]
    ask: Callable[[tuple[int, ...]], Ask]
    size_bytes: int


def _best(vectors: Floats, query: Floats, rows: Labels, k: int) -> Labels:
    """The k of these rows with the largest exact products."""
    rows = np.ascontiguousarray(rows[rows >= 0])
    keys = np.empty(len(rows), np.float32)
    _native.fvec_inner_products_by_idx(
        _pointer(keys), _pointer(query), _pointer(vectors), _pointer(rows), vectors.shape[1], 1, len(rows)
    )
    if len(rows) > k:
        chosen = np.argpartition(-keys, k - 1)[:k]
        rows, keys = rows[chosen], keys[chosen]
    best: Labels = rows[np.argsort(-keys)]
    return best


def scan(vectors: Floats, k: int, threads: int, *, lists: int = 1) -> Index:
    """4-bit fast scan of all codes, as the package builds it, or of the nearest lists."""
    from nopokedb.embedded.search import scan as kind
    from nopokedb.embedded.search.options import BuildOptions

    dim = vectors.shape[1]
    centre = vectors.mean(axis=0)
    if lists == 1:
        index: Any = kind.build(vectors - centre, BuildOptions("cosine"))._index
    else:
        quantizer = faiss.IndexFlat(dim, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexIVFPQFastScan(quantizer, dim, lists, dim // 2, 4, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        sample = np.random.default_rng(1).choice(len(vectors), min(len(vectors), 40 * lists), replace=False)
        index.train(np.ascontiguousarray((vectors - centre)[sample]))
        index.add(np.ascontiguousarray(vectors - centre))
    probes = (1,) if lists == 1 else tuple(n for n in (8, 16, 32, 64, 128, 256, 512) if n <= lists)

    def ask(setting: tuple[int, ...]) -> Ask:
        parameters = faiss.IVFPQSearchParameters()
        parameters.nprobe, length = setting

        def answer(query: Floats) -> Labels:
            _, rows = index.search(query, length, params=parameters)
            return _best(vectors, query, rows[0], k)

        return answer

    settings = [(probe, length) for probe in probes for length in (20, 40, 100, 200, 500)]
    return Index(settings, ask, len(faiss.serialize_index(index)))


def ivf_scan(vectors: Floats, k: int, threads: int) -> Index:
    """The same in inverted lists, about four times the square root of the rows of them."""
    return scan(vectors, k, threads, lists=2 ** round(math.log2(4 * math.sqrt(len(vectors)))))


def faiss_hnsw(vectors: Floats, k: int, threads: int) -> Index:
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_L2)
    index.hnsw.efConstruction = 200
    index.add(vectors)

    def ask(setting: tuple[int, ...]) -> Ask:
        parameters = faiss.SearchParametersHNSW()
        (parameters.efSearch,) = setting
        return lambda query: index.search(query, k, params=parameters)[1][0]

    return Index(_LENGTHS, ask, len(faiss.serialize_index(index)))


def hnswlib(vectors: Floats, k: int, threads: int) -> Index:
    import hnswlib as library

    index = library.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    index.add_items(vectors, num_threads=threads)
    index.set_num_threads(1)

    def ask(setting: tuple[int, ...]) -> Ask:
        index.set_ef(setting[0])
        return lambda query: index.knn_query(query, k)[0][0].astype(np.int64)

    return Index(_LENGTHS, ask, index.index_file_size())


def symphony(vectors: Floats, k: int, threads: int) -> Index:
    """SymphonyQG, centred as the package does it."""
    from rabitqlib import SymqgIndex

    centre = vectors.mean(axis=0)
    index = SymqgIndex(vectors.shape[1], 32, "l2")
    index.build(vectors - centre, 200, num_threads=threads)

    def ask(setting: tuple[int, ...]) -> Ask:
        (length,) = setting
        return lambda query: index.search(query - centre, k, length)[0][0].astype(np.int64)

    dim = vectors.shape[1]
    return Index(_LENGTHS, ask, len(vectors) * (4 * dim + 32 * (dim // 8 + 16)))


def _clusters(vectors: Floats, number: int, threads: int) -> tuple[Floats, Any]:
    from rabitqlib import RaBitQKMeans

    clustering = RaBitQKMeans(vectors.shape[1], number, num_threads=threads)
    clustering.train(vectors)
    return clustering.centroids, clustering.assignments


def rabitq_hnsw(vectors: Floats, k: int, threads: int) -> Index:
    """rabitqlib's HNSW over 7-bit codes."""
    from rabitqlib import HnswIndex

    index = HnswIndex(vectors.shape[1], len(vectors), 16, 200, 7, "l2")
    index.build(vectors, *_clusters(vectors, 16, threads), num_threads=threads)

    def ask(setting: tuple[int, ...]) -> Ask:
        (length,) = setting

        def answer(query: Floats) -> Labels:
            rows, _ = index.search(query, min(4 * k, length), length)
            return _best(vectors, query, rows[0].astype(np.int64), k)

        return answer

    dim = vectors.shape[1]
    return Index(_LENGTHS, ask, len(vectors) * (dim + 16 * 2 * 4 + 32))


def rabitq_ivf(vectors: Floats, k: int, threads: int) -> Index:
    """rabitqlib's IVF over 7-bit codes."""
    from rabitqlib import IvfIndex

    number = 2 ** round(math.log2(4 * math.sqrt(len(vectors))))
    index = IvfIndex(vectors.shape[1], len(vectors), number, 7, "l2")
    index.build(vectors, *_clusters(vectors, number, threads), num_threads=threads)

    def ask(setting: tuple[int, ...]) -> Ask:
        (probes,) = setting

        def answer(query: Floats) -> Labels:
            try:
                rows, _ = index.search(query, 4 * k, probes)
            except RuntimeError:  # so few lists hold fewer rows
                return np.empty(0, np.int64)
            return _best(vectors, query, rows[0].astype(np.int64), k)

        return answer

    settings = [(n,) for n in (8, 16, 32, 64, 128, 256, 512) if n <= number]
    return Index(settings, ask, len(vectors) * (vectors.shape[1] + 32))


_LENGTHS = [(n,) for n in (10, 20, 40, 80, 160, 320, 640, 1280)]

INDEXES: dict[str, Callable[[Floats, int, int], Index]] = {
    "flat scan": scan,
    "IVF scan": ivf_scan,
    "FAISS HNSW": faiss_hnsw,
    "hnswlib": hnswlib,
    "SymphonyQG": symphony,
    "RaBitQ HNSW": rabitq_hnsw,
    "RaBitQ IVF": rabitq_ivf,
}
