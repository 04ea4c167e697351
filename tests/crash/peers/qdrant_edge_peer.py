"""Qdrant Edge. Its documentation: `flush` writes pending changes to the disk; so each batch is flushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qdrant_edge as edge

from crash.peers.child import DIM

LABEL = "Qdrant Edge"
PACKAGES = ("qdrant-edge-py",)
SETTING = "update, then flush()"
_PAGE = 1000


class Peer:
    def open(self, folder: Path) -> None:
        if folder.exists():
            self._shard = edge.EdgeShard.load(str(folder))
            return
        vectors = {"v": edge.EdgeVectorParams(size=DIM, distance=edge.Distance.Euclid)}
        self._shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=vectors))

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        points = [
            edge.Point(key, {"v": vector.tolist()}, {"text": text})
            for key, vector, text in zip(keys, vectors, texts, strict=True)
        ]
        self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def read(self) -> dict[int, tuple[Any, str | None]]:
        found: dict[int, tuple[Any, str | None]] = {}
        offset = None
        while True:
            page = edge.ScrollRequest(limit=_PAGE, offset=offset, with_payload=True, with_vector=True)
            records, offset = self._shard.scroll(page)
            found |= {record.id: (record.vector["v"], record.payload["text"]) for record in records}
            if offset is None:
                return found
