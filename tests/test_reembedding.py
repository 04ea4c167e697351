"""A collection gets another model: all of it at once, whatever is written, read, or breaks meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import NAMES, SYNCS, WRITES, failing

import nopokedb
from nopokedb import (
    ClosedError,
    InvalidInputError,
    InvalidVectorError,
    NeedsReopenError,
    NoPokeDB,
    NotSupportedError,
    SettingsMismatchError,
)
from nopokedb.database import engine_of
from nopokedb.embedded import new_generation, reembedding
from nopokedb.embedded.storage.manifest import read_manifest

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


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small slices, so that a few hundred records are many."""
    monkeypatch.setattr(new_generation, "SLICE_RECORDS", 16)


def test_every_vector_is_of_the_new_model(tmp_path: Path) -> None:
    """All records, those with vectors given by hand too; the state before is a snapshot, and so is what was one."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD, indexed_fields=["n"]) as db:
        fill(db, 300)
        db.upsert(7, np.ones(8), text="by hand")
        db.snapshot("first")
        first = told(db)
        db.delete_many(range(0, 300, 7))
        db.upsert(1, None, {"n": 3}, text="changed")
        before, reserved = told(db), db.add(text="x")
        db.delete(reserved)
        kept = db.reembed(NEW, snapshot="second")
        assert (kept.name, kept.count, db.dim, db.stats().dim) == ("second", len(before), 12, 12)
        assert_is(db, NEW, before)
        assert db.add(text="automatic ids go on") == reserved + 1
        db.delete(reserved + 1)
        assert [item.name for item in db.snapshots()] == ["first", "second"] == list(db.stats().snapshots)
        assert db.stats().indexed_fields == ("n",)
        assert db.check() == []
        db.upsert(2, text="later")
        assert_is(db, NEW, told(db))
        db.compact()
        assert told(db.at("first")) == first and told(db.at("second")) == before
        assert np.array_equal(db.at("first").get_many([7], include=("vector",))[0].vector, np.ones(8))  # type: ignore[union-attr]
        assert db.at("second").query(OLD.one("text 9"), k=1)[0].id == 9
        with pytest.raises(InvalidVectorError, match="embed="):
            db.at("second").query("text 9")
        with pytest.raises(InvalidInputError, match="present model"):
            db.rollback("second")
        with pytest.raises(InvalidInputError, match="exists"):
            db.snapshot("second")
        with pytest.raises(InvalidInputError, match="exists"):
            db.reembed(OLD, snapshot="first")
    with pytest.raises(SettingsMismatchError, match="reembed"):
        NoPokeDB(path=tmp_path / "db", embed=OLD)
    with NoPokeDB(path=tmp_path / "db", embed=NEW) as db:
        now = told(db)
        assert db.query("later", k=1)[0].id == 2
        assert db.reembed(OLD).name == "before-reembed-3"
        assert_is(db, OLD, now)
        assert_is(db.at("before-reembed-3"), NEW, now)
        for item in db.snapshots():
            db.drop_snapshot(item.name)
        assert db.snapshots() == [] and not list((tmp_path / "db" / "earlier").iterdir())
    assert nopokedb.check(tmp_path / "db") == []


def test_what_is_written_meanwhile_comes_along(tmp_path: Path, slices: None, rng: np.random.Generator) -> None:
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


def test_compacting_waits(tmp_path: Path, slices: None) -> None:
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


@pytest.mark.parametrize("half_way", [False, True])
def test_records_without_a_text_are_refused(tmp_path: Path, slices: None, half_way: bool) -> None:
    """Before anything changes, with their number and some ids; also one that comes meanwhile."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 60)
        during = [lambda: db.add_many(np.ones((7, 8)), ids=[f"bare {n}" for n in range(7)]) and None]
        if not half_way:
            during.pop()()
        with pytest.raises(InvalidInputError, match=r"7 without one .*'bare 0'.*'bare 4', \.\.\.") as refused:
            db.reembed(Hashed("new", 12, during))
        assert "Nothing was changed" in str(refused.value)
        assert_no_second_generation(tmp_path / "db")
        assert db.dim == 8 and db.query("text 5", k=1)[0].id == 5 and len(db) == 67
        db.delete_many([f"bare {n}" for n in range(7)])
        db.reembed(NEW)
        assert db.query("text 5", k=1)[0].id == 5


def _raises(*_: Any) -> None:
    raise RuntimeError("the model broke")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda texts: np.ones((len(texts), 11)), InvalidVectorError),
        (lambda texts: np.ones((len(texts) - 1, 12)), InvalidInputError),
        (lambda texts: np.full((len(texts), 12), np.nan), InvalidVectorError),
        (lambda texts: np.zeros((len(texts), 12)), InvalidVectorError),
        (_raises, RuntimeError),
    ],
    ids=["dim", "count", "nan", "zero", "raises"],
)
def test_a_model_that_goes_wrong_half_way(
    tmp_path: Path, slices: None, wrong: Callable[[list[str]], Any], error: type[Exception]
) -> None:
    """What it returns is checked; the collection stays as it was, in the same handle and on disk."""

    class Wrong(Hashed):
        def __call__(self, texts: list[str]) -> Any:
            found = super().__call__(texts)
            return wrong(texts) if self.calls == 3 else found

    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 80)
        before = told(db)
        with pytest.raises(error):
            db.reembed(Wrong("new", 12))
        assert_is(db, OLD, before)
        assert_no_second_generation(tmp_path / "db")
        db.add(text="goes on")
        db.reembed(NEW)
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
from test_reembedding import *
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


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has none, the files of before are copied."""

    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 60)
        before = told(db)
        db.reembed(NEW, snapshot="old")
        assert_is(db.at("old"), OLD, before)
        assert_is(db, NEW, before)


def test_what_is_kept_is_a_collection(tmp_path: Path) -> None:
    """A copy of it opens for writing; damage to it is found by `check`."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 60)
        before = told(db)
        db.reembed(NEW)
    kept = tmp_path / "db" / "earlier" / "1"
    shutil.copytree(kept, tmp_path / "copy")
    with NoPokeDB(path=tmp_path / "copy", embed=OLD) as db:
        assert_is(db, OLD, before)
        db.add(text="goes on")
        assert db.check() == []
    vectors = kept / "vectors-1.f32"
    data = bytearray(vectors.read_bytes())
    data[5] ^= 1
    vectors.write_bytes(data)
    assert [problem.kind for problem in nopokedb.check(tmp_path / "db")] == ["vector"]
    with NoPokeDB(path=tmp_path / "db", embed=NEW) as db:
        assert [problem.kind for problem in db.check()] == ["vector"]
        assert_is(db, NEW, before)


def test_closing_meanwhile_leaves_the_old_model(tmp_path: Path, slices: None) -> None:
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


def test_closing_during_the_switch_closes_what_comes_of_it(tmp_path: Path, slices: None) -> None:
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


def test_a_model_that_closes_the_collection(tmp_path: Path, slices: None) -> None:
    """Odd, but no thread waits for itself."""
    db = NoPokeDB(path=tmp_path / "db", embed=OLD)
    fill(db, 40)
    with pytest.raises(ClosedError):
        db.reembed(Hashed("new", 12, [db.close]))
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        assert len(db) == 40


def test_an_interrupt_while_the_doors_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine before ends its work all the same, before another one begins; the old model stays."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 40)
        before = told(db)
        worker = engine_of(db)._upkeep  # type: ignore[attr-defined]
        stop, interruptions = worker.stop, [KeyboardInterrupt(), KeyboardInterrupt()]

        def interrupted() -> None:
            if interruptions:
                raise interruptions.pop()
            stop()

        monkeypatch.setattr(worker, "stop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            db.reembed(NEW)
        assert not worker._thread.is_alive() and not interruptions
        assert_is(db, OLD, before)
        db.add(text="goes on")
        assert len(db) == 41
    assert_no_second_generation(tmp_path / "db")
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        assert len(db) == 41 and db.check() == []


def test_what_is_read_stays_while_its_neighbour_is_dropped(tmp_path: Path) -> None:
    """Two snapshots of the old model are in one folder, which goes with the last."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 40)
        db.snapshot("a")
        db.snapshot("b")
        db.reembed(NEW, snapshot="c")
        view = db.at("b")
        db.drop_snapshot("a")
        assert told(view)[0] == ({"n": 0}, "text 0") and len(view) == 40
        db.drop_snapshot("c")
        assert [item.name for item in db.snapshots()] == ["b"]
        db.drop_snapshot("b")
        assert not (tmp_path / "db" / "earlier" / "1").exists()


def test_an_interrupt_behind_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and nothing of the new generation, which is in force, is removed for it."""

    def info(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 40)
        before = told(db)
        monkeypatch.setattr(reembedding._log, "info", info)
        with pytest.raises(KeyboardInterrupt):
            db.reembed(NEW)
        monkeypatch.undo()
        assert_is(db, NEW, before)
    with NoPokeDB(path=tmp_path / "db", embed=NEW) as db:
        assert_is(db, NEW, before)


@pytest.mark.parametrize(("names", "code"), [(WRITES, errno.ENOSPC), (SYNCS, errno.EIO), (NAMES, errno.EIO)])
def test_a_disk_that_fails(tmp_path: Path, slices: None, names: tuple[str, ...], code: int) -> None:
    """At any operation: the handle goes on with the old model, or says that it has to be opened again; the folder has
    one model or the other, with all records, and after an error of the full disk the old one."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD, indexed_fields=["n"]) as db:
        fill(db, 60)
    at, outcomes = 1, set()
    while True:
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "db", folder)
        db = NoPokeDB(path=folder, embed=OLD)
        expected = told(db)
        with failing(names, at, code=code, forever=False) as fault:
            try:
                db.reembed(NEW)
                outcome = "new"
            except OSError as error:
                outcome = "needs reopening" if isinstance(error, NeedsReopenError) else "old"
        if outcome == "old":
            try:
                db.upsert(5, text="text 5")
                assert_is(db, OLD, expected)
            except (ClosedError, NeedsReopenError):
                outcome = "old, closed"
        elif outcome == "new":
            assert_is(db, NEW, expected)
        try:
            db.close()
        except OSError:
            outcome += ", not closed"
        outcomes.add(outcome)
        with NoPokeDB(path=folder) as again:
            model = NEW if again.dim == 12 else OLD
            assert outcome.startswith("needs") or (model is NEW) == outcome.startswith("new"), (at, outcome)
            assert_is(again, model, expected)
            assert again.check() == [] and not list(folder.rglob("*.tmp"))
        shutil.rmtree(folder)
        if not fault.failed:
            break
        at += 1 if at < 4 else 3
    assert "new" in outcomes and "old" in outcomes, outcomes


KILLED = """
import os, shutil, sys
sys.path.insert(0, sys.argv[2])
from killing import die_at
import nopokedb.embedded.engine
from test_reembedding import *
new_generation.SLICE_RECORDS = 16
root = sys.argv[1]
for limit in range(1, 1000, 4):
    folder = os.path.join(root, str(limit))
    shutil.copytree(os.path.join(root, "db"), folder)
    pid = os.fork()
    if not pid:
        acks = os.open(folder + ".acks", os.O_WRONLY | os.O_CREAT)
        db = NoPokeDB(path=folder, embed=OLD)
        model = Hashed("new", 12, [lambda: db.upsert(3, text="meanwhile") or os.write(acks, b".")])
        die_at(limit)
        db.reembed(model, snapshot="old")
        os.write(acks, b".")
        db.upsert(4, text="afterwards")
        os.write(acks, b".")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        print(limit, os.WEXITSTATUS(status))
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_at_every_fourth_file_operation(tmp_path: Path) -> None:
    """The next open finds the old model or the new one, with all that was acknowledged, and nothing left of the other;
    once the call has returned, the new one."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD, indexed_fields=["n"]) as db:
        fill(db, 60)
        first = told(db)
    second = {**first, 3: (first[3][0], "meanwhile")}
    states = [first, second, second, {**second, 4: (first[4][0], "afterwards")}]
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    last, status = map(int, run.stdout.split())
    assert status == 0 and last > 60
    seen = set()
    for limit in range(1, last + 1, 4):
        folder = tmp_path / str(limit)
        acknowledged = len((tmp_path / f"{limit}.acks").read_bytes())
        with NoPokeDB(path=folder) as db:
            model = NEW if db.dim == 12 else OLD
            found = told(db)
            assert found in states[acknowledged : acknowledged + 2], limit
            assert_is(db, model, found)
            assert (model is NEW) == (acknowledged > 1) or acknowledged == 1
            assert [item.name for item in db.snapshots()] == (["old"] if model is NEW else [])
            if model is NEW:
                assert_is(db.at("old"), OLD, second)
            manifest = read_manifest(folder)
            assert manifest is not None
            generations = {path.stem.split("-")[1] for path in folder.glob("*-*.*") if "live" not in path.name}
            assert generations == {str(manifest.generation)}
            assert not list(folder.rglob("*.tmp")) and (model is NEW) == any((folder / "earlier").glob("*"))
        seen.add((acknowledged, model is NEW))
        shutil.rmtree(folder)
    assert {(1, False), (1, True), (3, True)} <= seen, "both sides of the switch were met"


@pytest.mark.engines(without=("embedded",))
def test_other_engines_say_what_to_do(open_db: Callable[..., NoPokeDB]) -> None:
    db = open_db(dim=8)
    with pytest.raises(NotSupportedError, match="reembed is"):
        db.reembed(NEW)


def test_a_read_only_handle_does_not(tmp_path: Path) -> None:
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 3)
    with NoPokeDB(path=tmp_path / "db", read_only=True) as db, pytest.raises(PermissionError):
        db.reembed(NEW)


def test_progress_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 30)
        db.reembed(NEW, progress=True)
    assert "30/30" in capsys.readouterr().err


def test_the_command(tmp_path: Path) -> None:
    """From no model to one in a wheel, and what is told."""
    pytest.importorskip("wordllama")
    with NoPokeDB(dim=3, path=tmp_path / "db") as db:
        db.add_many(np.eye(3), texts=["a kitten plays", "the stock market fell", "rain tomorrow"])
    command = [sys.executable, "-m", "nopokedb", "reembed", str(tmp_path / "db"), "--embed", "wordllama", "--json"]
    run = subprocess.run([*command, "--snapshot", "by-hand"], capture_output=True, text=True, check=True)
    document = json.loads(run.stdout)
    assert (document["dim"], document["embed"], document["before"]["name"]) == (256, "wordllama", "by-hand")
    with NoPokeDB(path=tmp_path / "db", read_only=True) as db:
        assert db.query("young cat", k=1)[0].id == 0
        assert db.at("by-hand").query([0, 1, 0], k=1)[0].id == 1
    refused = subprocess.run([*command[:-2], "no-such-model"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "KIND" not in refused.stdout
