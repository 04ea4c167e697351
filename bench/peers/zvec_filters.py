"""zvec: HNSW and an inverted index, with range optimisation, on each filtered field, as its documentation advises."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zvec

from bench.datasets import Floats
from bench.filters.cases import Filter
from bench.filters.scale import BATCH_SIZE
from bench.peers.filtering import FilterBuild, Setting

LINKS, EF_CONSTRUCTION = 16, 200
VECTOR = "embedding"


class FilterBackend:
    """Inserted in batches, flushed and optimised, then asked with output of all fields."""

    label = "zvec"
    packages: tuple[str, ...] = ("zvec", "numpy")
    syncs = "writes a log that it does not sync; `flush` was called once after the load"
    settings: tuple[Setting, ...] = tuple({"ef": ef} for ef in (20, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 2000))
    exact_settings: tuple[Setting, ...] = ({"linear": 1},)

    def __init__(self) -> None:
        self._collection: Any = None
        zvec.init(log_level=zvec.LogLevel.ERROR)

    def parameters(self) -> dict[str, object]:
        return {"index": "HNSW", "M": LINKS, "ef_construction": EF_CONSTRUCTION, "scalar": "InvertIndexParam, range"}

    def build(
        self, vectors: Floats, metadatas: list[dict[str, object]], indexed: list[str], folder: Path
    ) -> FilterBuild:
        inverted = zvec.InvertIndexParam(enable_range_optimization=True)
        fields = [
            zvec.FieldSchema(
                name,
                zvec.DataType.INT64 if isinstance(value, int) else zvec.DataType.STRING,
                index_param=inverted if name in indexed else None,
            )
            for name, value in metadatas[0].items()
        ]
        graph = zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE, m=LINKS, ef_construction=EF_CONSTRUCTION)
        vector = zvec.VectorSchema(VECTOR, zvec.DataType.VECTOR_FP32, vectors.shape[1], index_param=graph)
        started = time.perf_counter()
        folder.parent.mkdir(parents=True, exist_ok=True)
        schema = zvec.CollectionSchema(name="bench", fields=fields, vectors=vector)
        self._collection = zvec.create_and_open(str(folder), schema)
        for start in range(0, len(vectors), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(vectors)))
            outcomes = self._collection.insert(
                [zvec.Doc(id=str(row), vectors={VECTOR: vectors[row]}, fields=metadatas[row]) for row in rows]
            )
            if not all(outcome.ok() for outcome in outcomes):
                raise RuntimeError(f"zvec refused some of the rows from {start} on")
        written = time.perf_counter() - started
        self._collection.flush()
        self._collection.optimize()
        return FilterBuild(written, time.perf_counter() - started)

    def open(self, folder: Path) -> None:
        self._collection = zvec.open(str(folder))

    def native(self, condition: Filter | None) -> object:
        return None if condition is None else f"{condition.field} {condition.operator} {condition.value}"

    def query(self, vector: Floats, k: int, condition: Any, setting: Setting) -> object:
        if setting.get("linear"):
            parameters = zvec.HnswQueryParam(is_linear=True)
        else:
            parameters = zvec.HnswQueryParam(ef=setting["ef"])
        asked = zvec.Query(field_name=VECTOR, vector=vector, param=parameters)
        return self._collection.query(asked, topk=k, filter=condition)

    def ids(self, answer: Any) -> list[int]:
        return [int(document.id) for document in answer]

    def close(self) -> None:
        self._collection.close()
