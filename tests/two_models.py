"""Two models whose vectors follow from the text, and what a collection of one of them is."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb import NoPokeDB

Told = dict[Any, tuple[dict[str, Any], str]]


class Hashed:
    """A model whose vectors follow from the text, its name and its dimension. `during` is done once in each call, as by
    somebody who writes meanwhile; not for a single text, which is a question or the probe."""

    def __init__(self, name: str, dim: int, during: Any = ()) -> None:
        self.name = name
        self.dim = dim
        self.during = list(during)
        self.calls = 0

    def one(self, text: str) -> np.ndarray:
        seed = [zlib.crc32(text.encode()), zlib.crc32(self.name.encode())]
        return np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)

    def __call__(self, texts: list[str]) -> np.ndarray:
        if len(texts) > 1:
            self.calls += 1
            if self.during:
                self.during.pop(0)()
        return np.array([self.one(text) for text in texts])


OLD, NEW = Hashed("old", 8), Hashed("new", 12)


def fill(db: NoPokeDB, count: int) -> None:
    db.add_many(texts=[f"text {n}" for n in range(count)], metadatas=[{"n": n % 10} for n in range(count)])


def told(db: Any) -> Told:
    return {record.id: (record.metadata, record.text) for record in db.scan(include=("metadata", "text"))}


def assert_is(db: Any, model: Hashed, expected: Told) -> None:
    """Exactly these records, each with the vector that the model makes of its text, found by it and by filters."""
    records = list(db.scan(include=("metadata", "vector", "text")))
    assert {record.id: (record.metadata, record.text) for record in records} == expected
    for record in records:
        assert np.array_equal(record.vector, model.one(record.text)), record.id
    for record in records[:: max(1, len(records) // 5)]:
        assert db.query(model.one(record.text), k=1)[0].distance < 1e-6
    assert db.count({"n": 3}) == sum(metadata.get("n") == 3 for metadata, _ in expected.values())


def assert_no_second_generation(folder: Path) -> None:
    """Nothing is left of one that was begun."""
    found = [path for path in folder.rglob("*") if path.stem.endswith("-2") or path.name == "earlier"]
    assert not [path for path in found if not path.name.startswith("live-1-")]
