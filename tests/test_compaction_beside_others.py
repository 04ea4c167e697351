"""Compaction while others read and write, and read-only handles that meet one: nobody is disturbed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import run_all, vector_of
from generations import fill, generations, wait_for
from model import dump

from nopokedb import ClosedError, NoPokeDB, ReadOnlyError
from nopokedb.embedded import compaction, new_generation, sealing, upkeep
from nopokedb.embedded.storage import lock

DIM = 8


# --- nobody is disturbed -------------------------------------------------------------------------------------


def test_a_scan_that_began_before_ends_right(open_db: Callable[..., NoPokeDB]) -> None:
    """It shows the state of its beginning to its end, also through connections made later; then the old files go."""
    db = open_db(dim=DIM)
    fill(db, 3000)
    want = dump(db)
    plain, filtered = db.scan(include=("metadata", "text", "vector")), db.scan({"kind": 7})
    ordered = db.scan(order_by="-n", include=("text",))
    first = [next(plain), next(filtered), next(ordered)]
    expected = [len(want), db.count({"kind": 7}), len(want)]
    assert db.compact() > 0
    db.delete_many([record.id for record in db.scan(limit=500)])
    db.compact()
    assert generations(db.path) == {1, 3}
    old = first[0]
    rest = [old, *plain]
    assert [record.id for record in rest] == [entry[1] for entry in want]
    assert [record.vector.tobytes() for record in rest if record.vector is not None] == [entry[4] for entry in want]
    assert [len(rest), len([first[1], *filtered]), len([first[2], *ordered])] == expected
    del plain, filtered, ordered
    wait_for(lambda: generations(db.path) == {3})


def test_a_scan_does_not_outlive_its_handle(open_db: Callable[..., NoPokeDB]) -> None:
    """A scan of an older generation raises `ClosedError` after the close, and its files are gone then."""
    db = open_db(dim=DIM)
    fill(db, 3000)
    records = db.scan()
    next(records)
    db.compact()
    db.close()
    assert generations(db.path) == {2}
    with pytest.raises(ClosedError):
        list(records)


def test_writers_and_readers_go_on(
    open_db: Callable[..., NoPokeDB], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers, two readers, text queries, long scans, a second handle that follows, seals and checkpoints, and one
    compaction after the other: every read sees whole batches and everything acknowledged before it, and in the end
    everything acknowledged is there."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 512)
    monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)
    monkeypatch.setattr(new_generation, "SLICE_RECORDS", 64)
    monkeypatch.setattr(compaction, "FINAL_CHANGES", 16)
    db = open_db(dim=DIM, indexed_fields=["b"])
    stop = threading.Event()
    done = [0, 0]
    state: list[dict[int, int]] = [{}, {}]

    def write(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        for batch in range(120):
            if batch % 4 == 3 and state[number]:
                keys = rng.choice(list(state[number]), 10, replace=False).tolist()
                assert db.delete_many(keys) == 10
                for key in keys:
                    del state[number][key]
            else:
                first = 1_000_000 * (number + 1) + 10 * int(rng.integers(60))
                keys = list(range(first, first + 10))
                only_metadata = batch % 4 == 2 and all(key in state[number] for key in keys)
                if only_metadata:
                    versions = [state[number][key] for key in keys]
                    db.upsert_many(keys, None, [{"b": batch, "v": version} for version in versions])
                else:
                    versions = [batch] * 10
                    vectors = np.array([vector_of(key, batch) for key in keys])
                    db.upsert_many(keys, vectors, [{"b": batch, "v": batch}] * 10, texts=[f"w{key}" for key in keys])
                state[number].update(zip(keys, versions, strict=True))
                found = db.get_many(keys, include=("metadata", "vector"))
                assert [record.metadata for record in found if record] == [{"b": batch, "v": v} for v in versions]
            done[number] = batch

    def check(records: Iterator[Any]) -> int:
        count = 0
        for record in records:
            assert np.array_equal(record.vector, vector_of(record.id, record.metadata["v"]))
            assert record.text == f"w{record.id}"
            count += 1
        return count

    def scan() -> None:
        while not stop.is_set():
            size = check(db.scan(include=("metadata", "vector", "text")))
            assert size % 10 == 0 or size > 0
            check(db.scan({"b": {"$gte": 40}}, include=("metadata", "vector", "text")))

    def ask() -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            key = 1_000_000 + int(rng.integers(600))
            for hit in db.query(vector_of(key, 1), k=4, include=("metadata", "vector")):
                assert np.array_equal(hit.vector, vector_of(hit.id, hit.metadata["v"]))
            for hit in db.query(text=f"w{key}", k=2, include=("text",)):
                assert hit.text == f"w{hit.id}"

    def follow() -> None:
        with NoPokeDB(path=db.path, read_only=True) as reader:
            while not stop.is_set():
                reader.refresh()
                records = reader.scan(include=("metadata", "vector", "text"))
                next(records, None)
                reader.refresh()
                check(records)
                check(reader.scan({"b": {"$lt": 60}}, include=("metadata", "vector", "text")))

    def compact() -> None:
        while not stop.is_set():
            db.compact()

    def writers() -> None:
        try:
            run_all(lambda: write(0), lambda: write(1))
        finally:
            stop.set()

    run_all(writers, scan, ask, follow, compact)
    assert db.stats().generation > 3
    want = {**state[0], **state[1]}
    found = {record.id: record.metadata["v"] for record in db.scan() if record.metadata}
    assert found == want
    db.close()
    assert len(generations(db.path)) == 1
    with open_db() as again:
        assert check(again.scan(include=("metadata", "vector", "text"))) == len(want)


def test_writers_wait_only_for_the_end(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """While a compaction copies, writes return; what they wrote is in the new generation."""
    db = open_db(dim=DIM)
    fill(db)
    inside, gate = threading.Event(), threading.Event()
    real = compaction.NewGeneration.seal

    def slow(self: Any) -> None:
        inside.set()
        assert gate.wait(60)
        real(self)

    monkeypatch.setattr(compaction.NewGeneration, "seal", slow)
    thread = threading.Thread(target=db.compact)
    thread.start()
    assert inside.wait(60)
    db.upsert_many(range(10_000, 12_000), np.array([vector_of(n, 0) for n in range(2000)]))
    db.update_many([0, 1], {"late": True})
    db.delete_many([3, 4])
    db.save()
    before = dump(db)
    assert db.stats().generation == 1
    gate.set()
    thread.join(60)
    assert db.stats().generation == 2 and dump(db) == before
    assert db.get(0)["late"] and 3 not in db  # type: ignore[index]


def test_a_close_ends_a_compaction(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up; the old generation is what the next open finds."""
    db = open_db(dim=DIM)
    fill(db)
    want = dump(db)
    inside = threading.Event()
    real = compaction.NewGeneration.seal

    def slow(self: Any) -> None:
        inside.set()
        wait_for(lambda: db._engine._upkeep.stopping)  # type: ignore[attr-defined]
        real(self)

    monkeypatch.setattr(compaction.NewGeneration, "seal", slow)
    errors: list[BaseException] = []

    def compact() -> None:
        try:
            db.compact()
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=compact)
    thread.start()
    assert inside.wait(60)
    db.close()
    thread.join(60)
    assert len(errors) == 1 and generations(db.path) == {1}
    with open_db() as again:
        assert dump(again) == want


def test_an_index_of_the_old_rows_is_not_taken_for_one_of_the_new(
    open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that the background thread has begun before a switch and finishes after it is dropped: its rows have
    other numbers by then."""
    inside, gate = threading.Event(), threading.Event()
    real = sealing.Sealing._construct

    def slow(self: sealing.Sealing, *arguments: Any) -> Any:
        if threading.current_thread().name == "nopokedb-upkeep" and not gate.is_set():
            inside.set()
            assert gate.wait(60)
        return real(self, *arguments)

    monkeypatch.setattr(sealing.Sealing, "_construct", slow)
    monkeypatch.setattr(sealing, "SEAL_ROWS", 1024)
    db = open_db(dim=DIM)
    fill(db, 4000)
    assert inside.wait(60)
    assert db.compact() > 0
    segments = db.stats().segments
    assert segments
    gate.set()
    wait_for(lambda: generations(db.path) == {2} and not db.stats().sealing)
    assert db.stats().segments == segments
    for key in range(0, 4000, 300):
        assert key % 3 == 2 or db.query(vector_of(key, 1 - key % 2), k=1)[0].id == key
    db.close()
    with open_db() as again:
        assert again.stats().segments == segments and not again.stats().notes


# --- read-only handles ---------------------------------------------------------------------------------------


def test_a_reader_stays_where_it_is_until_it_refreshes(open_db: Callable[..., NoPokeDB]) -> None:
    """A follower keeps its state, whole and also for new connections, while the writer goes through generations; then
    it moves on, and the old files can go."""
    db = open_db(dim=DIM)
    fill(db)
    want = dump(db)
    with NoPokeDB(path=db.path, read_only=True) as reader:
        records = reader.scan()
        next(records)
        db.compact()
        db.upsert(0, vector_of(0, 9), {"new": 1})
        db.compact()
        assert generations(db.path) == {1, 3}
        store = reader._engine.snapshot().store  # type: ignore[attr-defined]
        while store.reader._idle:
            store.reader._idle.pop().close()
        assert dump(reader) == want
        del store
        assert reader.query(vector_of(1, 0), k=1)[0].id == 1 and reader.stats().generation == 1
        reader.refresh()
        assert reader.stats().generation == 3 and reader.get(0)["new"] == 1  # type: ignore[index]
        assert dump(reader) == dump(db)
        assert len(list(records)) == len(want) - 1
        del records
        wait_for(lambda: generations(db.path) == {3})
        with pytest.raises(ReadOnlyError):
            reader.compact()


def test_a_reader_that_was_alone_meets_a_compaction(open_db: Callable[..., NoPokeDB]) -> None:
    """A handle on a resting folder, and a scan of it, stay right while a writer comes, compacts and goes."""
    db = open_db(dim=DIM)
    fill(db, 3000)
    want = dump(db)
    db.close()
    with NoPokeDB(path=db.path, read_only=True) as reader:
        records = reader.scan(include=("vector",))
        next(records)
        with open_db() as writer:
            writer.update_many(range(0, 3000, 2), {"kind": 9})
            assert writer.compact() > 0
        assert generations(db.path) == {1, 2}
        with open_db() as writer:  # an open leaves them to the reader too
            writer.add(vector_of(0, 0))
        assert generations(db.path) == {1, 2}
        assert dump(reader) == want
        reader.refresh()
        assert len(list(records)) == len(want) - 1
        assert reader.stats().generation == 2 and reader.count({"kind": 9}) > 0
        del records
    with open_db():
        assert generations(db.path) == {2}


def test_a_reader_refreshes_into_a_new_generation_without_a_write(open_db: Callable[..., NoPokeDB]) -> None:
    """A compaction changes no record and no lsn; a refresh notices it all the same, so that it can let go."""
    db = open_db(dim=DIM)
    fill(db)
    with NoPokeDB(path=db.path, read_only=True) as reader:
        db.compact()
        reader.refresh()
        assert reader.stats().generation == 2
        wait_for(lambda: generations(db.path) == {2})
        assert dump(reader) == dump(db)


def test_a_reader_that_opens_while_the_files_go(
    open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the old manifest, and even opened the first file, when the old generation is removed: it begins
    again, with the new one."""
    db = open_db(dim=DIM)
    fill(db)
    real, times = lock._try_lock, []

    def slow(descriptor: int, *, shared: bool) -> bool:
        if shared and sys.platform == "linux" and Path(f"/proc/self/fd/{descriptor}").readlink().name == "rows-1.bin":
            times.append(db.compact())
        return real(descriptor, shared=shared)

    monkeypatch.setattr(lock, "_try_lock", slow)
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert reader.stats().generation == db.stats().generation == 1 + len(times)
        assert dump(reader) == dump(db)
    assert generations(db.path) == {1 + len(times)}
