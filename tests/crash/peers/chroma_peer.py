"""Chroma, embedded. It documents no setting for durability; records go through the log in its SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb

LABEL = "Chroma"
PACKAGES = ("chromadb",)
SETTING = "PersistentClient; has no setting for it"


class Peer:
    def open(self, folder: Path) -> None:
        client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
        self._items = client.get_or_create_collection("items", configuration={"hnsw": {"space": "l2"}})

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        self._items.add(ids=[str(key) for key in keys], embeddings=vectors, documents=texts)

    def read(self) -> dict[int, tuple[Any, str | None]]:
        found = self._items.get(include=["embeddings", "documents"])
        return {
            int(key): (vector, text)
            for key, vector, text in zip(found["ids"], found["embeddings"], found["documents"], strict=True)
        }
