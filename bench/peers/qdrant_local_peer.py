"""Qdrant's Python client in its local mode: exact search in NumPy, points in SQLite."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer
from bench.scale import BATCH_SIZE

NAME = "bench"


class Backend(Peer):
    """Its documentation calls this mode one for tests and small data; it warns from 20,000 points on."""

    label = "Qdrant client, local (exact)"
    packages: tuple[str, ...] = ("qdrant-client", "numpy")
    syncs = "commits every point to SQLite by itself, which syncs four times for each"
    takes_threads = False

    def __init__(self) -> None:
        self._client: Any = None
        warnings.filterwarnings("ignore", message="Local mode")

    def parameters(self) -> dict[str, object]:
        return {"index": "none", "batch_size": BATCH_SIZE}

    def create(self, folder: Path, layout: Layout) -> None:
        self._client = QdrantClient(path=str(folder))
        vectors = models.VectorParams(size=layout.dim, distance=models.Distance.COSINE)
        self._client.create_collection(NAME, vectors_config=vectors)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        rows = list(range(start, start + len(vectors)))
        self._client.upsert(NAME, models.Batch(ids=rows, vectors=vectors.tolist(), payloads=metadatas))

    def open(self, folder: Path) -> None:
        self._client = QdrantClient(path=str(folder))

    def query(self, vector: Floats, k: int) -> object:
        return self._client.query_points(NAME, query=vector, limit=k, with_payload=True).points

    def ids(self, answer: Any) -> list[int]:
        return [int(point.id) for point in answer]

    def close(self) -> None:
        self._client.close()
