"""Random sequences of everything a user can do, against the brute-force model, with reopening and crashing as steps."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from model import Model, assert_answers, assert_same

from nopokedb import DuplicateIdError, InvalidInputError, NoPokeDB, drop_collection
from nopokedb.metadata_json import merge_metadata

DIM = 3
keys = st.one_of(st.integers(-3, 12), st.sampled_from(["a", "b", "1", "é", "\0"]))
metadatas = st.dictionaries(st.sampled_from(["x", "y"]), st.none() | st.integers(0, 3) | st.just({"z": 1}), max_size=2)
texts = st.none() | st.sampled_from(["", "one", "two words"])
seeds = st.integers(0, 2**16)
Where: TypeAlias = tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]
# Filters, each with what it means, written out.
filters = st.sampled_from(
    [
        ({"x": None}, lambda m: m.get("x") is None),
        ({"y": {"$gte": 2}}, lambda m: isinstance(m.get("y"), int) and m["y"] >= 2),
        ({"y": {"$ne": 1}}, lambda m: m.get("y") != 1),
        ({"x.z": 1}, lambda m: isinstance(m.get("x"), dict)),
        ({"n": {"$in": [0, 2]}}, lambda m: m.get("n") in (0, 2)),
        ({"$or": [{"in": "batch"}, {"x": 3}]}, lambda m: m.get("in") == "batch" or m.get("x") == 3),
        ({"$not": {"n": {"$exists": True}}}, lambda m: "n" not in m),
    ]
)


def vector_of(seed: int) -> np.ndarray:
    """A vector per seed; few distinct ones, so ties are common."""
    return np.random.default_rng(seed % 50).standard_normal(DIM).astype(np.float32)


class Machine(RuleBasedStateMachine):
    """One collection and its model."""

    used = Bundle("used")

    @initialize(space=st.sampled_from(["cosine", "l2", "ip"]))
    def create(self, space: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="nopokedb-"))
        self.count = 0
        self.text_queries = 0
        self.indexed: set[str] = set()
        self.model = Model(DIM, space)
        self.db = self.open(dim=DIM, space=space)

    def open(self, **arguments: Any) -> NoPokeDB:
        """The collection of this run."""
        return NoPokeDB(path=self.root / "0", **arguments)

    @rule(target=used, seed=seeds, metadata=metadatas, text=texts)
    def add(self, seed: int, metadata: dict[str, Any], text: str | None) -> int | str:
        key = self.db.add(vector_of(seed), metadata, text=text)
        self.model.add(key, vector_of(seed), metadata, text)
        return key

    @rule(target=used, key=keys, seed=seeds, metadata=metadatas, text=texts)
    def add_with_id(self, key: int | str, seed: int, metadata: dict[str, Any], text: str | None) -> int | str:
        if key in self.model.records:
            with pytest.raises(DuplicateIdError):
                self.db.add(vector_of(seed), metadata, id=key, text=text)
        else:
            assert self.db.add(vector_of(seed), metadata, id=key, text=text) == key
            self.model.put(key, vector_of(seed), metadata, text)
        return key

    @rule(target=used, n=st.integers(1, 5), seed=seeds)
    def add_many(self, n: int, seed: int) -> Any:
        vectors = np.array([vector_of(seed + i) for i in range(n)])
        found = self.db.add_many(vectors, [{"n": i} for i in range(n)])
        for i, key in enumerate(found):
            self.model.add(key, vectors[i], {"n": i}, None)
        return multiple(*found)

    @rule(
        key=st.one_of(used, keys),
        seed=st.none() | seeds,
        metadata=st.none() | metadatas,
        text=texts,
        merge=st.booleans(),
    )
    def upsert(
        self, key: int | str, seed: int | None, metadata: dict[str, Any] | None, text: str | None, merge: bool
    ) -> None:
        vector = None if seed is None else vector_of(seed)
        merge = merge and metadata is not None
        nothing = vector is None and metadata is None and text is None
        if nothing or (vector is None and key not in self.model.records):
            with pytest.raises(InvalidInputError):
                self.db.upsert(key, vector, metadata, text=text, merge=merge)
            return
        self.db.upsert(key, vector, metadata, text=text, merge=merge)
        if merge:
            old = self.model.records[key][1] if key in self.model.records else {}
            metadata = merge_metadata(old, metadata)
        self.model.upsert(key, vector, metadata, text)

    @rule(chosen=st.lists(st.one_of(used, keys), max_size=4, unique=True), metadata=metadatas, merge=st.booleans())
    def update_many(self, chosen: list[int | str], metadata: dict[str, Any], merge: bool) -> None:
        there = [key for key in chosen if key in self.model.records]
        assert self.db.update_many(chosen, metadata, merge=merge) == len(there)
        for key in there:
            vector, old, text = self.model.records[key]
            self.model.put(key, vector, merge_metadata(old, metadata) if merge else metadata, text)

    @rule(chosen=st.lists(st.one_of(used, keys), max_size=3, unique=True))
    def delete_many(self, chosen: list[int | str]) -> None:
        there = [key for key in chosen if key in self.model.records]
        assert self.db.delete_many(chosen) == len(there)
        for key in there:
            del self.model.records[key]

    @rule(key=used)
    def delete(self, key: int | str) -> None:
        assert self.db.delete(key) == (self.model.records.pop(key, None) is not None)

    @rule(key=keys, seed=seeds, fail=st.booleans())
    def batch(self, key: int | str, seed: int, fail: bool) -> None:
        """Delete, add and change one id in one frame; an exception in the block writes nothing."""
        there = key in self.model.records
        try:
            with self.db.batch() as b:
                b.delete(key)
                b.add(vector_of(seed), {"in": "batch"}, id=key)
                auto = b.add(vector_of(seed + 1))
                b.upsert(key, metadata={"second": 1}, merge=True, text="t")
                if fail:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert auto not in self.model.used
            assert (key in self.db) == there
            return
        self.model.records.pop(key, None)
        self.model.put(key, vector_of(seed), {"in": "batch", "second": 1}, "t")
        assert auto != key
        self.model.add(auto, vector_of(seed + 1), {}, None)

    @rule(seed=seeds, k=st.integers(1, 8))
    def query(self, seed: int, k: int) -> None:
        assert_answers(self.db, self.model, vector_of(seed + 1000), k)

    @rule(where=filters, seed=seeds, k=st.integers(1, 8))
    def query_by_filter(self, where: Where, seed: int, k: int) -> None:
        passing = Model(DIM, self.model.space, {key: self.model.records[key] for key in self.passing(where)})
        assert self.db.count(where[0]) == len(passing.records)
        assert [record.id for record in self.db.scan(where[0])] == passing.ids()
        assert_answers(self.db, passing, vector_of(seed + 1000), k, where=where[0])

    @rule(where=filters, value=st.integers(0, 3))
    def update_by_filter(self, where: Where, value: int) -> None:
        chosen = self.passing(where)
        assert self.db.update_many(where=where[0], metadata={"y": value}) == len(chosen)
        for key in chosen:
            vector, old, text = self.model.records[key]
            self.model.put(key, vector, {**old, "y": value}, text)

    @rule(where=filters, value=st.integers(0, 3))
    def delete_by_filter(self, where: Where, value: int) -> None:
        both = {"$and": [where[0], {"n": {"$lte": value}}]}
        chosen = [key for key in self.passing(where) if self.model.records[key][1].get("n", 9) <= value]
        assert self.db.delete_many(where=both) == len(chosen)
        for key in chosen:
            del self.model.records[key]

    def passing(self, where: Where) -> list[int | str]:
        return [key for key, (_, metadata, _) in self.model.records.items() if where[1](metadata)]

    @rule(word=st.sampled_from(["one", "two", "words", "t"]))
    def query_by_text(self, word: str) -> None:
        """Exactly the live texts with the word are found, however they came and went."""
        if self.text_queries < 3:  # each may read and commit what was written since the last one
            self.text_queries += 1
            want = {key for key, (_, _, text) in self.model.records.items() if word in (text or "").split()}
            assert {hit.id for hit in self.db.query(text=word, k=1000)} == want

    @rule(field=st.sampled_from(["x", "y", "n", "x.z"]), make=st.booleans())
    def index_a_field(self, field: str, make: bool) -> None:
        if make:
            self.db.create_index(field)
        else:
            self.db.drop_index(field)
        self.indexed = (self.indexed | {field}) if make else (self.indexed - {field})
        assert set(self.db.stats().indexed_fields) == self.indexed

    @rule()
    def save(self) -> None:
        self.db.save()

    @rule()
    def compact(self) -> None:
        self.db.compact()
        assert self.db.stats().label_count == len(self.model.records)

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = NoPokeDB(path=self.db.path)

    @rule()
    def crash(self) -> None:
        """The files as a killed process leaves them: all that was acknowledged, nothing closed."""
        self.count += 1
        target = self.root / str(self.count)
        shutil.copytree(self.db.path, target)
        self.db.close()
        self.db = NoPokeDB(path=target)
        assert_same(self.db, self.model)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "db"):
            assert_same(self.db, self.model)
            some = list(self.model.records)[:2]
            assert [r.id for r in self.db.get_many(some) if r] == some

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            shutil.rmtree(self.root)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


class Elsewhere(Machine):
    """The same on another engine: nothing but the files of a folder is left out."""

    engine: ClassVar[dict[str, Any]]
    crash = None

    def open(self, **arguments: Any) -> NoPokeDB:
        return NoPokeDB(**self.engine, **arguments)

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = self.open()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "db"):
            drop_collection(self.engine["path"], self.engine["collection"])


@pytest.mark.engines(without=("embedded",))
def test_other_engines(engine: dict[str, Any]) -> None:
    """Random sequences agree with the model wherever the collection is."""
    kind = type("Elsewhere", (Elsewhere,), {"engine": engine})
    few = settings(TestMachine.settings, max_examples=15)
    run_state_machine_as_test(kind, settings=few)  # type: ignore[no-untyped-call]
