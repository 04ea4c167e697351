"""The adapters for harnesses of others keep to those harnesses' interfaces."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

COUNT, DIM, K = 500, 16, 10


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    return rng.standard_normal((COUNT, DIM)).astype(np.float32)


@pytest.fixture
def ann_benchmarks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the algorithm, with a base class that has what the harness' one has and calls what it calls."""

    class BaseANN:
        def done(self) -> None:
            return None

        def get_memory_usage(self) -> float | None:
            return None

        def __str__(self) -> str:
            return str(self.name)

    for name in ("ann_benchmarks", "ann_benchmarks.algorithms", "ann_benchmarks.algorithms.base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    base = ModuleType("ann_benchmarks.algorithms.base.module")
    base.BaseANN = BaseANN  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.delitem(sys.modules, "bench.ann_benchmarks.module", raising=False)
    return importlib.import_module("bench.ann_benchmarks.module")


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_ann_benchmarks_finds_the_nearest(ann_benchmarks: ModuleType, vectors: Any, metric: str) -> None:
    """Built, asked one at a time and in a batch, as the harness does; rows come back best first."""
    algorithm = ann_benchmarks.NoPokeANN(metric, "auto")
    try:
        algorithm.fit(vectors)
        algorithm.set_query_arguments(0.99)
        assert "0.99" in str(algorithm)
        data = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "angular" else vectors
        queries = vectors[:5] + np.float32(0.01)
        expected = [np.argsort(((data - data_of(query, metric)) ** 2).sum(axis=1))[:K].tolist() for query in queries]
        assert [list(algorithm.query(query, K)) for query in queries] == expected
        algorithm.batch_query(queries, K)
        assert [list(row) for row in algorithm.get_batch_results()] == expected
    finally:
        algorithm.done()
    assert not algorithm._folder.exists()


def data_of(query: Any, metric: str) -> Any:
    """The query as its metric sees it."""
    return query / np.linalg.norm(query) if metric == "angular" else query


def test_ann_benchmarks_refuses_other_metrics(ann_benchmarks: ModuleType) -> None:
    """A metric that it has no space for is named, before anything is made."""
    with pytest.raises(NotImplementedError, match="jaccard"):
        ann_benchmarks.NoPokeANN("jaccard")


def test_vectordbbench_loads_and_searches(tmp_path: Path, vectors: Any) -> None:
    """Load, optimise, search read-only from two openings at once, with each kind of filter, then start over."""
    pytest.importorskip("vectordb_bench", reason="vectordb-bench is not installed: pip install vectordb-bench")
    from vectordb_bench.backend.filter import IntFilter, LabelFilter, non_filter

    from bench.vectordbbench.client import NoPokeDBClient
    from bench.vectordbbench.config import NoPokeDBConfig, NoPokeDBIndexConfig

    settings = NoPokeDBConfig(path=str(tmp_path)).to_dict()

    def client(filters: Any, drop_old: bool = False) -> Any:
        made = NoPokeDBClient(DIM, settings, NoPokeDBIndexConfig(), drop_old=drop_old, with_scalar_labels=True)
        if filters is not None:
            assert made.filter_supported(filters)
            made.prepare_filter(filters)
        return made

    loading = client(None, drop_old=True)
    half = LabelFilter(label_percentage=0.5)
    with loading.init():
        labels = [half.label_value if row % 2 else "other" for row in range(COUNT)]
        assert loading.insert_embeddings(vectors.tolist(), list(range(COUNT)), labels_data=labels) == (COUNT, None)
        stored, error = loading.insert_embeddings(vectors[:1].tolist(), [0], labels_data=["other"])
        assert stored == 0 and error is not None
        loading.optimize()
    plain, upper = client(non_filter), client(IntFilter(filter_rate=0.5, int_value=COUNT // 2))
    labelled = client(half)
    with plain.init(), upper.init(), labelled.init():
        assert plain.search_embedding(vectors[7].tolist(), k=1) == [7]
        found = upper.search_embedding(vectors[7].tolist(), k=K)
        assert len(found) == K and min(found) >= COUNT // 2
        found = labelled.search_embedding(vectors[8].tolist(), k=K)
        assert len(found) == K and all(row % 2 for row in found)
    emptied = client(non_filter, drop_old=True)
    with emptied.init():
        assert emptied.search_embedding(vectors[7].tolist(), k=1) == []
