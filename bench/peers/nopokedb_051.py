"""The original NoPokeDB, release 0.5.1 from PyPI (hnswlib and SQLite), run from a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nopokedb
from bench.datasets import Floats
from bench.peers import Layout, Metadata, Peer, Setting
from bench.scale import BATCH_SIZE

DEFAULT_EF = 50  # of its constructor


def require_original() -> None:
    """Raises RuntimeError when the package that got imported is not the original release."""
    if nopokedb.__version__ != "0.5.1":
        raise RuntimeError(f"expected nopokedb 0.5.1, imported {nopokedb.__version__} from {nopokedb.__file__}")


class Backend(Peer):
    """Built by `add_many`, which syncs its operation log; its index reaches the disk only in `save`."""

    label = "NoPokeDB 0.5.1"
    packages: tuple[str, ...] = ("nopokedb", "hnswlib", "numpy")
    syncs = "syncs its operation log before a write returns"
    largest_effort = 10_000
    takes_threads = False  # its SQLite connection belongs to the thread that opened it

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

    def _open(self, folder: Path, dim: int, count: int) -> None:
        # Positional, and `space` by name: the arguments of that release.
        self._db = nopokedb.NoPokeDB(dim, count, str(folder), space="cosine")

    def create(self, folder: Path, layout: Layout) -> None:
        self._open(folder, layout.dim, layout.count)
        (folder / "bench-layout").write_text(f"{layout.dim} {layout.count}")

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        self._db.add_many(vectors, metadatas)

    def add_one(self, row: int, vector: Floats, metadata: Metadata) -> None:
        self._db.add(vector, metadata)

    def save(self, folder: Path) -> None:
        self._db.save()

    def open(self, folder: Path) -> None:
        dim, count = (folder / "bench-layout").read_text().split()
        self._open(folder, int(dim), int(count))

    def use(self, setting: Setting) -> None:
        # A given ef sticks to its index, so the default has to be given back by value.
        self._ef = setting.get("ef", DEFAULT_EF)

    def query(self, vector: Floats, k: int) -> object:
        # hnswlib answers a single query on one thread whatever it was set to.
        return self._db.query(vector, k=k, ef=self._ef)

    def ids(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    def close(self) -> None:
        self._db.close()
