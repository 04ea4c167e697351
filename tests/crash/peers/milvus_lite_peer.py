"""Milvus Lite. Its log can sync every batch, but nothing public says so; Milvus documents `flush` for durability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milvus_lite import MilvusLite
from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema

from crash.peers.child import DIM

LABEL = "Milvus Lite"
PACKAGES = ("milvus-lite",)
SETTING = "insert, then flush()"


class Peer:
    def open(self, folder: Path) -> None:
        database = MilvusLite(str(folder))
        if database.has_collection("items"):
            self._items = database.get_collection("items")
        else:
            fields = [
                FieldSchema("id", DataType.INT64, is_primary=True),
                FieldSchema("v", DataType.FLOAT_VECTOR, dim=DIM),
                FieldSchema("text", DataType.VARCHAR, max_length=1000),
            ]
            self._items = database.create_collection("items", CollectionSchema(fields))
        self._items.load()

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        rows = zip(keys, vectors, texts, strict=True)
        self._items.insert([{"id": key, "v": vector.tolist(), "text": text} for key, vector, text in rows])
        self._items.flush()

    def read(self) -> dict[int, tuple[Any, str | None]]:
        rows = self._items.query("id >= 0", output_fields=["id", "v", "text"])
        return {row["id"]: (row["v"], row["text"]) for row in rows}
