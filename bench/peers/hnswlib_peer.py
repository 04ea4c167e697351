"""hnswlib, the library under the original NoPokeDB, by itself: in memory, cosine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting

LINKS = 16
EF_CONSTRUCTION = 200
DEFAULT_EF = 10  # what a new hnswlib.Index has
FILE, DIM_FILE = "index.hnswlib", "dim"


class Backend(Peer):
    """`M` and `ef_construction` are the library's defaults, which the original NoPokeDB also used."""

    label = "hnswlib"
    packages: tuple[str, ...] = ("hnswlib", "numpy")
    is_database = False
    largest_effort = 20_000

    def __init__(self) -> None:
        self._index: Any = None
        self._dim = 0

    def parameters(self) -> dict[str, object]:
        return {
            "M": LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "default_ef": DEFAULT_EF,
            "build_threads": os.cpu_count(),
        }

    def create(self, folder: Path, layout: Layout) -> None:
        self._dim = layout.dim
        self._index = hnswlib.Index(space="cosine", dim=layout.dim)
        self._index.init_index(max_elements=layout.count, M=LINKS, ef_construction=EF_CONSTRUCTION)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        self._index.add_items(vectors, np.arange(start, start + len(vectors)))

    def finish(self) -> None:
        self._index.set_num_threads(1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._index.save_index(str(folder / FILE))
        (folder / DIM_FILE).write_text(str(self._dim))

    def open(self, folder: Path) -> None:
        self._index = hnswlib.Index(space="cosine", dim=int((folder / DIM_FILE).read_text()))
        self._index.load_index(str(folder / FILE))
        self._index.set_num_threads(1)

    def use(self, setting: Setting) -> None:
        self._index.set_ef(setting.get("ef", DEFAULT_EF))

    def query(self, vector: Floats, k: int) -> object:
        return self._index.knn_query(vector, k=k)[0]

    def ids(self, answer: Any) -> list[int]:
        return [int(row) for row in answer[0]]

    def close(self) -> None:
        self._index = None
