"""This project: a folder on disk, every batch synced, metadata stored and returned with each hit."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench.datasets import Floats, metadata_for
from bench.peers import Build
from bench.scale import BATCH_SIZE
from nopokedb import NoPokeDB

SETTLE_LIMIT_S = 900


def settle(db: Any) -> None:
    """Waits until the background has built its indexes, so that none of that runs between the queries."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while db.stats().sealing:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the background work did not end within {SETTLE_LIMIT_S} s")
        time.sleep(0.01)  # polled: there is no event to wait for, and the sealing itself takes far longer


class Backend:
    """Defaults throughout: `ef=None` asks for a recall of 0.99, a number sets the candidate list's length."""

    label = "NoPokeDB"
    packages: tuple[str, ...] = ("nopokedb", "faiss-cpu", "numpy", "apsw", "orjson", "google-crc32c")
    table_efs: tuple[int | None, ...] = (None, 40, 100, 200)
    sweep_efs: tuple[int, ...] = (10, 20, 40, 100, 200, 400)

    def __init__(self) -> None:
        self._db: Any = None
        self._ef: int | None = None

    def parameters(self) -> dict[str, object]:
        return {
            "index": "auto",
            "durability": "full",
            "batch_size": BATCH_SIZE,
            "build_threads": os.cpu_count(),
        }

    def build(self, vectors: Floats, folder: Path) -> Build:
        metadatas = metadata_for(len(vectors))
        started = time.perf_counter()
        self._db = NoPokeDB(vectors.shape[1], path=folder, space="cosine")
        for start in range(0, len(vectors), BATCH_SIZE):
            self._db.add_many(vectors[start : start + BATCH_SIZE], metadatas[start : start + BATCH_SIZE])
        acknowledged = time.perf_counter() - started
        settle(self._db)
        return Build(time.perf_counter() - started, acknowledged_seconds=acknowledged, save_seconds=0.0)

    def set_ef(self, ef: int | None) -> None:
        self._ef = ef

    def query(self, vector: Floats, k: int) -> object:
        return self._db.query(vector, k=k, ef=self._ef)

    def ids(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    def close(self) -> None:
        self._db.close()
