"""NoPokeDB as a database of VectorDBBench.

The harness copies a client into other processes and calls `init` there: the one that loads opens the folder for
writing; once filters are prepared only searches follow, from several processes at once, which open it read-only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from vectordb_bench.backend.clients.api import VectorDB
from vectordb_bench.backend.filter import FilterOp

from nopokedb import NoPokeDB, NoPokeError

LABEL = "label"
POLL_S = 0.1


class NoPokeDBClient(VectorDB):  # type: ignore[misc]  # the harness has no types
    """One collection; ids are those of the harness, labels are metadata with an index."""

    supported_filter_types = [FilterOp.NonFilter, FilterOp.NumGE, FilterOp.StrEqual]  # noqa: RUF012
    name = "NoPokeDB"
    thread_safe = True

    def __init__(
        self,
        dim: int,
        db_config: dict[str, Any],
        db_case_config: Any,
        collection_name: str = "vector_bench_test",
        drop_old: bool = False,
        with_scalar_labels: bool = False,
        **_: Any,
    ) -> None:
        self._folder = Path(db_config["path"]) / collection_name
        self._search = db_case_config.search_param()
        self._has_labels = with_scalar_labels
        self._where: dict[str, Any] | None = None
        self._is_read_only = False
        self._db: Any = None
        if drop_old:
            shutil.rmtree(self._folder, ignore_errors=True)
            fields = (LABEL,) if with_scalar_labels else ()
            NoPokeDB(dim, path=self._folder, indexed_fields=fields, **db_case_config.index_param()).close()

    @contextmanager
    def init(self) -> Iterator[None]:
        """Opens the collection in this process, and closes it at the end."""
        self._db = NoPokeDB(path=self._folder, read_only=self._is_read_only)
        try:
            yield
        finally:
            self._db.close()
            self._db = None

    def insert_embeddings(
        self,
        embeddings: list[list[float]],
        metadata: list[int],
        labels_data: list[str] | None = None,
        tenant_labels_data: list[str] | None = None,
        **_: Any,
    ) -> tuple[int, Exception | None]:
        """Adds one durable batch; how many were stored, and the error if none was."""
        labels = [{LABEL: label} for label in labels_data] if self._has_labels and labels_data else None
        try:
            self._db.add_many(np.asarray(embeddings, np.float32), labels, ids=[int(name) for name in metadata])
        except (NoPokeError, OSError) as error:
            return 0, error
        return len(metadata), None

    def prepare_filter(self, filters: Any) -> None:
        """The condition of all queries from here on."""
        self._is_read_only = True
        if filters.type == FilterOp.NumGE:
            self._where = {"$id": {"$gte": int(filters.int_value)}}
        elif filters.type == FilterOp.StrEqual:
            self._where = {LABEL: filters.label_value}
        elif filters.type == FilterOp.NonFilter:
            self._where = None
        else:
            raise ValueError(f"expected a filter of {self.supported_filter_types}, got {filters.type}")

    def search_embedding(self, query: list[float], k: int = 100, **_: Any) -> list[int]:
        """Ids of the k nearest, best first."""
        return [hit["id"] for hit in self._db.query(query, k=k, where=self._where, include=(), **self._search)]

    def optimize(self, data_size: int | None = None) -> None:
        """Returns when everything that was added is indexed."""
        while self._db.stats().sealing:
            time.sleep(POLL_S)
