"""`undo`: the last batch is taken back by one new batch, exactly."""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from model import Model, assert_answers, assert_same, dump

from nopokedb import NoPokeDB, NothingToUndoError

DIM = 6


def fill(db: NoPokeDB, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((12, DIM)).astype(np.float32)
    db.add_many(vectors, [{"n": n} for n in range(12)], texts=[None if n % 3 else f"t{n}" for n in range(12)])
    db.add(vectors[0], {"s": 1}, id="str")


BATCHES: dict[str, tuple[Callable[[NoPokeDB, np.random.Generator], object], int]] = {
    "add": (lambda db, rng: db.add(rng.standard_normal(DIM)), 1),
    "add_many": (lambda db, rng: db.add_many(rng.standard_normal((3, DIM)), ids=["x", 77, 78]), 3),
    "delete": (lambda db, rng: db.delete(3), 1),
    "delete_many": (lambda db, rng: db.delete_many([1, 2, "str"]), 3),
    "metadata": (lambda db, rng: db.upsert(3, metadata={"new": [1]}), 1),
    "merge": (lambda db, rng: db.upsert("str", metadata={"new": 1}, merge=True), 1),
    "vector": (lambda db, rng: db.upsert(4, rng.standard_normal(DIM)), 1),
    "text": (lambda db, rng: db.upsert(0, text="another"), 1),
    "update_many": (lambda db, rng: db.update_many([0, 1, 2], {"u": None, "n": "x"}), 3),
    "all of it": (lambda db, rng: mixed(db, rng), 5),
}


def mixed(db: NoPokeDB, rng: np.random.Generator) -> None:
    with db.batch() as batch:
        batch.delete(0)
        batch.upsert(1, rng.standard_normal(DIM), {"v": 1}, text="t")
        batch.upsert(1, metadata={"v": 2})
        batch.add(rng.standard_normal(DIM), id="born and gone")
        batch.delete("born and gone")
        batch.delete(2)
        batch.add(rng.standard_normal(DIM), id=2)
        batch.upsert("str", metadata={"s": 2})
        batch.add(rng.standard_normal(DIM), id="new")


@pytest.mark.engines(without=("postgres",))
@pytest.mark.parametrize("name", BATCHES)
def test_undo_takes_back_exactly_the_last_batch(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path, name: str
) -> None:
    """Every byte is as before the batch, an undo of the undo brings the batch back, after a crash too."""
    batch, changed = BATCHES[name]
    db = open_db(dim=DIM)
    fill(db, rng)
    before = dump(db)
    batch(db, rng)
    after = dump(db)
    assert after != before
    assert db.undo() == changed
    assert dump(db) == before
    assert db.undo() == changed
    assert dump(db) == after
    assert db.undo() == changed
    if Path(db.path).is_dir():
        shutil.copytree(db.path, tmp_path / "image")
        with NoPokeDB(path=tmp_path / "image") as crashed:
            assert dump(crashed) == before
            assert crashed.add(np.ones(DIM)) == db.add(np.ones(DIM))


@pytest.mark.engines(without=("postgres",))
def test_undo_in_random_sequences_agrees_with_the_model(open_db: Callable[..., NoPokeDB], seed: int) -> None:
    """Whatever came before, undo gives the state before the last call, and neighbours are those of that state."""
    rng = np.random.default_rng(seed)
    db = open_db(dim=DIM)
    model = Model(DIM, "cosine")
    earlier = copy.deepcopy(model)
    keys: list[int | str] = [0, 1, 2, "a", "b"]
    for _ in range(150):
        key = keys[int(rng.integers(len(keys)))]
        action = int(rng.integers(4))
        vector = rng.standard_normal(DIM).astype(np.float32)
        if action == 0:
            held = copy.deepcopy(model)
            db.upsert(key, vector, {"v": int(rng.integers(100))})
            model.put(key, vector, db.get(key) or {}, model.records[key][2] if key in model.records else None)
            earlier = held
        elif action == 1 and key in model.records:
            held = copy.deepcopy(model)
            db.upsert(key, metadata={"w": 1}, text="t")
            model.upsert(key, None, {"w": 1}, "t")
            earlier = held
        elif action == 2 and key in model.records:
            held = copy.deepcopy(model)
            db.delete(key)
            del model.records[key]
            earlier = held
        elif action == 3 and db.stats().lsn:
            db.undo()
            model, earlier = earlier, model
        assert_same(db, model)
    assert_answers(db, model, rng.standard_normal(DIM), 3)


@pytest.mark.engines(without=("postgres",))
def test_older_snapshots_stay_right_beside_an_undo(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """A scan that began earlier goes on with its own state, and a query after the undo finds the old vector."""
    db = open_db(dim=DIM)
    fill(db, rng)
    old = db[5].vector
    db.upsert(5, -np.asarray(old), {"moved": True})
    scan = db.scan(include=("metadata", "vector"))
    first = next(scan)
    db.undo()
    rest = {record.id: record.metadata for record in scan}
    assert first.id == 0 and rest[5] == {"moved": True}
    assert db.query(old, k=1)[0].id == 5


@pytest.mark.engines(without=("postgres",))
def test_undo_without_a_batch_in_the_log_is_refused(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Nothing was written, or a checkpoint dropped it: a typed error, and nothing changes."""
    db = open_db(dim=DIM)
    with pytest.raises(NothingToUndoError, match="nothing was written"):
        db.undo()
    fill(db, rng)
    db.save()
    before = dump(db)
    with pytest.raises(NothingToUndoError, match="checkpoint"):
        db.undo()
    assert isinstance(NothingToUndoError("x"), LookupError)
    db.add(rng.standard_normal(DIM))
    assert db.undo() == 1 and dump(db) == before
    if Path(db.path).is_dir():
        db.close()  # which is a checkpoint; a server goes on without one
    else:
        db.save()
    again = open_db()
    with pytest.raises(NothingToUndoError):
        again.undo()
    assert dump(again) == before
    assert again.add(rng.standard_normal(DIM)) == 13  # an automatic id is not used again


@pytest.mark.engines(without=("postgres",))
def test_undo_beside_writing_threads_takes_back_whole_batches(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator
) -> None:
    """Undo takes the last batch of whoever wrote it, and never half of one."""
    db = open_db(dim=DIM)
    vectors = rng.standard_normal((3, DIM)).astype(np.float32)
    done = threading.Event()

    def write(name: str) -> None:
        for n in range(60):
            db.upsert_many([f"{name}{i}" for i in range(3)], vectors, [{"n": n}] * 3)

    def undo() -> None:
        while not done.is_set():
            try:
                db.undo()
            except NothingToUndoError:
                pass

    undoing = threading.Thread(target=undo)
    writing = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in (undoing, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    undoing.join()
    for name in "ab":
        records = db.get_many([f"{name}{i}" for i in range(3)])
        assert len({None if r is None else r.metadata["n"] for r in records if r is None or r.metadata}) == 1
