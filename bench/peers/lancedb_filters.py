"""LanceDB: IVF_HNSW_SQ in one partition, refined, and a BTREE or BITMAP index on each filtered field.

One partition is what its reference recommends for HNSW; BITMAP below 1,000 distinct values, else BTREE, is its advice
for scalar indexes. At this size its documentation also considers searching without an index, so that is tried too.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lancedb
import pyarrow

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.filters.scale import BATCH_SIZE
from bench.peers.filtering import FilterBuild, Setting

NAME = "bench"
LINKS, EF_CONSTRUCTION = 20, 300  # its defaults
FEW_VALUES = 1_000


class FilterBackend:
    """Filters are applied before the search (prefilter, its default); vectors are not among the columns returned."""

    label = "LanceDB"
    packages: tuple[str, ...] = ("lancedb", "pyarrow", "numpy")
    syncs = "syncs nothing"
    settings: tuple[Setting, ...] = tuple(
        {"ef": ef, "refine": refine} for ef, refine in ((30, 3), (60, 3), (100, 5), (200, 5), (400, 10), (800, 10))
    )
    exact_settings: tuple[Setting, ...] = ({"exact": 1},)

    def __init__(self) -> None:
        self._table: Any = None
        self._fields: list[str] = []

    def parameters(self) -> dict[str, object]:
        return {"index": "IVF_HNSW_SQ", "num_partitions": 1, "m": LINKS, "ef_construction": EF_CONSTRUCTION}

    def build(
        self, vectors: Floats, metadatas: list[dict[str, object]], indexed: list[str], folder: Path
    ) -> FilterBuild:
        started = time.perf_counter()
        database = lancedb.connect(str(folder))
        for start in range(0, len(vectors), BATCH_SIZE):
            part = vectors[start : start + BATCH_SIZE]
            flat = pyarrow.array(part.reshape(-1))
            columns: dict[str, Any] = {"id": pyarrow.array(range(start, start + len(part)), pyarrow.int64())}
            columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            for name in metadatas[0]:
                columns[name] = pyarrow.array([each[name] for each in metadatas[start : start + len(part)]])
            rows = pyarrow.table(columns)
            if start == 0:
                self._table = database.create_table(NAME, rows)
            else:
                self._table.add(rows)
        written = time.perf_counter() - started
        self._table.optimize()  # one fragment instead of one per batch
        self._table.create_index(
            metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=LINKS, ef_construction=EF_CONSTRUCTION
        )
        for name in indexed:
            few = len({each[name] for each in metadatas}) < FEW_VALUES
            self._table.create_scalar_index(name, index_type="BITMAP" if few else "BTREE")
        self._fields = ["id", *metadatas[0]]
        return FilterBuild(written, time.perf_counter() - started)

    def open(self, folder: Path) -> None:
        self._table = lancedb.connect(str(folder)).open_table(NAME)
        self._fields = [name for name in self._table.schema.names if name != "vector"]

    def native(self, condition: Filter | None) -> object:
        return None if condition is None else f"{condition.field} {condition.operator} {condition.value}"

    def query(self, vector: Floats, k: int, condition: Any, setting: Setting) -> object:
        search = self._table.search(vector).distance_type("cosine").select([*self._fields, "_distance"]).limit(k)
        if condition is not None:
            search = search.where(condition)
        if setting.get("exact"):
            search = search.bypass_vector_index()
        else:
            search = search.ef(setting["ef"]).refine_factor(setting["refine"])
        return search.to_list()

    def ids(self, answer: Any) -> list[int]:
        return [row["id"] for row in answer]

    def close(self) -> None:
        self._table = None
