"""zvec: HNSW and an inverted index, with range optimisation, on each filtered field, as its documentation advises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zvec

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.peers import FilterPeer, Layout, Metadata, Setting
from bench.scale import BATCH_SIZE

LINKS, EF_CONSTRUCTION = 16, 200
VECTOR = "embedding"


class Backend(FilterPeer):
    """Inserted in batches, flushed and optimised, then asked with output of all fields."""

    label = "zvec"
    packages: tuple[str, ...] = ("zvec", "numpy")
    syncs = "writes a log that it does not sync; `flush` is called once after the load"
    filter_settings: tuple[Setting, ...] = tuple(
        {"ef": ef} for ef in (20, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)
    )
    exact_settings: tuple[Setting, ...] = ({"linear": 1},)
    largest_effort = 2_000

    def __init__(self) -> None:
        self._collection: Any = None
        self._parameters: Any = None
        zvec.init(log_level=zvec.LogLevel.ERROR)

    def parameters(self) -> dict[str, object]:
        return {
            "index": "HNSW",
            "M": LINKS,
            "ef_construction": EF_CONSTRUCTION,
            "scalar": "InvertIndexParam, range",
            "batch_size": BATCH_SIZE,
        }

    def create(self, folder: Path, layout: Layout) -> None:
        inverted = zvec.InvertIndexParam(enable_range_optimization=True)
        fields = [
            zvec.FieldSchema(
                name,
                zvec.DataType.INT64 if isinstance(value, int) else zvec.DataType.STRING,
                index_param=inverted if name in layout.indexed else None,
            )
            for name, value in layout.example.items()
        ]
        graph = zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE, m=LINKS, ef_construction=EF_CONSTRUCTION)
        vector = zvec.VectorSchema(VECTOR, zvec.DataType.VECTOR_FP32, layout.dim, index_param=graph)
        folder.parent.mkdir(parents=True, exist_ok=True)
        schema = zvec.CollectionSchema(name="bench", fields=fields, vectors=vector)
        self._collection = zvec.create_and_open(str(folder), schema)

    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        outcomes = self._collection.insert(
            [
                zvec.Doc(id=str(start + offset), vectors={VECTOR: vector}, fields=metadata)
                for offset, (vector, metadata) in enumerate(zip(vectors, metadatas, strict=True))
            ]
        )
        if not all(outcome.ok() for outcome in outcomes):
            raise RuntimeError(f"zvec refused some of the rows from {start} on")

    def finish(self) -> None:
        self._collection.flush()
        self._collection.optimize()

    def open(self, folder: Path) -> None:
        self._collection = zvec.open(str(folder))

    def use(self, setting: Setting) -> None:
        if setting.get("linear"):
            self._parameters = zvec.HnswQueryParam(is_linear=True)
        else:
            self._parameters = zvec.HnswQueryParam(ef=setting["ef"]) if setting else zvec.HnswQueryParam()

    def native(self, condition: Filter | None) -> object:
        return None if condition is None else f"{condition.field} {condition.operator} {condition.value}"

    def query(self, vector: Floats, k: int, condition: Any = None) -> object:
        asked = zvec.Query(field_name=VECTOR, vector=vector, param=self._parameters)
        return self._collection.query(asked, topk=k, filter=condition)

    def ids(self, answer: Any) -> list[int]:
        return [int(document.id) for document in answer]

    def close(self) -> None:
        self._collection.close()
