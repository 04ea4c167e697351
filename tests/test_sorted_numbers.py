"""Ranges answered from the numbers of an indexed field in memory: the same answers as by looking at each record."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nopokedb import NoPokeDB
from nopokedb.embedded import engine
from nopokedb.filters import holds
from nopokedb.where import parse_filter

COUNT = 3_000
SOURCE = "sorted numbers"


def value(chance: random.Random, *, large: bool) -> Any:
    """Mostly numbers, many of them equal; now and then something else."""
    numbers = [chance.randint(-20, 20), chance.choice([-0.5, 0.0, -0.0, 2.5, 1e300, 5e-324]), 2**53, -(2**53)]
    if large:
        numbers += [2**53 + 1, 2**63 - 1]
    others: list[Any] = [True, False, None, "7", "", [1, 2.5, "x", [3]], [], {"n": 1}]
    return chance.choice(numbers if chance.random() < 0.8 else others)


def ranges(chance: random.Random) -> dict[str, Any]:
    bounds = [chance.randint(-25, 25), chance.uniform(-25, 25), 2**53, 2**53 + 1, float("1e300"), 0, -0.0]
    low, high = chance.choice(bounds), chance.choice(bounds)
    return chance.choice(
        [{"$gt": low}, {"$gte": low}, {"$lt": high}, {"$lte": high}, {"$between": [low, high]},
         {"$gt": low, "$lte": high}]
    )  # fmt: skip


def source_of(db: NoPokeDB, where: Any) -> str:
    plan = db.explain([1.0, 0.0], k=1, where=where)
    assert plan.filter is not None
    return plan.filter.tests[0].source


@pytest.mark.parametrize("large", [False, True], ids=["float64 holds all", "ints beyond float64"])
def test_the_same_as_looking_at_each_record(open_db: Callable[..., NoPokeDB], seed: int, large: bool) -> None:
    chance = random.Random(seed)
    db = open_db(dim=2, space="l2", indexed_fields=["n"])
    kept: dict[int | str, dict[str, Any]] = {}

    def add(count: int) -> None:
        metadata = [{"n": value(chance, large=large)} if chance.random() < 0.9 else {} for _ in range(count)]
        for id_, item in zip(db.add_many(np.ones((count, 2), np.float32), metadata), metadata, strict=True):
            kept[id_] = item

    def compare(where: Any) -> None:
        test = parse_filter(where)
        assert test is not None
        expected = {id_ for id_, item in kept.items() if holds_all(test, id_, item)}
        assert {record.id for record in db.scan(where)} == expected, where

    add(COUNT)
    sources = set()
    for step in range(60):
        where = {"n": ranges(chance)}
        compare(where)
        sources.add(source_of(db, {"n": {"$gt": -30 + step / 100}}))
        if step % 10 == 9:
            add(chance.choice([1, 7, 900]))
            for id_ in chance.sample(sorted(kept), 5):  # type: ignore[type-var]
                db.delete(id_)
                del kept[id_]
    assert (SOURCE in sources) is not large


def holds_all(node: Any, id_: Any, metadata: dict[str, Any]) -> bool:
    """What filters mean, for one test or several that all have to pass."""
    parts = getattr(node, "parts", None)
    if parts is None:
        return holds(node, id_, metadata)
    return all(holds_all(part, id_, metadata) for part in parts)


def test_numbers_are_read_again_when_many_are_new(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    db = open_db(dim=2, space="l2", indexed_fields=["n"])
    count = 0
    for _ in range(6):
        new = range(count, count + COUNT)
        db.add_many(np.ones((COUNT, 2), np.float32), [{"n": number} for number in new], ids=list(new))
        count += COUNT
        for _ in range(3):
            low = float(rng.uniform(0, count))
            assert db.count(where={"n": {"$gte": low}}) == count - int(np.ceil(low))
            assert db.count(where={"n": {"$gte": low / 1e9, "$lt": count}}) == count - 1
    assert source_of(db, {"n": {"$gt": 17.25}}) == SOURCE


def test_the_memory_counts_and_is_given_back(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    db = open_db(dim=2, space="l2", indexed_fields=["n"])
    db.add_many(np.ones((COUNT, 2), np.float32), [{"n": number} for number in range(COUNT)])
    assert isinstance(db._engine, engine.EmbeddedEngine)
    filters = db._engine._reads.filters
    assert db.count(where={"n": {"$gte": 0}}) == COUNT
    before = filters.size_bytes
    assert source_of(db, {"n": {"$gt": 5}}) == SOURCE
    assert filters.size_bytes - before >= 12 * COUNT
    monkeypatch.setattr(filters, "_limit", 0)
    assert db.count(where={"n": {"$gt": 6}}) == COUNT - 7
    assert filters.size_bytes < 12 * COUNT
    assert source_of(db, {"n": {"$gt": 8}}) == "index"
