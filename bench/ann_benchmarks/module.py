"""NoPokeDB as an algorithm of ann-benchmarks: built from all vectors at once, asked one query at a time.

The harness imports this file as `ann_benchmarks.algorithms.nopokedb.module`, with its base class beside it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nopokedb import NoPokeDB

BaseANN: Any = import_module("ann_benchmarks.algorithms.base.module").BaseANN

SPACES = {"angular": "cosine", "euclidean": "l2"}
BATCH_SIZE = 10_000
POLL_S = 0.05


class NoPokeANN(BaseANN):  # type: ignore[misc]  # the harness has no types
    """A collection in a temporary folder. `index` is a kind of NoPokeDB; the query argument is the recall asked for."""

    def __init__(self, metric: str, index: str = "auto") -> None:
        if metric not in SPACES:
            raise NotImplementedError(f"expected a metric of {', '.join(SPACES)}, got {metric}")
        self._space, self._index = SPACES[metric], index
        self._folder = Path(tempfile.mkdtemp(prefix="nopokedb-ann-"))
        self._db: Any = None
        self._target_recall: float | None = None
        self.name = f"nopokedb({index})"

    def fit(self, X: NDArray[np.float32]) -> None:
        """Stores every row and waits until all are indexed."""
        self._db = NoPokeDB(
            X.shape[1],
            path=self._folder / "collection",
            space=self._space,  # type: ignore[arg-type]
            index=self._index,  # type: ignore[arg-type]
        )
        for start in range(0, len(X), BATCH_SIZE):
            self._db.add_many(X[start : start + BATCH_SIZE])
        while self._db.stats().sealing:
            time.sleep(POLL_S)

    def set_query_arguments(self, target_recall: float) -> None:
        """Sets the recall that queries from here on ask for."""
        self._target_recall = target_recall
        self.name = f"nopokedb({self._index}, target_recall={target_recall})"

    def query(self, q: NDArray[np.float32], n: int) -> list[int]:
        """Rows of the n nearest, best first."""
        hits = self._db.query(q, k=n, target_recall=self._target_recall, include=())
        return [hit["id"] for hit in hits]

    def batch_query(self, X: NDArray[np.float32], n: int) -> None:
        """Answers all queries at once, on all cores."""
        self.res = self._db.query_many(X, k=n, target_recall=self._target_recall, include=())

    def get_batch_results(self) -> list[list[int]]:
        """What `batch_query` found."""
        return [[hit["id"] for hit in hits] for hits in self.res]

    def done(self) -> None:
        """Closes the collection and removes it."""
        if self._db is not None:
            self._db.close()
        shutil.rmtree(self._folder, ignore_errors=True)
