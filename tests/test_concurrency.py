"""Many threads on one handle, and read-only handles beside a writer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from at_once import run_all, vector_of

from nopokedb import (
    ClosedError,
    CollectionNotFoundError,
    NeedsRecoveryError,
    NoPokeDB,
    ReadOnlyError,
    drop_collection,
)
from nopokedb.embedded import sealing, upkeep

DIM = 8


@pytest.fixture
def busy_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seals and checkpoints all the time."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 512)
    monkeypatch.setattr(upkeep, "URGENT_ROWS", 1024)
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)


@pytest.mark.engines
@pytest.mark.usefixtures("busy_upkeep")
def test_two_writers_and_four_readers(open_db: Callable[..., NoPokeDB], seed: int) -> None:
    """Readers always see whole batches, every batch acknowledged before the read began, and never one version of a
    record together with another's vector; writers see their own writes at once."""
    db = open_db(dim=DIM)
    acknowledged = [0, 0]  # batches that each writer knows to be durable
    stop = threading.Event()
    size, batches = 10, 150

    def write(number: int) -> None:
        for batch in range(batches):
            # Batch b holds ten records of one version; every third batch rewrites the one before it.
            target, version = (batch - 1, 1) if batch % 3 == 2 else (batch, 0)
            ids = [number * 1_000_000 + target * size + i for i in range(size)]
            vectors = np.array([vector_of(key, version) for key in ids])
            db.upsert_many(ids, vectors, [{"b": target, "v": version} for _ in ids])
            assert [r.metadata for r in db.get_many(ids) if r] == [{"b": target, "v": version}] * size
            acknowledged[number] = batch + 1

    def read(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        while not stop.is_set():
            writer = int(rng.integers(2))
            known = acknowledged[writer]
            if number % 2:
                records = list(db.scan(include=("metadata", "vector")))
                seen: dict[tuple[int, int], set[int]] = {}
                for record in records:
                    assert record.metadata is not None and record.vector is not None and isinstance(record.id, int)
                    version = record.metadata["v"]
                    assert np.array_equal(record.vector, vector_of(record.id, version))
                    key = (record.id // 1_000_000, record.metadata["b"])
                    seen.setdefault(key, set()).add(version)
                for (of, batch), versions in seen.items():
                    assert len(versions) == 1, f"writer {of} batch {batch} is half visible"
                for batch in range(known):
                    if batch % 3 != 2:
                        assert (writer, batch) in seen, "an acknowledged batch is not visible"
            elif known:
                batch = int(rng.integers(known))
                if batch % 3 == 0:  # written once and never again
                    key = writer * 1_000_000 + batch * size + int(rng.integers(size))
                    hits = db.query(vector_of(key, 0), k=3)
                    assert hits[0].id == key and hits[0].distance < 1e-12 and len(hits) == 3

    def writers() -> None:
        try:
            run_all(lambda: write(0), lambda: write(1))
        finally:
            stop.set()

    run_all(writers, *(lambda n=n: read(n) for n in range(4)))
    assert len(db) == sum(batch % 3 != 2 for batch in range(batches)) * size * 2
    if not Path(db.path).is_dir():
        return
    deadline = time.monotonic() + 60
    while db.stats().checkpoint_lsn == 0 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert db.stats().checkpoint_lsn > 0


def test_writers_share_syncs(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that wait at the same time are made durable by one sync, and each returns only after a sync that
    followed its append."""
    from nopokedb.embedded.storage import oplog

    db = open_db(dim=DIM)
    db.add(vector_of(0, 0))
    syncs = []
    gate = threading.Event()
    real = oplog.sync

    def slow_sync(descriptor: int) -> None:
        gate.wait(10)
        real(descriptor)
        syncs.append(descriptor)

    monkeypatch.setattr(oplog, "sync", slow_sync)
    threads = [threading.Thread(target=db.add, args=(vector_of(n, 0),)) for n in range(12)]
    for thread in threads:
        thread.start()
    log = db._engine._writes  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while len(log._pending) < 12 and time.monotonic() < deadline:
        os.sched_yield()
    assert len(db) == 1, "nothing is visible before it is durable"
    gate.set()
    for thread in threads:
        thread.join(10)
    assert len(db) == 13
    assert len(syncs) <= 3


@pytest.mark.engines
def test_a_snapshot_is_not_disturbed(open_db: Callable[..., NoPokeDB]) -> None:
    """A scan that began before a write shows the state of its beginning, to the end."""
    db = open_db(dim=DIM)
    db.add_many(np.array([vector_of(n, 0) for n in range(1500)]), [{"n": n} for n in range(1500)])
    records = db.scan(include=("metadata", "vector"))
    first = next(records)
    db.delete_many(range(0, 1500, 2))
    db.update_many(range(1, 1500, 2), {"n": -1}, merge=False)
    db.add_many(np.array([vector_of(n, 0) for n in range(1500, 1600)]))
    rest = [first, *records]
    assert [r.id for r in rest] == list(range(1500))
    assert [r.metadata for r in rest] == [{"n": n} for n in range(1500)]
    assert all(np.array_equal(r.vector, vector_of(n, 0)) for n, r in enumerate(rest))


@pytest.mark.engines
def test_closing_while_others_work(open_db: Callable[..., NoPokeDB]) -> None:
    """Calls that meet a close either finish or raise `ClosedError`; what was acknowledged is there afterwards."""
    db = open_db(dim=DIM)
    done: list[int] = []

    def write() -> None:
        try:
            for n in range(100_000):
                done.append(db.add(vector_of(n, 0)))  # type: ignore[arg-type]
        except ClosedError:
            return

    def read() -> None:
        try:
            while True:
                db.query(vector_of(1, 0), k=3)
                db.get(0)
                list(db.scan())
        except ClosedError:
            return

    def close() -> None:
        while len(done) < 50:
            os.sched_yield()
        db.close()

    run_all(write, read, read, close)
    with open_db() as again:
        assert set(done) <= {record.id for record in again.scan()}


@pytest.mark.usefixtures("busy_upkeep")
def test_indexes_are_made_while_others_write_and_save(open_db: Callable[..., NoPokeDB]) -> None:
    """All of them make commits durable; the indexes hold what was written meanwhile."""
    db = open_db(dim=DIM)
    rounds = 40

    def write() -> None:
        for n in range(rounds):
            db.add_many(np.random.default_rng(n).random((100, DIM)), [{"a": n, "b": i, "c": i % 7} for i in range(100)])

    def index(field: str) -> None:
        for _ in range(rounds // 4):
            db.create_index(field)
            db.drop_index(field)
        db.create_index(field)

    def save() -> None:
        for _ in range(rounds * 2):
            db.save()

    run_all(write, lambda: index("a"), lambda: index("b"), save, save)
    db.add(np.ones(DIM), {"a": 0, "b": 5})
    assert db.count({"a": 0}) == 101
    assert db.count({"b": 5}) == rounds + 1
    db.close()
    with NoPokeDB(path=db.path) as again:
        assert set(again.stats().indexed_fields) == {"a", "b"}
        assert again.count({"b": 5}) == rounds + 1
        assert again.check(deep=True) == []


def test_closing_while_indexes_are_made(open_db: Callable[..., NoPokeDB]) -> None:
    """A close waits for the part that is being added, and the unfinished index is gone afterwards."""
    db = open_db(dim=DIM)
    db.add_many(np.random.default_rng(0).random((20_000, DIM)), [{"n": i} for i in range(20_000)])
    made: list[int] = []

    def index() -> None:
        try:
            while True:
                db.create_index("n")
                db.drop_index("n")
                made.append(1)
        except ClosedError:
            return

    def close() -> None:
        while not made:
            os.sched_yield()
        db.close()

    run_all(index, close)
    with NoPokeDB(path=db.path) as again:
        assert again.stats().indexed_fields in ((), ("n",))
        assert again.count({"n": {"$lt": 100}}) == 100
        assert again.check(deep=True) == []


def test_a_reader_follows_a_writer(open_db: Callable[..., NoPokeDB]) -> None:
    """Beside a live writer a reader sees the state of its open, moves with `refresh`, and cannot write."""
    db = open_db(dim=DIM)
    db.add_many(np.array([vector_of(n, 0) for n in range(50)]), [{"v": 0}] * 50, texts=["t"] * 50)
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert len(reader) == 50
        db.add(vector_of(50, 0), {"v": 0})
        db.delete(3)
        db.upsert(4, metadata={"v": 1})
        db.upsert(5, vector_of(5, 1))
        assert len(reader) == 50 and reader.get(3) == {"v": 0} and reader.get(4) == {"v": 0}
        assert np.array_equal(reader[5].vector, vector_of(5, 0))
        reader.refresh()
        assert len(reader) == 50 and 3 not in reader and 50 in reader
        assert reader.get(4) == {"v": 1} and reader[4].text == "t"
        assert reader.query(vector_of(5, 1), k=1)[0].id == 5
        db.save()  # drops the log that the reader followed
        db.add(vector_of(60, 0), id=60)
        reader.refresh()
        assert 60 in reader
        assert [r.id for r in reader.scan()] == [r.id for r in db.scan()]
        for call in (lambda: reader.add(vector_of(0, 0)), lambda: reader.delete(0), reader.save):
            with pytest.raises(ReadOnlyError):
                call()
        with pytest.raises(ReadOnlyError), reader.batch() as b:
            b.add(vector_of(0, 0))
    assert len(db) == 51


@pytest.mark.usefixtures("busy_upkeep")
def test_a_reader_beside_a_busy_writer(open_db: Callable[..., NoPokeDB]) -> None:
    """While a writer seals, rotates logs and checkpoints, a reader that refreshes all the time sees only whole
    batches, moves only forward, and finds every record it counts."""
    db = open_db(dim=DIM)
    stop = threading.Event()

    def write() -> None:
        try:
            for n in range(300):
                db.add_many(np.array([vector_of(10 * n + i, 0) for i in range(10)]), [{"n": n}] * 10)
        finally:
            stop.set()

    def read() -> None:
        last = 0
        with NoPokeDB(path=db.path, read_only=True) as reader:
            while not stop.is_set():
                reader.refresh()
                count = len(reader)
                assert count >= last and count % 10 == 0
                last = count
                if count:
                    key = count - 1
                    assert reader.query(vector_of(key, 0), k=1)[0].id == key
                    assert reader.get(key) == {"n": key // 10}
            reader.refresh()
            assert len(reader) == 3000

    run_all(write, read)


def test_a_reader_alone_on_a_clean_folder_writes_nothing(open_db: Callable[..., NoPokeDB]) -> None:
    """A cleanly closed folder opens even where nothing may be written, and stays byte for byte as it was."""
    db = open_db(dim=DIM)
    db.add_many(np.array([vector_of(n, 0) for n in range(20)]))
    db.close()
    folder = Path(db.path)

    def image() -> dict[str, tuple[bytes, int]]:
        return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}

    before = image()
    with NoPokeDB(path=folder, read_only=True) as reader:
        assert len(reader) == 20 and reader.query(vector_of(7, 0), k=1)[0].id == 7
        with NoPokeDB(path=folder, read_only=True) as second:
            assert len(second) == 20
    assert image() == before
    (folder / "LOCK").unlink()
    (folder / "metadata-1.db-shm").unlink(missing_ok=True)
    (folder / "metadata-1.db-wal").unlink(missing_ok=True)
    with NoPokeDB(path=folder, read_only=True) as reader:
        assert len(reader) == 20


def test_a_reader_that_was_alone_notices_a_writer(open_db: Callable[..., NoPokeDB]) -> None:
    """A handle opened on a resting folder keeps giving its own state while a writer changes the files, and
    `refresh` brings it up to date."""
    db = open_db(dim=DIM)
    db.add_many(np.array([vector_of(n, 0) for n in range(2000)]), [{"v": 0, "pad": "x" * 200}] * 2000)
    db.close()
    with NoPokeDB(path=db.path, read_only=True) as reader:
        with open_db() as writer:
            for n in range(0, 2000, 7):
                writer.upsert(n, metadata={"v": 1, "pad": "y" * 300})
            writer.delete_many(range(1, 2000, 7))
            writer.save()  # rewrites pages of the database file that the reader has open
            records = list(reader.scan())
            assert [r.id for r in records] == list(range(2000))
            assert all(r.metadata == {"v": 0, "pad": "x" * 200} for r in records)
            assert reader.get(7) == {"v": 0, "pad": "x" * 200} and reader.get(8) is not None
            reader.refresh()
            assert reader.get(7) == {"v": 1, "pad": "y" * 300} and reader.get(8) is None
        reader.refresh()
        assert reader.get(7) == {"v": 1, "pad": "y" * 300}


def test_a_writer_that_came_and_went_is_noticed_too(open_db: Callable[..., NoPokeDB]) -> None:
    """A handle on a resting folder gives its own state also after a writer rewrote the database's pages and closed."""
    db = open_db(dim=DIM)
    db.add_many(np.array([vector_of(n, 0) for n in range(3000)]), [{"v": 0, "pad": "x" * 50}] * 3000)
    db.close()
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert reader.get(0) == {"v": 0, "pad": "x" * 50}
        with open_db() as writer:
            writer.update_many(range(0, 3000, 3), {"v": 1, "pad": "y" * 90})
            writer.delete_many(range(1, 3000, 3))
        found = [reader.get(n) for n in range(3000)]
        assert found == [{"v": 0, "pad": "x" * 50}] * 3000
        assert len(list(reader.scan())) == 3000


def test_a_reader_notices_that_its_collection_was_dropped(open_db: Callable[..., NoPokeDB]) -> None:
    """Another collection under the same name is not taken for the one that the handle was opened on."""
    db = open_db(dim=DIM)
    db.add(vector_of(0, 0), {"from": "the first"})
    with NoPokeDB(path=db.path, read_only=True) as beside:
        db.close()
        with NoPokeDB(path=db.path, read_only=True) as alone:
            assert beside.get(0) == alone.get(0) == {"from": "the first"}
            drop_collection(Path(db.path).parent, Path(db.path).name)
            with open_db(dim=DIM) as other:
                other.add(vector_of(1, 0), {"from": "the second"})
                for reader in (beside, alone):
                    with pytest.raises(CollectionNotFoundError, match="dropped"):
                        reader.get(0)
                    with pytest.raises(CollectionNotFoundError, match="dropped"):
                        reader.query(vector_of(0, 0))
                    with pytest.raises(CollectionNotFoundError, match="dropped"):
                        reader.refresh()


def test_a_dirty_folder_needs_a_writer_first(tmp_path: Path) -> None:
    """Read-only does not recover: it says what is to be done, and changes nothing."""
    code = (
        "import os, sys; from nopokedb import NoPokeDB; db = NoPokeDB(dim=8, path=sys.argv[1]);"
        "db.add([1, 2, 3, 4, 5, 6, 7, 8]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "db")], check=True)
    before = {p: p.read_bytes() for p in (tmp_path / "db").rglob("*") if p.is_file()}
    with pytest.raises(NeedsRecoveryError, match="open the folder for writing once"):
        NoPokeDB(path=tmp_path / "db", read_only=True)
    assert {p: p.read_bytes() for p in (tmp_path / "db").rglob("*") if p.is_file()} == before
    NoPokeDB(path=tmp_path / "db").close()
    with NoPokeDB(path=tmp_path / "db", read_only=True) as reader:
        assert len(reader) == 1
