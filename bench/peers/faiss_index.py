"""What the FAISS indexes have in common: inner product over unit vectors, one file, one thread for queries."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import faiss

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer

FILE = "index.faiss"


class FaissPeer(Peer):
    """Adding uses as many threads as FAISS does by default."""

    packages: tuple[str, ...] = ("faiss-cpu", "numpy")
    is_database = False

    def __init__(self) -> None:
        self._index: Any = None

    def _facts(self) -> dict[str, object]:
        return {"build_threads": faiss.omp_get_max_threads(), "compiled_for": faiss.get_compile_options().split()}

    @abstractmethod
    def _empty(self, layout: Layout) -> Any:
        """An index to be trained, if need be, and filled."""

    def create(self, folder: Path, layout: Layout) -> None:
        self._index = self._empty(layout)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        if not self._index.is_trained:
            self._index.train(vectors)
        self._index.add(vectors)

    def finish(self) -> None:
        faiss.omp_set_num_threads(1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._index, str(folder / FILE))

    def open(self, folder: Path) -> None:
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(folder / FILE))

    def query(self, vector: Floats, k: int) -> object:
        return self._index.search(vector[None], k)[1]

    def ids(self, answer: Any) -> list[int]:
        return [int(row) for row in answer[0]]

    def close(self) -> None:
        self._index = None
