"""Milvus Lite: HNSW with the shape that Milvus documents, loaded into memory, metadata returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymilvus import DataType, MilvusClient

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting
from bench.scale import BATCH_SIZE

NAME, FILE = "bench", "milvus.db"
LINKS, EF_CONSTRUCTION, DEFAULT_EF = 16, 200, 64


class Backend(Peer):
    """The index is made after the load, as its documentation advises."""

    label = "Milvus Lite"
    packages: tuple[str, ...] = ("milvus-lite", "pymilvus", "numpy")
    syncs = "syncs nothing; `flush` is called once after the load, which does"
    largest_effort = 5_000

    def __init__(self) -> None:
        self._client: Any = None
        self._fields: list[str] = []
        self._search: dict[str, Any] = {}

    def parameters(self) -> dict[str, object]:
        return {"index": "HNSW", "M": LINKS, "efConstruction": EF_CONSTRUCTION, "batch_size": BATCH_SIZE}

    def create(self, folder: Path, layout: Layout) -> None:
        folder.mkdir(parents=True)
        self._client = MilvusClient(str(folder / FILE))
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=layout.dim)
        for name, value in layout.example.items():
            if isinstance(value, int):
                schema.add_field(name, DataType.INT64)
            else:
                schema.add_field(name, DataType.VARCHAR, max_length=256)
        self._client.create_collection(NAME, schema=schema)
        self._fields = list(layout.example)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        rows = [
            {"id": start + offset, "vector": vector, **metadata}
            for offset, (vector, metadata) in enumerate(zip(vectors, metadatas, strict=True))
        ]
        self._client.insert(NAME, rows)

    def finish(self) -> None:
        self._client.flush(NAME)
        index = self._client.prepare_index_params()
        shape = {"M": LINKS, "efConstruction": EF_CONSTRUCTION}
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=shape)
        self._client.create_index(NAME, index)
        self._client.load_collection(NAME)

    def open(self, folder: Path) -> None:
        self._client = MilvusClient(str(folder / FILE))
        self._client.load_collection(NAME)
        described = self._client.describe_collection(NAME)["fields"]
        self._fields = [field["name"] for field in described if field["name"] not in ("id", "vector")]

    def use(self, setting: Setting) -> None:
        self._search = {"metric_type": "COSINE", "params": {"ef": setting.get("ef", DEFAULT_EF)}}

    def query(self, vector: Floats, k: int) -> object:
        return self._client.search(
            NAME, [vector], limit=k, anns_field="vector", search_params=self._search, output_fields=self._fields
        )[0]

    def ids(self, answer: Any) -> list[int]:
        return [int(hit["id"]) for hit in answer]

    def close(self) -> None:
        self._client.close()
