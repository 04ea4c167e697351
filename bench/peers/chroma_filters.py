"""Chroma, embedded: its HNSW index and its SQLite metadata; telemetry is off."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import chromadb

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.filters.scale import BATCH_SIZE
from bench.peers.filtering import FilterBuild, Setting

LINKS, EF_CONSTRUCTION = 16, 200
OPERATORS = {"<": "$lt", "=": "$eq"}
NAME = "bench"


class FilterBackend:
    """Every metadata field is indexed in its SQLite tables; there is nothing more to create."""

    label = "Chroma"
    packages: tuple[str, ...] = ("chromadb", "numpy")
    syncs = "syncs the SQLite file that holds its log and metadata in every `add`; not its index files"
    settings: tuple[Setting, ...] = tuple({"ef": ef} for ef in (100, 200, 400, 800, 1600))
    exact_settings: tuple[Setting, ...] = ()

    def __init__(self) -> None:
        self._client: Any = None
        self._collection: Any = None
        self._folder = Path()
        self._ef = 0

    def parameters(self) -> dict[str, object]:
        return {
            "index": "HNSW",
            "max_neighbors": LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "num_threads": os.cpu_count(),
        }

    def _connect(self, folder: Path) -> None:
        self._client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
        self._folder = folder

    def _set_ef(self, ef: int) -> None:
        """Changes the collection's ef; an index that is loaded keeps its own, so it is closed and opened again."""
        self._collection.modify(configuration={"hnsw": {"ef_search": ef}})
        self._client.close()
        self.open(self._folder)
        self._ef = ef

    def build(
        self, vectors: Floats, metadatas: list[dict[str, object]], indexed: list[str], folder: Path
    ) -> FilterBuild:
        started = time.perf_counter()
        self._connect(folder)
        graph = {"space": "cosine", "max_neighbors": LINKS, "ef_construction": EF_CONSTRUCTION}
        # Without an embedding function, which would be fetched: vectors come from outside.
        self._collection = self._client.create_collection(NAME, configuration={"hnsw": graph}, embedding_function=None)
        for start in range(0, len(vectors), BATCH_SIZE):
            stop = min(start + BATCH_SIZE, len(vectors))
            self._collection.add(
                ids=[str(row) for row in range(start, stop)],
                embeddings=vectors[start:stop],
                metadatas=metadatas[start:stop],
            )
        seconds = time.perf_counter() - started
        return FilterBuild(seconds, seconds)

    def open(self, folder: Path) -> None:
        self._connect(folder)
        self._collection = self._client.get_collection(NAME, embedding_function=None)
        self._ef = 0

    def native(self, condition: Filter | None) -> object:
        return None if condition is None else {condition.field: {OPERATORS[condition.operator]: condition.value}}

    def query(self, vector: Floats, k: int, condition: Any, setting: Setting) -> object:
        if setting["ef"] != self._ef:  # the first queries of a setting are not timed
            self._set_ef(setting["ef"])
        return self._collection.query(
            query_embeddings=vector[None], n_results=k, where=condition, include=["metadatas", "distances"]
        )

    def ids(self, answer: Any) -> list[int]:
        return [int(name) for name in answer["ids"][0]]

    def close(self) -> None:
        self._client.close()
