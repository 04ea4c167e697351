"""FAISS `IndexHNSWFlat` with 32 links, inner product over unit vectors, as the original benchmark ran it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss

from bench.datasets import Floats
from bench.peers import Build

LINKS = 32
DEFAULT_EF = 16  # what a new faiss.IndexHNSWFlat has as hnsw.efSearch


class Backend:
    """In-memory HNSW; 40 is FAISS' own efConstruction, 200 is that of the other graphs in the table."""

    packages: tuple[str, ...] = ("faiss-cpu", "numpy")
    table_efs: tuple[int | None, ...] = (None,)
    sweep_efs: tuple[int, ...] = (40, 100, 200, 400, 800)

    def __init__(self, ef_construction: int) -> None:
        self.label = f"FAISS HNSW, efC {ef_construction}"
        self._ef_construction = ef_construction
        self._index: Any = None

    def parameters(self) -> dict[str, object]:
        return {
            "index": "IndexHNSWFlat",
            "M": LINKS,
            "ef_construction": self._ef_construction,
            "default_ef": DEFAULT_EF,
            "build_threads": faiss.omp_get_max_threads(),
            "compiled_for": faiss.get_compile_options().split(),
        }

    def build(self, vectors: Floats, folder: Path) -> Build:
        started = time.perf_counter()
        self._index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = self._ef_construction
        self._index.add(vectors)
        seconds = time.perf_counter() - started
        faiss.omp_set_num_threads(1)
        return Build(seconds)

    def set_ef(self, ef: int | None) -> None:
        self._index.hnsw.efSearch = DEFAULT_EF if ef is None else ef

    def query(self, vector: Floats, k: int) -> object:
        return self._index.search(vector[None], k)[1]

    def ids(self, answer: Any) -> list[int]:
        return [int(row) for row in answer[0]]

    def close(self) -> None:
        self._index = None
