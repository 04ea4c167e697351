"""DuckDB with vectors as arrays. It documents ACID transactions and no setting for them. (Its index extension has to
be downloaded, and keeps its index out of the log; nothing of it is used here.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from crash.peers.child import DIM

LABEL = "DuckDB"
PACKAGES = ("duckdb",)
SETTING = "transactions; has no setting for it"


class Peer:
    def open(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._connection = duckdb.connect(str(folder / "db.duckdb"))
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS items(id BIGINT PRIMARY KEY, v FLOAT[{DIM}], text VARCHAR)"
        )

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        rows = [(key, vector.tolist(), text) for key, vector, text in zip(keys, vectors, texts, strict=True)]
        self._connection.begin()
        self._connection.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        self._connection.commit()

    def read(self) -> dict[int, tuple[Any, str | None]]:
        rows = self._connection.execute("SELECT id, v, text FROM items").fetchall()
        return {key: (vector, text) for key, vector, text in rows}
