"""FAISS `IndexFlatIP`: every vector compared with the query; the reference for recall 1."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss

from bench.datasets import Floats
from bench.peers import Build


class Backend:
    """Exact search by inner product over unit vectors."""

    label = "FAISS exact"
    packages: tuple[str, ...] = ("faiss-cpu", "numpy")
    table_efs: tuple[int | None, ...] = (None,)
    sweep_efs: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._index: Any = None

    def parameters(self) -> dict[str, object]:
        return {
            "index": "IndexFlatIP",
            "build_threads": faiss.omp_get_max_threads(),
            "compiled_for": faiss.get_compile_options().split(),
        }

    def build(self, vectors: Floats, folder: Path) -> Build:
        started = time.perf_counter()
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)
        seconds = time.perf_counter() - started
        faiss.omp_set_num_threads(1)
        return Build(seconds)

    def set_ef(self, ef: int | None) -> None:
        if ef is not None:
            raise ValueError("exact search has no ef")

    def query(self, vector: Floats, k: int) -> object:
        return self._index.search(vector[None], k)[1]

    def ids(self, answer: Any) -> list[int]:
        return [int(row) for row in answer[0]]

    def close(self) -> None:
        self._index = None
