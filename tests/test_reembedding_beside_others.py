"""What is written, read, compacted or closed while a collection gets another model."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_models import NEW, OLD, Hashed, Told, assert_is, assert_no_second_generation, fill, told

import nopokedb
from nopokedb import (
    ClosedError,
    InvalidInputError,
    NoPokeDB,
)


def test_what_is_written_meanwhile_comes_along(tmp_path: Path, small_slices: None, rng: np.random.Generator) -> None:
    """Random batches of all kinds between the slices, against a dict; indexes on fields come and go too."""
    for _ in range(4):
        db = NoPokeDB(path=tmp_path / f"{rng.integers(2**32)}", embed=OLD, indexed_fields=["n"])
        fill(db, 200)
        model = told(db)

        def write(db: NoPokeDB = db, model: Told = model) -> None:
            for _ in range(int(rng.integers(1, 5))):
                id_ = int(rng.integers(0, 260))
                kind = rng.integers(0, 5)
                if kind == 0:
                    db.delete(id_)
                    model.pop(id_, None)
                elif kind == 1 and id_ in model:
                    db.upsert(id_, metadata={"n": 3})
                    model[id_] = ({"n": 3}, model[id_][1])
                elif kind == 2:
                    some = [int(n) for n in rng.choice(200, 3, replace=False)]
                    db.delete_many(some)
                    for each in some:
                        model.pop(each, None)
                else:
                    text, metadata = f"again {rng.integers(2**32)}", {"n": id_ % 10}
                    db.upsert(id_, None, metadata, text=text)
                    model[id_] = (metadata, text)

        def undone(db: NoPokeDB = db) -> None:
            db.add(text="never seen")
            db.undo()

        steps = [write] * 6 + [lambda db=db: db.create_index("other"), undone, lambda db=db: db.save(), write]
        new = Hashed("new", 5, rng.permutation(np.array(steps, dtype=object)))
        db.reembed(new)
        assert not new.during, "all was done meanwhile"
        assert_is(db, new, model)
        assert set(db.stats().indexed_fields) == {"n", "other"}
        db.close()
        with NoPokeDB(path=db.path, embed=Hashed("new", 5)) as again:
            assert_is(again, new, model)
            assert again.check() == []


def test_compacting_waits(tmp_path: Path, small_slices: None) -> None:
    """A compaction asked for meanwhile has nothing to do; one reembedding at a time."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 100)
        db.delete_many(range(50))
        refused: list[BaseException] = []

        def another() -> None:
            try:
                db.reembed(OLD)
            except InvalidInputError as error:
                refused.append(error)

        db.reembed(Hashed("new", 12, [lambda: db.compact() and None, another, lambda: db.optimize()]))
        assert "one reembedding at a time" in str(refused[0])
        assert_is(db, NEW, told(db))
        db.delete_many(range(50, 60))
        db.compact()
        assert_is(db, NEW, told(db))


def test_readers_and_writers_during_the_switch(tmp_path: Path) -> None:
    """Threads that ask, scan, add and change all the time meet no error and no answer of a mixture."""
    db = NoPokeDB(path=tmp_path / "db", embed=OLD, indexed_fields=["n"])
    fill(db, 400)
    stop = threading.Event()
    failures: list[BaseException] = []
    added: list[Any] = []
    asked = [0]

    def during(work: Callable[[int], None]) -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                work(number)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told below
            failures.append(error)

    def ask(number: int) -> None:
        n = number % 400
        hit = db.query(f"text {n}", k=1, include=("vector", "text"))[0]
        assert hit.id == n and hit.distance < 1e-6 and len(hit.vector) in (8, 12), hit
        assert len({len(record.vector) for record in db.scan({"n": 3}, include=("vector",))}) == 1
        assert [hits[0].id for hits in db.query_many([f"text {n}", "text 0"], k=1)] == [n, 0]
        asked[0] += 1

    def write(number: int) -> None:
        added.append(db.add(text=f"added {number}"))
        db.upsert(added[-1], metadata={"number": number})
        if number % 3 == 0:
            assert db.delete(added.pop())

    threads = [threading.Thread(target=during, args=(work,)) for work in (ask, ask, write)]
    for thread in threads:
        thread.start()
    for model in (NEW, OLD, NEW):
        done = asked[0]
        while asked[0] < done + 5 and not failures:
            stop.wait(0.001)
        db.reembed(model)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert len(db) == 400 + len(added) and all(id_ in db for id_ in added)
    assert_is(db, NEW, told(db))
    db.close()


def test_reads_that_began_before_go_on(tmp_path: Path) -> None:
    """A scan and a view of before are read to their end, with connections that are opened only now, as many threads
    need them; the files of before go at the close at the latest."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 1500)
        before = told(db)
        db.snapshot("then")
        scan, view = db.scan(include=("vector",)), db.at("then")
        assert len(next(scan).vector) == 8
        store = db._engine.snapshot().store  # type: ignore[attr-defined]
        db.reembed(NEW)
        store.reader._idle.clear()
        assert [len(record.vector) for record in scan] == [8] * 1499
        store.reader._idle.clear()
        assert told(view) == before and view.query(OLD.one("text 5"), k=1)[0].id == 5
        del scan, view, store
    assert not (tmp_path / "db" / "rows-1.bin").exists() and (tmp_path / "db" / "rows-2.bin").exists()
    assert nopokedb.check(tmp_path / "db") == []


def test_bulk_writes_and_batches_of_before_are_refused(tmp_path: Path) -> None:
    """What was prepared with the old model is not written; of a bulk write the chunks before are told."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 20)
        with pytest.raises(ClosedError, match="another model"), db.batch() as batch:
            batch.add(text="of the old model")
            db.reembed(NEW)

        def vectors() -> Any:
            for n in range(30):
                if n == 20:
                    db.reembed(OLD)
                yield np.ones(12)

        with pytest.raises(ClosedError) as refused:
            db.add_many(vectors(), texts=(f"{n}" for n in range(30)), batch_size=10)
        assert len(refused.value.committed) == 20 and len(db) == 40


FOLLOWER = """
import sys
sys.path.insert(0, sys.argv[2])
from two_models import NEW, OLD, assert_is, told
from nopokedb import NoPokeDB, SettingsMismatchError
db = NoPokeDB(path=sys.argv[1], read_only=True, embed=OLD)
scan = db.scan(include=("vector",))
assert len(next(scan).vector) == 8
print("open", flush=True)
sys.stdin.readline()
try:
    db.refresh()
    raise SystemExit("refreshed")
except SettingsMismatchError as error:
    assert "'new' (dim=12)" in str(error), error
assert db.query("text 9", k=1)[0].id == 9 and len(db) == 60
assert {len(record.vector) for record in scan} == {8}
assert {len(record.vector) for record in db.scan(include=("vector",))} == {8}
db.close()
with NoPokeDB(path=sys.argv[1], read_only=True, embed=NEW) as db:
    assert_is(db, NEW, told(db))
    assert_is(db.at("old"), OLD, told(db.at("old")))
print("done")
"""


def test_other_processes_keep_what_they_had(tmp_path: Path) -> None:
    """A read-only handle answers from the state before, scans included; to move on it has to be opened again."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 60)
        arguments = [sys.executable, "-c", FOLLOWER, str(tmp_path / "db"), str(Path(__file__).parent)]
        reader = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None and reader.stdout.readline() == "open\n"
        db.reembed(NEW, snapshot="old")
        db.compact()
        assert reader.communicate("go\n", timeout=60)[0] == "done\n"


def test_closing_meanwhile_leaves_the_old_model(tmp_path: Path, small_slices: None) -> None:
    """`close` waits until the new generation is given up, and the folder is as it was."""
    db = NoPokeDB(path=tmp_path / "db", embed=OLD)
    fill(db, 100)
    before = told(db)
    closer = threading.Thread(target=db.close)

    def close() -> None:
        closer.start()
        while not db._engine._upkeep.stopping:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)

    with pytest.raises(ClosedError, match="given up"):
        db.reembed(Hashed("new", 12, [lambda: None, close]))
    closer.join()
    assert_no_second_generation(tmp_path / "db")
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        assert_is(db, OLD, before)


def test_closing_during_the_switch_closes_what_comes_of_it(tmp_path: Path, small_slices: None) -> None:
    """Where the switch has begun it is completed, and the folder is free afterwards."""
    db = NoPokeDB(path=tmp_path / "db", embed=OLD)
    fill(db, 20)
    closer = threading.Thread(target=db.close)
    later = [lambda: None, lambda: db.add_many(texts=["late", "later"]) and None, closer.start]
    model = Hashed("new", 12, later)
    try:
        db.reembed(model)
    except ClosedError as error:
        assert "given up" not in str(error)
    closer.join()
    assert not model.during
    with NoPokeDB(path=tmp_path / "db", embed=NEW) as db:
        assert len(db) == 22 and db.query("later", k=1)[0].id == 21
        assert_is(db, NEW, told(db))


def test_a_model_that_closes_the_collection(tmp_path: Path, small_slices: None) -> None:
    """Odd, but no thread waits for itself."""
    db = NoPokeDB(path=tmp_path / "db", embed=OLD)
    fill(db, 40)
    with pytest.raises(ClosedError):
        db.reembed(Hashed("new", 12, [db.close]))
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        assert len(db) == 40
