"""This project, filtered: defaults throughout, every batch synced, the filtered fields indexed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.filters.scale import BATCH_SIZE
from bench.peers.filtering import FilterBuild, Setting
from bench.peers.nopokedb_ours import settle
from nopokedb import NoPokeDB

OPERATORS = {"<": "$lt", "=": "$eq"}


def where(condition: Filter | None) -> dict[str, Any] | None:
    """The filter as `where=` takes it."""
    return None if condition is None else {condition.field: {OPERATORS[condition.operator]: condition.value}}


class FilterBackend:
    """One setting, the default: it asks for a recall of 0.99."""

    label = "NoPokeDB"
    packages: tuple[str, ...] = ("nopokedb", "faiss-cpu", "numpy", "apsw", "orjson")
    syncs = "syncs its log before a write returns"
    settings: tuple[Setting, ...] = ({},)
    exact_settings: tuple[Setting, ...] = ()

    def __init__(self) -> None:
        self._db: Any = None

    def parameters(self) -> dict[str, object]:
        return {"index": "auto", "durability": "full", "batch_size": BATCH_SIZE, "build_threads": os.cpu_count()}

    def build(
        self, vectors: Floats, metadatas: list[dict[str, object]], indexed: list[str], folder: Path
    ) -> FilterBuild:
        started = time.perf_counter()
        self._db = NoPokeDB(vectors.shape[1], path=folder, space="cosine")
        for start in range(0, len(vectors), BATCH_SIZE):
            self._db.add_many(vectors[start : start + BATCH_SIZE], metadatas[start : start + BATCH_SIZE])
        written = time.perf_counter() - started
        for field in indexed:
            self._db.create_index(field)
        settle(self._db)
        return FilterBuild(written, time.perf_counter() - started)

    def open(self, folder: Path) -> None:
        self._db = NoPokeDB(path=folder)
        settle(self._db)

    def native(self, condition: Filter | None) -> object:
        return where(condition)

    def query(self, vector: Floats, k: int, condition: object, setting: Setting) -> object:
        return self._db.query(vector, k=k, where=condition)

    def ids(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    def close(self) -> None:
        self._db.close()
