"""Qdrant Edge: one shard inside the process, HNSW with Qdrant's default shape, optimised after the load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qdrant_edge as edge

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting
from bench.scale import BATCH_SIZE

LINKS, EF_CONSTRUCTION = 16, 100  # Qdrant's defaults
FULL_SCAN_KB = 10_000
VECTOR = ""  # the name of a collection's only vector


class Backend(Peer):
    """Payloads come back with each hit."""

    label = "Qdrant Edge"
    packages: tuple[str, ...] = ("qdrant-edge-py", "numpy")
    syncs = "writes a log that it does not sync; `flush` is called once after the load"
    largest_effort = 10_000

    def __init__(self) -> None:
        self._shard: Any = None
        self._parameters: Any = None

    def parameters(self) -> dict[str, object]:
        return {"index": "HNSW", "m": LINKS, "ef_construct": EF_CONSTRUCTION, "batch_size": BATCH_SIZE}

    def create(self, folder: Path, layout: Layout) -> None:
        folder.mkdir(parents=True)
        graph = edge.HnswIndexConfig(LINKS, EF_CONSTRUCTION, FULL_SCAN_KB)
        vectors = edge.EdgeVectorParams(size=layout.dim, distance=edge.Distance.Cosine, hnsw_config=graph)
        self._shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors))

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        points = [
            edge.Point(start + offset, vector, metadata)
            for offset, (vector, metadata) in enumerate(zip(vectors.tolist(), metadatas, strict=True))
        ]
        self._shard.update(edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        self._shard.flush()
        self._shard.optimize()

    def open(self, folder: Path) -> None:
        self._shard = edge.EdgeShard.load(str(folder))

    def use(self, setting: Setting) -> None:
        self._parameters = edge.SearchParams(hnsw_ef=setting.get("ef"))

    def query(self, vector: Floats, k: int) -> object:
        nearest = edge.Query.Nearest(vector.tolist())
        return self._shard.query(
            edge.QueryRequest(limit=k, query=nearest, with_payload=True, with_vector=False, params=self._parameters)
        )

    def ids(self, answer: Any) -> list[int]:
        return [int(point.id) for point in answer]

    def close(self) -> None:
        self._shard.close()
