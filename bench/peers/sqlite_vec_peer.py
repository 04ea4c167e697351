"""sqlite-vec: exact search over a `vec0` table, metadata in auxiliary columns, as its documentation shows.

It has no approximate index. WAL with `synchronous=FULL`, so that every commit is synced. Through apsw, because not
every Python's own `sqlite3` can load extensions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
import sqlite_vec

from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer
from bench.scale import BATCH_SIZE

FILE = "vectors.sqlite"
INSERT = "INSERT INTO items(rowid, embedding, metadata) VALUES (?, ?, ?)"
SELECT = "SELECT rowid, distance, metadata FROM items WHERE embedding MATCH ? AND k = ? ORDER BY distance"


class Backend(Peer):
    """One transaction per call of `add`; the metadata comes back with each hit and is parsed."""

    label = "sqlite-vec (exact)"
    packages: tuple[str, ...] = ("sqlite-vec", "apsw", "numpy")
    syncs = "syncs its write-ahead log in every commit (synchronous=FULL)"
    takes_threads = False  # a connection belongs to one thread

    def __init__(self) -> None:
        self._connection: apsw.Connection | None = None

    def parameters(self) -> dict[str, object]:
        return {"sqlite": apsw.sqlite_lib_version(), "distance_metric": "cosine", "batch_size": BATCH_SIZE}

    @property
    def _db(self) -> apsw.Connection:
        assert self._connection is not None
        return self._connection

    def _connect(self, folder: Path) -> None:
        self._connection = apsw.Connection(str(folder / FILE))
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.enable_load_extension(False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")

    def create(self, folder: Path, layout: Layout) -> None:
        folder.mkdir(parents=True)
        self._connect(folder)
        columns = f"embedding float[{int(layout.dim)}] distance_metric=cosine, +metadata TEXT"
        self._db.execute(f"CREATE VIRTUAL TABLE items USING vec0({columns})")

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        rows = range(start, start + len(vectors))
        blobs = (vector.tobytes() for vector in vectors)
        with self._db:
            self._db.executemany(INSERT, zip(rows, blobs, map(json.dumps, metadatas), strict=True))

    def open(self, folder: Path) -> None:
        self._connect(folder)

    def query(self, vector: Floats, k: int) -> object:
        found = self._db.execute(SELECT, (vector.tobytes(), k))
        return [(row, distance, json.loads(metadata)) for row, distance, metadata in found]

    def ids(self, answer: Any) -> list[int]:
        return [row for row, _, _ in answer]

    def close(self) -> None:
        self._db.close()
