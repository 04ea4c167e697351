"""LanceDB: IVF_HNSW_SQ in one partition, refined, and a BTREE or BITMAP index on each filtered field.

One partition is what its reference recommends for HNSW; BITMAP below 1,000 distinct values, else BTREE, is its advice
for scalar indexes. At 100,000 records its documentation also considers searching without an index, so that is tried
too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import pyarrow

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.peers import FilterPeer, Layout, Metadata, Setting
from bench.scale import BATCH_SIZE, K

NAME = "bench"
LINKS, EF_CONSTRUCTION = 20, 300  # its defaults
FEW_VALUES = 1_000


class Backend(FilterPeer):
    """Filters are applied before the search (prefilter, its default); vectors are not among the columns returned."""

    label = "LanceDB"
    packages: tuple[str, ...] = ("lancedb", "pyarrow", "numpy")
    syncs = "syncs nothing"
    exact_settings: tuple[Setting, ...] = ({"exact": 1},)
    largest_effort = 2_000

    def __init__(self) -> None:
        self._table: Any = None
        self._fields: list[str] = []
        self._values: dict[str, set[object]] = {}
        self._setting: Setting = {}
        self.filter_settings = tuple(self.setting(ef) for ef in (30, 60, 100, 200, 400, 800))

    def parameters(self) -> dict[str, object]:
        shape = {"num_partitions": 1, "m": LINKS, "ef_construction": EF_CONSTRUCTION}
        return {"index": "IVF_HNSW_SQ", **shape, "batch_size": BATCH_SIZE}

    def create(self, folder: Path, layout: Layout) -> None:
        kinds = {
            name: pyarrow.int64() if isinstance(value, int) else pyarrow.string()
            for name, value in layout.example.items()
        }
        vector = pyarrow.list_(pyarrow.float32(), layout.dim)
        schema = pyarrow.schema({"id": pyarrow.int64(), "vector": vector, **kinds})
        self._table = lancedb.connect(str(folder)).create_table(NAME, schema=schema)
        self._fields = ["id", *layout.example]
        self._values = {name: set() for name in layout.indexed}

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        flat = pyarrow.array(vectors.reshape(-1))
        columns: dict[str, Any] = {"id": pyarrow.array(range(start, start + len(vectors)), pyarrow.int64())}
        columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        columns |= {name: pyarrow.array([each[name] for each in metadatas]) for name in metadatas[0]}
        for name, values in self._values.items():
            values.update(each[name] for each in metadatas)
        self._table.add(pyarrow.table(columns))

    def finish(self) -> None:
        self._table.optimize()  # one fragment instead of one per batch
        self._table.create_index(
            metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=LINKS, ef_construction=EF_CONSTRUCTION
        )
        for name in self._values:
            few = len(self._values[name]) < FEW_VALUES
            self._table.create_scalar_index(name, index_type="BITMAP" if few else "BTREE")

    def open(self, folder: Path) -> None:
        self._table = lancedb.connect(str(folder)).open_table(NAME)
        self._fields = [name for name in self._table.schema.names if name != "vector"]

    def setting(self, effort: int) -> Setting:
        refine = 3 if effort < 100 else 5 if effort < 400 else 10
        return {"ef": max(effort, refine * K), "refine": refine}  # fewer candidates than it refines are an error

    def use(self, setting: Setting) -> None:
        self._setting = setting

    def native(self, condition: Filter | None) -> object:
        return None if condition is None else f"{condition.field} {condition.operator} {condition.value}"

    def query(self, vector: Floats, k: int, condition: Any = None) -> object:
        search = self._table.search(vector).distance_type("cosine").select([*self._fields, "_distance"]).limit(k)
        if condition is not None:
            search = search.where(condition)
        if self._setting.get("exact"):
            search = search.bypass_vector_index()
        elif self._setting:
            search = search.ef(self._setting["ef"]).refine_factor(self._setting["refine"])
        return search.to_list()

    def ids(self, answer: Any) -> list[int]:
        return [row["id"] for row in answer]

    def close(self) -> None:
        self._table = None
