"""This project: a folder on disk, every batch synced, metadata stored and returned with each hit."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  # the engine imports it when a collection is opened, which would count as opening

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.peers import FilterPeer, Layout, Metadata, Setting
from bench.scale import BATCH_SIZE
from nopokedb import NoPokeDB

SETTLE_LIMIT_S = 1_800
POLL_S = 0.01
"""There is no event to wait for, and the sealing itself takes far longer."""
OPERATORS = {"<": "$lt", "=": "$eq"}


def settle(db: Any) -> None:
    """Waits until the background has built its indexes, so that none of that runs between the queries."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while db.stats().sealing:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the background work did not end within {SETTLE_LIMIT_S} s")
        time.sleep(POLL_S)


def where(condition: Filter | None) -> dict[str, Any] | None:
    """The filter as `where=` takes it."""
    return None if condition is None else {condition.field: {OPERATORS[condition.operator]: condition.value}}


class Backend(FilterPeer):
    """Defaults, which ask for a recall of 0.99; an effort of 1,000 asks for 0.9, 2,000 for 0.99, 3,000 for 0.999."""

    packages: tuple[str, ...] = ("nopokedb", "faiss-cpu", "rabitqlib", "numpy", "apsw", "orjson", "google-crc32c")
    syncs = "syncs its log before a write returns"
    filter_settings: tuple[Setting, ...] = ({},)
    largest_effort = 3_000
    curve = (700, 1_000, 1_300, 1_700, 2_000, 2_300, 3_000)

    def __init__(self, index: str = "auto") -> None:
        self.label = "NoPokeDB" if index == "auto" else f"NoPokeDB, {index}"
        self._index = index
        self._db: Any = None
        self._options: Setting = {}

    def parameters(self) -> dict[str, object]:
        return {
            "index": self._index,
            "durability": "full",
            "batch_size": BATCH_SIZE,
            "build_threads": os.cpu_count(),
        }

    def create(self, folder: Path, layout: Layout) -> None:
        self._db = NoPokeDB(layout.dim, path=folder, space="cosine", index=self._index, indexed_fields=layout.indexed)  # type: ignore[arg-type]

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        self._db.add_many(vectors, metadatas)

    def add_one(self, row: int, vector: Floats, metadata: Metadata) -> None:
        self._db.add(vector, metadata)

    def finish(self) -> None:
        self._db.optimize()  # a graph that nothing asks for would else be begun seconds later, among the queries
        settle(self._db)

    def open(self, folder: Path) -> None:
        self._db = NoPokeDB(path=folder)

    def setting(self, effort: int) -> Setting:
        return {"target_recall": round(1.0 - 10.0 ** (-effort / 1_000), 4)}

    def use(self, setting: Setting) -> None:
        self._options = setting
        settle(self._db)  # opening may have found something left to build

    def native(self, condition: Filter | None) -> object:
        return where(condition)

    def query(self, vector: Floats, k: int, condition: Any = None) -> object:
        return self._db.query(vector, k=k, where=condition, **self._options)

    def ids(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    @property
    def handle(self) -> NoPokeDB:
        """For what only this project is measured on."""
        db: NoPokeDB = self._db
        return db

    def close(self) -> None:
        self._db.close()
