"""LanceDB on a local folder. Each `add` is a version of its own; it documents no setting for durability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import pyarrow

from crash.peers.child import DIM

LABEL = "LanceDB"
PACKAGES = ("lancedb",)
SETTING = "connect(folder); has no setting for it"
_SCHEMA = pyarrow.schema([
    ("id", pyarrow.int64()),
    ("vector", pyarrow.list_(pyarrow.float32(), DIM)),
    ("text", pyarrow.string()),
])  # fmt: skip


class Peer:
    def open(self, folder: Path) -> None:
        self._table = lancedb.connect(str(folder)).create_table("items", schema=_SCHEMA, exist_ok=True)

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        flat = pyarrow.array(vectors.reshape(-1))
        columns = [pyarrow.array(keys, pyarrow.int64()), pyarrow.FixedSizeListArray.from_arrays(flat, DIM)]
        self._table.add(pyarrow.table([*columns, pyarrow.array(texts)], schema=_SCHEMA))

    def read(self) -> dict[int, tuple[Any, str | None]]:
        return {row["id"]: (row["vector"], row["text"]) for row in self._table.to_arrow().to_pylist()}
