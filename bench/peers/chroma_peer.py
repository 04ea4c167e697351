"""Chroma, embedded: its HNSW index and its SQLite metadata; telemetry is off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import chromadb

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.peers import FilterPeer, Layout, Metadata, Setting
from bench.scale import BATCH_SIZE

LINKS, EF_CONSTRUCTION, DEFAULT_EF = 16, 200, 100
OPERATORS = {"<": "$lt", "=": "$eq"}
NAME = "bench"


class Backend(FilterPeer):
    """Every metadata field is indexed in its SQLite tables; there is nothing more to create."""

    label = "Chroma"
    packages: tuple[str, ...] = ("chromadb", "numpy")
    syncs = "syncs the SQLite file that holds its log and metadata in every `add`; not its index files"
    filter_settings: tuple[Setting, ...] = tuple({"ef": ef} for ef in (100, 200, 400, 800, 1600))
    largest_effort = 10_000

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
            "batch_size": BATCH_SIZE,
        }

    def _connect(self, folder: Path) -> None:
        self._client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
        self._folder = folder

    def create(self, folder: Path, layout: Layout) -> None:
        self._connect(folder)
        graph = {"space": "cosine", "max_neighbors": LINKS, "ef_construction": EF_CONSTRUCTION}
        # Without an embedding function, which would be fetched: vectors come from outside.
        self._collection = self._client.create_collection(NAME, configuration={"hnsw": graph}, embedding_function=None)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        names = [str(row) for row in range(start, start + len(vectors))]
        self._collection.add(ids=names, embeddings=vectors, metadatas=metadatas)

    def open(self, folder: Path) -> None:
        self._connect(folder)
        self._collection = self._client.get_collection(NAME, embedding_function=None)
        self._ef = 0

    def use(self, setting: Setting) -> None:
        """Changes the collection's ef; an index that is loaded keeps its own, so it is closed and opened again."""
        ef = setting.get("ef", DEFAULT_EF)
        if ef == self._ef:
            return
        self._collection.modify(configuration={"hnsw": {"ef_search": ef}})
        self._client.close()
        self.open(self._folder)
        self._ef = ef

    def native(self, condition: Filter | None) -> object:
        return None if condition is None else {condition.field: {OPERATORS[condition.operator]: condition.value}}

    def query(self, vector: Floats, k: int, condition: Any = None) -> object:
        return self._collection.query(
            query_embeddings=vector[None], n_results=k, where=condition, include=["metadatas", "distances"]
        )

    def ids(self, answer: Any) -> list[int]:
        return [int(name) for name in answer["ids"][0]]

    def close(self) -> None:
        self._client.close()
