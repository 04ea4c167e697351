"""Compaction: the same records before and after, less space, nobody disturbed."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import run_all, vector_of
from model import Model, assert_answers, assert_same, dump

from nopokedb import ClosedError, CorruptionError, NeedsReopenError, NoPokeDB, ReadOnlyError
from nopokedb.embedded import compaction, new_generation, sealing, text_view, texts, upkeep
from nopokedb.embedded.storage import lock

DIM = 8


def generations(folder: str | Path) -> set[int]:
    """The generations that have files in the folder."""
    names = [path.name for path in Path(folder).rglob("*")]
    found = [re.match(r"(?:vectors|rows|labels|metadata|live|segment)-(\d+)", name) for name in names]
    return {int(match[1]) for match in found if match}


def fill(db: NoPokeDB, count: int = 600) -> None:
    """A history with every kind of write; two thirds of its versions are retired."""
    keys = list(range(count))
    vectors = np.array([vector_of(key, 0) for key in keys])
    db.add_many(vectors, [{"n": key, "kind": key % 3} for key in keys], ids=keys, texts=[f"text {key}" for key in keys])
    db.upsert_many(keys[::2], np.array([vector_of(key, 1) for key in keys[::2]]))
    db.update_many(keys[1::4], {"kind": 7, "deep": {"é": [None, 1.5]}})
    db.delete_many(keys[2::3])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


def stored(db: NoPokeDB) -> list[tuple[Any, ...]]:
    """Every live record as the stores have it, in label order, with its bytes and flags."""
    snapshot = db._engine.snapshot()  # type: ignore[attr-defined]
    labels = snapshot.live.members(0, snapshot.label_count).tolist()
    found = snapshot.store.reader.fetch(labels)
    texts = snapshot.store.reader.texts(found.values())
    return [
        (
            type(found[label].id),
            found[label].id,
            found[label].metadata,
            texts.get(label),
            snapshot.vectors[found[label].row].tobytes(),
            snapshot.rows[found[label].row].tobytes(),
        )
        for label in labels
    ]


# --- the same records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_random_histories_are_the_same_afterwards(tmp_path: Path, rng: np.random.Generator, space: str) -> None:
    """After any history, with compactions anywhere in it: all parts of all records byte for byte, in the same order of
    labels, the same answers, counters that go on; and the same after reopening."""
    model = Model(DIM, space)
    db = NoPokeDB(dim=DIM, path=tmp_path / "db", space=space)  # type: ignore[arg-type]
    db.create_index("a")
    generation = 1
    for step in range(250):
        key: int | str = int(rng.integers(-20, 40)) if rng.random() < 0.7 else f"s{int(rng.integers(20))}é"
        vector = rng.standard_normal(DIM).astype(np.float32)
        metadata = {"a": int(rng.integers(4)), "nested": {"step": step, "f": 0.1 * step}}
        text = None if rng.random() < 0.4 else f"words {step} \0 “x”"
        kind = rng.choice(["add", "upsert", "meta", "delete", "compact", "reopen"], p=[0.2, 0.3, 0.2, 0.2, 0.06, 0.04])
        if kind == "add":
            model.add(db.add(vector, metadata, text=text), vector, metadata, text)
        elif kind == "upsert":
            db.upsert(key, vector, metadata, text=text)
            model.upsert(key, vector, metadata, text)
        elif kind == "meta" and key in model.records:
            db.upsert(key, metadata=metadata)
            model.upsert(key, None, metadata, None)
        elif kind == "delete":
            assert db.delete(key) == (model.records.pop(key, None) is not None)
        elif kind == "compact":
            before, retired = stored(db), db.stats().label_count - len(db)
            db.compact()
            generation += retired > 0
            stats = db.stats()
            assert stored(db) == before
            assert (stats.generation, stats.label_count, stats.row_count) == (generation, len(db), len(db))
            assert stats.reclaimable_bytes == 0
        elif kind == "reopen":
            db.close()
            db = NoPokeDB(path=tmp_path / "db")
            assert db.stats().generation == generation
        assert len(db) == len(model.records)
        if step % 25 == 0:
            assert_same(db, model)
            assert_answers(db, model, vector, 5)
            for value in range(4):
                want = sum(metadata["a"] == value for _, metadata, _ in model.records.values())
                assert db.count({"a": value}) == want
    assert generation > 3
    assert_same(db, model)
    db.close()
    assert generations(tmp_path / "db") == {generation}
    with NoPokeDB(path=tmp_path / "db") as again:
        assert_same(again, model)
        key = again.add(vector)
        assert key not in model.used


@pytest.mark.engines(without=("postgres",))
def test_automatic_ids_are_never_used_again(open_db: Callable[..., NoPokeDB]) -> None:
    """Also such as were handed out and never written, or whose record is gone with all others."""
    db = open_db(dim=DIM)
    assert db.add_many(np.array([vector_of(n, 0) for n in range(5)])) == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError), db.batch() as batch:
        assert batch.add(vector_of(9, 0)) == 5
        raise ZeroDivisionError
    db.delete_many(range(5))
    with pytest.raises(ZeroDivisionError), db.batch() as batch:
        assert batch.add(vector_of(9, 0)) == 6
        db.compact()
        assert len(db) == 0 and db.stats().label_count == 0
        assert db.add(vector_of(1, 1)) == 7
        raise ZeroDivisionError
    db.delete(7)
    db.compact()
    db.close()
    with open_db() as again:
        assert again.add(vector_of(2, 0)) == 8
        assert list(again.scan()) and again.stats().generation == 3


def test_indexes_on_fields_are_kept(open_db: Callable[..., NoPokeDB]) -> None:
    """The same fields with the same standing, and answers from them that agree with looking through everything."""
    db = open_db(dim=DIM, indexed_fields=["kind"])
    fill(db, 6000)
    fields = db._engine._fields  # type: ignore[attr-defined]
    fields.create(("n",), automatic=True)
    before = [(field.path, field.automatic, field.ready) for field in fields.fields()]
    counts = {kind: db.count({"kind": kind}) for kind in (0, 1, 2, 7)}
    facet = db.facet("kind")
    assert db.compact() > 0
    assert [(field.path, field.automatic, field.ready) for field in fields.fields()] == before
    from nopokedb.where import parse_filter

    reader = db._engine.snapshot().store.reader  # type: ignore[attr-defined]
    assert reader.matching(parse_filter({"kind": 7}), 0, db.stats().label_count)[1], "the index says so"
    assert {kind: db.count({"kind": kind}) for kind in counts} == counts and db.facet("kind") == facet
    db.add(vector_of(1, 5), {"kind": 7})
    assert db.count({"kind": 7}) == counts[7] + 1
    assert db.drop_index("kind") and db.count({"kind": 7}) == counts[7] + 1


@pytest.mark.engines("embedded", "postgres")
def test_vectors_made_of_texts_stay_such(open_db: Callable[..., NoPokeDB]) -> None:
    """Whether a vector was given by hand or computed from the text decides what a new text does; it is kept."""

    def model(texts: list[str]) -> np.ndarray:
        return np.array([vector_of(len(text), 3) for text in texts])

    db = open_db(dim=DIM, embed=model)
    db.upsert("made", text="ab")
    db.upsert("given", vector_of(0, 0), text="ab")
    db.upsert("gone", text="x")
    db.delete("gone")
    db.compact()
    for key in ("made", "given"):
        db.upsert(key, text="abc")
    assert np.array_equal(db["made"].vector, vector_of(3, 3))
    assert np.array_equal(db["given"].vector, vector_of(0, 0))


def test_texts_are_found_as_before(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """Full-text search goes by labels, which are other ones afterwards: in this handle and the next, with an index that
    was saved before or not."""
    pytest.importorskip("tantivy")
    real_add = text_view.TextView._add
    db = open_db(dim=DIM)
    fill(db)

    def found(db: NoPokeDB) -> list[Any]:
        return [[hit.id for hit in db.query(text=f"{n}", k=3)] for n in range(0, 600, 37)]

    before = found(db)
    assert any(before)
    monkeypatch.setattr(text_view.TextView, "_add", None)  # no text is read for a query
    prepared: list[Any] = []
    real_prepare = texts.Texts.prepare

    def prepare(self: texts.Texts, snapshot: Any) -> None:
        with monkeypatch.context() as undone:
            undone.setattr(text_view.TextView, "_add", real_add)
            real_prepare(self, snapshot)
        prepared.append(snapshot.label_count)

    monkeypatch.setattr(texts.Texts, "prepare", prepare)
    db.compact()
    assert found(db) == before and prepared == [len(db)]
    monkeypatch.undo()
    db.add(vector_of(0, 0), id="later", text="a word of its own")
    assert db.query(text="word", k=1)[0].id == "later"
    db.delete("later")
    db.close()
    with open_db() as again:
        assert found(again) == before
        assert not any("text index" in note for note in again.stats().notes)
    with open_db() as again:  # compacted by a handle that never looked for a text
        again.delete(0)
        again.compact()
    with open_db() as again:
        assert found(again) == [[], *before[1:]]


def test_indexes_are_there_at_once(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the new generation are indexed before it is used: queries do not become slow by a compaction."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 1024)
    db = open_db(dim=DIM)
    fill(db, 6000)
    assert db.compact() > 0
    stats = db.stats()
    assert stats.segments and stats.tail_count < 8
    for key in range(0, 6000, 500):
        if key in db:
            assert db.query(vector_of(key, 1 - key % 2), k=1)[0].id == key
    db.close()
    with open_db() as again:
        assert again.stats().segments == stats.segments and not again.stats().notes


# --- space --------------------------------------------------------------------------------------------------


def test_space_is_given_back(open_db: Callable[..., NoPokeDB]) -> None:
    """The files shrink by about what `stats` said, nothing of the old generation stays, and what had nothing retired
    is left alone."""
    db = open_db(dim=64)
    vectors = np.random.default_rng(1).standard_normal((8000, 64)).astype(np.float32)
    db.add_many(vectors, [{"pad": "x" * 200}] * 8000, ids=range(8000))
    assert db.compact() == 0 and db.stats().generation == 1
    db.delete_many(range(0, 8000, 2))
    db.delete_many(range(1, 8000, 4))
    db.save()
    before = db.stats()
    assert before.reclaimable_bytes > 3_000_000
    given_back = db.compact()
    wait_for(lambda: generations(db.path) == {2})  # the background thread may just be indexing the old rows
    after = db.stats()
    assert 0.5 * before.reclaimable_bytes < given_back < 2 * before.reclaimable_bytes
    assert after.disk_bytes < before.disk_bytes - 0.5 * before.reclaimable_bytes
    assert (after.generation, after.count, after.label_count, after.row_count) == (2, 2000, 2000, 2000)
    assert f"compacted to generation 2: {given_back} bytes given back" in after.notes
    assert db.compact() == 0 and db.stats().generation == 2


def test_it_happens_by_itself(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background once most versions are retired; then not again."""
    db = open_db(dim=DIM)
    fill(db, 2000)
    before = dump(db)
    db.delete_many([record.id for record in db.scan(limit=700)])
    assert db.stats().generation == 1
    monkeypatch.setattr(compaction, "_PAUSE_S", 0.0)
    monkeypatch.setattr(compaction, "RETIRED_LABELS", 500)  # from here on it is due
    db._engine._upkeep.wake()  # type: ignore[attr-defined]
    wait_for(lambda: db.stats().generation == 2)
    assert dump(db) == before[700:]
    assert not db._engine._compaction._due()  # type: ignore[attr-defined]
    wait_for(lambda: generations(db.path) == {2})
    db.upsert_many(range(5000, 5400), np.array([vector_of(n, 0) for n in range(400)]))
    assert db._engine._compaction._patience() is None  # type: ignore[attr-defined]


def test_repeated_compactions(open_db: Callable[..., NoPokeDB]) -> None:
    """One generation after the other, with writes between; the counters go on and the folder does not grow."""
    db = open_db(dim=DIM)
    ids = list(range(300))
    for version in range(12):
        db.upsert_many(ids, np.array([vector_of(n, version) for n in ids]), [{"v": version}] * 300)
        db.compact()
        assert generations(db.path) == {db.stats().generation}
        assert [record.metadata for record in db.scan()] == [{"v": version}] * 300
    stats = db.stats()
    assert (stats.generation, stats.lsn, stats.label_count) == (12, 12, 300)
    db.close()
    with open_db() as again:
        assert all(np.array_equal(again[n].vector, vector_of(n, 11)) for n in ids)


def test_memory_and_files_are_given_back(open_db: Callable[..., NoPokeDB]) -> None:
    """After a compaction nothing of the old generation is open or mapped, however many there were."""
    if sys.platform != "linux":
        pytest.skip("open files and maps are read from /proc")
    db = open_db(dim=DIM)

    def used() -> tuple[int, set[str]]:
        files = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
        maps = Path("/proc/self/maps").read_text().split()
        ours = [name for name in (*files, *maps) if name.startswith(os.path.realpath(db.path))]
        return len(ours), {name for name in ours if "-" in Path(name).name}

    counts = []
    for round_ in range(6):
        fill(db)
        db.delete_many(range(0, 600, 2))
        db.compact()
        records = list(db.scan(include=("vector",)))
        assert len(records) == len(db)
        wait_for(lambda: generations(db.path) == {db.stats().generation})
        count, names = used()
        assert all(f"-{round_ + 2}." in name for name in names), names
        counts.append(count)
        db.delete_many([record.id for record in records])
    assert max(counts) <= min(counts) + 2, counts


# --- nobody is disturbed --------------------------------------------------------------------------------------


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


# --- read-only handles ----------------------------------------------------------------------------------------


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


# --- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["vector", "metadata", "text", "missing"])
def test_damage_stops_it(open_db: Callable[..., NoPokeDB], part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged live record is noticed while it is copied: an error names it, the old generation stays in use, and
    nothing of the new one is left. In the background it is a note."""
    import apsw

    db = open_db(dim=DIM)
    fill(db)
    folder = Path(db.path)
    label = int(db._engine.snapshot().live.members(0, 10_000)[-1])  # type: ignore[attr-defined]
    row = int(db._engine.snapshot().labels.view(label + 1)["row"][label])  # type: ignore[attr-defined]
    if part == "vector":
        with (folder / "vectors-1.f32").open("r+b") as file:
            file.seek(row * DIM * 4)
            file.write(b"\x01\x02")
    else:
        statement = {
            "metadata": "UPDATE records SET metadata=jsonb('{\"n\":-1}') WHERE label=?",
            "text": "UPDATE texts SET text='other' WHERE label=?",
            "missing": "DELETE FROM records WHERE label=?",
        }[part]
        connection = apsw.Connection(str(folder / "metadata-1.db"))
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute(statement, (label,))
        connection.close()
    with pytest.raises(CorruptionError):
        db.compact()
    assert generations(folder) == {1} and db.stats().generation == 1
    db.add(vector_of(1, 2), id=77_777)
    monkeypatch.setattr(compaction, "RETIRED_LABELS", 10)
    monkeypatch.setattr(compaction, "RETIRED_SHARE", 0.0)
    monkeypatch.setattr(compaction, "_PAUSE_S", 0.0)
    db.add(vector_of(1, 2), id=77_778)
    wait_for(lambda: any("no compaction" in note for note in db.stats().notes))
    db.add(vector_of(1, 2), id=77_779)
    assert 77_778 in db and generations(folder) == {1}


def test_it_needs_room(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the new generation nothing is begun: a full disk would also stop the writers."""
    db = open_db(dim=DIM)
    fill(db)
    usage = shutil.disk_usage(db.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(OSError, match=r"expected \d+ free bytes"):
        db.compact()
    assert db.add(vector_of(1, 1)) == 600 and generations(db.path) == {1}


def test_a_handle_that_needs_reopening_does_not_compact(open_db: Callable[..., NoPokeDB]) -> None:
    """After a failed write nothing is written any more."""
    db = open_db(dim=DIM)
    fill(db)
    db._engine._writes.fail(OSError("a disk"))  # type: ignore[attr-defined]
    with pytest.raises(NeedsReopenError):
        db.compact()
    assert generations(db.path) == {1}
