"""The oracle: what a collection holds and answers, by brute force, with no code of the package."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nopokedb import NoPokeDB


@dataclass
class Model:
    """A dict of id -> (vector, metadata, text)."""

    dim: int
    space: str
    records: dict[int | str, tuple[np.ndarray, dict[str, Any], str | None]] = field(default_factory=dict)
    used: set[int | str] = field(default_factory=set)
    """Every id that was ever written: automatic ids are never among them."""

    def add(self, key: int | str, vector: np.ndarray, metadata: dict[str, Any], text: str | None) -> None:
        """A record under an automatic id: one that was never used, above all int ids that were."""
        assert isinstance(key, int) and key > max((i for i in self.used if isinstance(i, int)), default=-1)
        self.put(key, vector, metadata, text)

    def put(self, key: int | str, vector: np.ndarray, metadata: dict[str, Any], text: str | None) -> None:
        self.records[key] = (np.asarray(vector, np.float32), metadata, text)
        self.used.add(key)

    def upsert(
        self, key: int | str, vector: np.ndarray | None, metadata: dict[str, Any] | None, text: str | None
    ) -> None:
        old = self.records.get(key)
        assert old is not None or vector is not None
        self.put(
            key,
            old[0] if vector is None and old else vector,  # type: ignore[arg-type]
            metadata if metadata is not None else (old[1] if old else {}),
            text if text is not None else (old[2] if old else None),
        )

    def distances(self, query: np.ndarray) -> list[tuple[float, int | str]]:
        """(distance, id) of every record, best first."""
        out = []
        q = np.asarray(query, np.float32).astype(np.float64)
        for key, (vector, _, _) in self.records.items():
            v = vector.astype(np.float64)
            if self.space == "l2":
                distance = float(((v - q) ** 2).sum())
            elif self.space == "ip":
                distance = float(1 - v @ q)
            else:
                distance = float(np.clip(1 - v @ q / np.sqrt((v @ v) * (q @ q)), 0, 2))
            out.append((distance, key))
        return sorted(out, key=lambda pair: (pair[0], order(pair[1])))

    def ids(self) -> list[int | str]:
        return sorted(self.records, key=order)


def order(key: int | str) -> tuple[int, int, bytes]:
    """Ints first, then strs by their UTF-8 bytes."""
    return (0, key, b"") if isinstance(key, int) else (1, 0, key.encode())


def dump(db: NoPokeDB) -> list[tuple[Any, ...]]:
    """Everything a collection holds, in id order, comparable byte for byte."""
    return [
        (type(r.id).__name__, r.id, json.dumps(r.metadata), r.text, r.vector.tobytes())
        for r in db.scan(include=("metadata", "vector", "text"))
        if r.vector is not None
    ]


def dump_model(model: Model) -> list[tuple[Any, ...]]:
    """The same of a model."""
    return [
        (type(key).__name__, key, json.dumps(metadata), text, vector.tobytes())
        for key in model.ids()
        for vector, metadata, text in [model.records[key]]
    ]


def assert_same(db: NoPokeDB, model: Model) -> None:
    """The collection holds exactly what the model holds."""
    assert dump(db) == dump_model(model)
    assert len(db) == len(model.records)


def assert_answers(db: NoPokeDB, model: Model, query: np.ndarray, k: int, **options: Any) -> None:
    """Exact search agrees with the model in distances and, where they differ clearly, in ids."""
    hits = db.query(query, k=k, **options)
    want = model.distances(query)[:k]
    assert len(hits) == len(want)
    scale = max(1.0, max((abs(d) for d, _ in want), default=1.0))
    for hit, (distance, _) in zip(hits, want, strict=True):
        assert abs(hit.distance - distance) <= 1e-5 * scale
        assert hit.metadata == model.records[hit.id][1]
    assert [(h.distance, order(h.id)) for h in hits] == sorted((h.distance, order(h.id)) for h in hits)


def recall(db: NoPokeDB, queries: np.ndarray, truth_ids: list[list[int | str]], **options: Any) -> float:
    """Share of the true neighbours found."""
    k = len(truth_ids[0])
    found = [{hit.id for hit in db.query(query, k=k, **options)} for query in queries]
    return sum(len(a & set(b)) for a, b in zip(found, truth_ids, strict=True)) / (k * len(truth_ids))
