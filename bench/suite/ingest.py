"""The process that fills one database again and again: in batches, and row by row from one thread and from several.

Run by the driver as `python -m bench.suite.ingest NAME DATA FOLDER`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import peers
from bench.conversation import serve
from bench.datasets import metadata_for
from bench.peers import Layout
from bench.scale import BATCH_SIZE
from bench.suite import data
from bench.timing import together


class Child:
    """One database, made anew for each measurement."""

    def __init__(self, name: str, data_folder: Path, folder: Path) -> None:
        self._peer = peers.load(name)
        self._vectors = np.ascontiguousarray(data.read(data_folder).vectors)
        self._metadatas = metadata_for(len(self._vectors))
        self._folder = folder

    def about(self) -> dict[str, Any]:
        """What the backend is."""
        peer = self._peer
        return {"label": peer.label, "syncs": peer.syncs, "takes_threads": peer.takes_threads}

    def _create(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        count, dim = self._vectors.shape
        self._peer.create(self._folder, Layout(dim, count, self._metadatas[0]))

    def _discard(self) -> None:
        self._peer.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def batches(self, seconds: float) -> dict[str, float]:
        """Rows a second in batches of 1,000, until the time is over or the data is."""
        self._create()
        started, stored = time.perf_counter(), 0
        while stored < len(self._vectors):
            part = slice(stored, stored + BATCH_SIZE)
            self._peer.add(stored, self._vectors[part], self._metadatas[part])
            stored += len(self._metadatas[part])
            if time.perf_counter() - started > seconds:
                break
        rate = stored / (time.perf_counter() - started)
        self._discard()
        return {"per_s": rate, "stored_count": stored}

    def singles(self, seconds: float, thread_count: int) -> dict[str, float]:
        """Rows a second, each acknowledged before its thread adds the next."""
        self._create()
        counts = [0] * thread_count

        def work(number: int) -> None:
            deadline = time.perf_counter() + seconds
            for row in range(number, len(self._vectors), thread_count):
                self._peer.add_one(row, self._vectors[row], self._metadatas[row])
                counts[number] += 1
                if time.perf_counter() > deadline:
                    break

        if thread_count == 1:  # in this thread: some databases belong to the one that opened them
            started = time.perf_counter()
            work(0)
            spent = time.perf_counter() - started
        else:
            spent = together(work, thread_count)
        self._discard()
        return {"per_s": sum(counts) / spent, "stored_count": sum(counts)}

    def actions(self) -> dict[str, Callable[..., Any]]:
        """What the driver may ask for."""
        return {"about": self.about, "batches": self.batches, "singles": self.singles}


if __name__ == "__main__":
    serve(lambda: Child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).actions())
