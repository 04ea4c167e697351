"""sqlite-vec. SQLite's documentation: in WAL mode a commit is durable with synchronous=FULL; EXTRA asks for no less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import numpy as np
import sqlite_vec

from crash.peers.child import DIM

LABEL = "sqlite-vec"
PACKAGES = ("sqlite-vec", "apsw")
SETTING = "journal_mode=WAL, synchronous=EXTRA"


class Peer:
    def open(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._connection = apsw.Connection(str(folder / "db.sqlite"))
        self._connection.enable_load_extension(True)
        self._connection.load_extension(sqlite_vec.loadable_path())
        assert self._connection.execute("PRAGMA journal_mode=WAL").fetchall() == [("wal",)]
        self._connection.execute("PRAGMA synchronous=EXTRA").fetchall()
        self._connection.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS items USING vec0(id INTEGER PRIMARY KEY, v FLOAT[{DIM}], +text TEXT)"
        )

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        with self._connection:
            self._connection.executemany(
                "INSERT INTO items(id, v, text) VALUES (?, ?, ?)",
                [(key, vector.tobytes(), text) for key, vector, text in zip(keys, vectors, texts, strict=True)],
            )

    def read(self) -> dict[int, tuple[Any, str | None]]:
        rows = self._connection.execute("SELECT id, v, text FROM items")
        return {key: (np.frombuffer(raw, np.float32), text) for key, raw, text in rows}
