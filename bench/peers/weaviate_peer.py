"""Weaviate, a server that has to run already: `WEAVIATE_URL`, such as http://localhost:8080, says where.

No published figure of this project comes from it: nothing here starts a server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import weaviate
from weaviate.classes.config import Configure, DataType, Property, VectorDistances
from weaviate.classes.data import DataObject
from weaviate.classes.query import MetadataQuery

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting
from bench.scale import BATCH_SIZE

URL = "WEAVIATE_URL"
GRPC_PORT = 50051
LINKS, EF_CONSTRUCTION, DEFAULT_EF = 32, 128, 100


class Backend(Peer):
    """A folder's name becomes a collection's; rows are numbered in their UUIDs."""

    label = "Weaviate"
    packages: tuple[str, ...] = ("weaviate-client", "numpy")
    syncs = "is a server: its log is written, and synced in the background"
    largest_effort = 10_000

    def __init__(self) -> None:
        if not os.environ.get(URL):
            raise RuntimeError(f"{URL} is not set")
        self._client: Any = None
        self._collection: Any = None

    def parameters(self) -> dict[str, object]:
        return {
            "index": "HNSW",
            "max_connections": LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "batch_size": BATCH_SIZE,
        }

    def _connect(self) -> None:
        url = urlsplit(os.environ[URL])
        host, secure = url.hostname or "localhost", url.scheme == "https"
        self._client = weaviate.connect_to_custom(
            http_host=host,
            http_port=url.port or (443 if secure else 80),
            http_secure=secure,
            grpc_host=host,
            grpc_port=GRPC_PORT,
            grpc_secure=secure,
        )

    def create(self, folder: Path, layout: Layout) -> None:
        self._connect()
        name = _name(folder)
        self._client.collections.delete(name)
        index = Configure.VectorIndex.hnsw(
            distance_metric=VectorDistances.COSINE, max_connections=LINKS, ef_construction=EF_CONSTRUCTION
        )
        properties = [
            Property(name=field, data_type=DataType.INT if isinstance(value, int) else DataType.TEXT)
            for field, value in layout.example.items()
        ]
        vectors = Configure.Vectors.self_provided(vector_index_config=index)
        self._collection = self._client.collections.create(name, vector_config=vectors, properties=properties)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        objects = [
            DataObject(properties=metadata, uuid=UUID(int=start + offset), vector=vector.tolist())
            for offset, (vector, metadata) in enumerate(zip(vectors, metadatas, strict=True))
        ]
        outcome = self._collection.data.insert_many(objects)
        if outcome.has_errors:
            raise RuntimeError(f"Weaviate refused some of the rows from {start} on")

    def open(self, folder: Path) -> None:
        self._connect()
        self._collection = self._client.collections.get(_name(folder))

    def use(self, setting: Setting) -> None:
        from weaviate.classes.config import Reconfigure

        graph = Reconfigure.VectorIndex.hnsw(ef=setting.get("ef", DEFAULT_EF))
        self._collection.config.update(vector_config=Reconfigure.Vectors.update(vector_index_config=graph))

    def query(self, vector: Floats, k: int) -> object:
        wanted = MetadataQuery(distance=True)
        return self._collection.query.near_vector(vector.tolist(), limit=k, return_metadata=wanted).objects

    def ids(self, answer: Any) -> list[int]:
        return [UUID(str(found.uuid)).int for found in answer]

    def close(self) -> None:
        self._client.close()


def _name(folder: Path) -> str:
    return "Bench_" + "".join(part if part.isalnum() else "_" for part in folder.name)
