"""hnswlib, the library under the original NoPokeDB, by itself: in memory, cosine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from bench.datasets import Floats
from bench.peers import Build

LINKS = 16
EF_CONSTRUCTION = 200
DEFAULT_EF = 10  # what a new hnswlib.Index has


class Backend:
    """`M` and `ef_construction` are the library's defaults, which the original NoPokeDB also used."""

    label = "hnswlib"
    packages: tuple[str, ...] = ("hnswlib", "numpy")
    table_efs: tuple[int | None, ...] = (None,)
    sweep_efs: tuple[int, ...] = (40, 100, 200, 400, 800)

    def __init__(self) -> None:
        self._index: Any = None

    def parameters(self) -> dict[str, object]:
        return {
            "M": LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "default_ef": DEFAULT_EF,
            "build_threads": os.cpu_count(),
        }

    def build(self, vectors: Floats, folder: Path) -> Build:
        started = time.perf_counter()
        self._index = hnswlib.Index(space="cosine", dim=vectors.shape[1])
        self._index.init_index(max_elements=len(vectors), M=LINKS, ef_construction=EF_CONSTRUCTION)
        self._index.add_items(vectors, np.arange(len(vectors)))
        seconds = time.perf_counter() - started
        self._index.set_num_threads(1)
        return Build(seconds)

    def set_ef(self, ef: int | None) -> None:
        self._index.set_ef(DEFAULT_EF if ef is None else ef)

    def query(self, vector: Floats, k: int) -> object:
        return self._index.knn_query(vector, k=k)[0]

    def ids(self, answer: Any) -> list[int]:
        return [int(row) for row in answer[0]]

    def close(self) -> None:
        self._index = None
