"""USearch's HNSW by itself, in memory, cosine over float32, the defaults of its documentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting

LINKS, EF_CONSTRUCTION, DEFAULT_EF = 16, 128, 64
FILE = "index.usearch"


class Backend(Peer):
    """float32 and not its half-precision default: those would not hold the vectors that the others hold."""

    label = "USearch"
    packages: tuple[str, ...] = ("usearch", "numpy")
    is_database = False
    largest_effort = 20_000

    def __init__(self) -> None:
        self._index: Any = None

    def parameters(self) -> dict[str, object]:
        shape = {"connectivity": LINKS, "expansion_add": EF_CONSTRUCTION, "default_ef": DEFAULT_EF}
        return {"dtype": "f32", **shape, "build_threads": os.cpu_count()}

    def create(self, folder: Path, layout: Layout) -> None:
        self._index = Index(
            ndim=layout.dim, metric="cos", dtype="f32", connectivity=LINKS, expansion_add=EF_CONSTRUCTION
        )

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        self._index.add(np.arange(start, start + len(vectors)), vectors, threads=os.cpu_count() or 1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._index.save(str(folder / FILE))

    def open(self, folder: Path) -> None:
        self._index = Index.restore(str(folder / FILE))

    def use(self, setting: Setting) -> None:
        self._index.expansion_search = setting.get("ef", DEFAULT_EF)

    def query(self, vector: Floats, k: int) -> object:
        return self._index.search(vector, k, threads=1)

    def ids(self, answer: Any) -> list[int]:
        return [int(key) for key in answer.keys]

    def close(self) -> None:
        self._index = None
