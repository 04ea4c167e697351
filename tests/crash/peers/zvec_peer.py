"""zvec. Its documentation: `flush` forces pending writes to the disk; so each batch is flushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zvec

from crash.peers.child import DIM

LABEL = "zvec"
PACKAGES = ("zvec",)
SETTING = "insert, then flush()"


class Peer:
    def open(self, folder: Path) -> None:
        zvec.init(log_level=zvec.LogLevel.ERROR)
        if folder.exists():
            self._items = zvec.open(str(folder))
            return
        vector = zvec.VectorSchema(
            "vector", zvec.DataType.VECTOR_FP32, DIM, index_param=zvec.FlatIndexParam(metric_type=zvec.MetricType.L2)
        )
        text = zvec.FieldSchema("text", zvec.DataType.STRING)
        self._items = zvec.create_and_open(
            str(folder), zvec.CollectionSchema(name="items", fields=[text], vectors=vector)
        )

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        outcomes = self._items.insert(
            [
                zvec.Doc(id=str(key), vectors={"vector": vector}, fields={"text": text})
                for key, vector, text in zip(keys, vectors, texts, strict=True)
            ]
        )
        assert all(outcome.ok() for outcome in outcomes), "a batch was refused"
        self._items.flush()

    def read(self) -> dict[int, tuple[Any, str | None]]:
        return {int(doc.id): (doc.vectors["vector"], doc.fields["text"]) for doc in self._items.iter_docs()}
