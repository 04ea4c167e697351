"""The original NoPokeDB, release 0.5.1 from PyPI (hnswlib and SQLite), run from a folder of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import nopokedb
from bench.datasets import Floats, metadata_for
from bench.peers import Build
from bench.scale import BATCH_SIZE

DEFAULT_EF = 50  # of its constructor


def require_original() -> None:
    """Raises RuntimeError when the package that got imported is not the original release."""
    if nopokedb.__version__ != "0.5.1":
        raise RuntimeError(f"expected nopokedb 0.5.1, imported {nopokedb.__version__} from {nopokedb.__file__}")


class Backend:
    """Built by `add_many`, which syncs its operation log; its index reaches the disk only in `save`."""

    label = "NoPokeDB 0.5.1"
    packages: tuple[str, ...] = ("nopokedb", "hnswlib", "numpy")
    table_efs: tuple[int | None, ...] = (None,)
    sweep_efs: tuple[int, ...] = (100, 200, 400, 640)

    def __init__(self) -> None:
        require_original()
        self._db: Any = None
        self._ef = DEFAULT_EF

    def parameters(self) -> dict[str, object]:
        return {
            "M": 16,
            "ef_construction": 200,
            "default_ef": DEFAULT_EF,
            "batch_size": BATCH_SIZE,
            "build_threads": os.cpu_count(),
        }

    def build(self, vectors: Floats, folder: Path) -> Build:
        metadatas = metadata_for(len(vectors))
        started = time.perf_counter()
        # Positional, and `space` by name: the arguments of that release.
        self._db = nopokedb.NoPokeDB(vectors.shape[1], len(vectors), str(folder), space="cosine")
        for start in range(0, len(vectors), BATCH_SIZE):
            self._db.add_many(vectors[start : start + BATCH_SIZE], metadatas[start : start + BATCH_SIZE])
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        self._db.save()
        return Build(seconds, acknowledged_seconds=seconds, save_seconds=time.perf_counter() - started)

    def set_ef(self, ef: int | None) -> None:
        # A given ef sticks to its index, so the default has to be given back by value.
        self._ef = DEFAULT_EF if ef is None else ef

    def query(self, vector: Floats, k: int) -> object:
        # hnswlib answers a single query on one thread whatever it was set to.
        return self._db.query(vector, k=k, ef=self._ef)

    def ids(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    def close(self) -> None:
        self._db.close()
