"""Named snapshots: a moment stays readable, and comes back, whatever is written after it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from model import Model, assert_same, dump

from nopokedb import (
    BatchTooLargeError,
    ClosedError,
    CorruptionError,
    InvalidInputError,
    NoPokeDB,
    RecordNotFoundError,
    SnapshotNotFoundError,
    check,
)
from nopokedb.embedded import compensation, sealing, upkeep
from nopokedb.errors import ReadOnlyError
from nopokedb.records import Part

DIM = 6
PARTS: tuple[Part, ...] = ("metadata", "vector", "text")


def change(db: NoPokeDB, rng: np.random.Generator, model: Model) -> None:
    """A few random writes, in the model too."""
    for _ in range(12):
        key: int | str = [*range(8), "a", "b"][int(rng.integers(10))]
        vector = rng.standard_normal(DIM).astype(np.float32)
        choice = int(rng.integers(3))
        if choice == 0 and key in model.records:
            db.delete(key)
            del model.records[key]
        elif choice == 1 and key in model.records:
            db.upsert(key, metadata={"m": int(rng.integers(99))}, text="t")
            record = db[key]
            model.upsert(key, None, record.metadata, record.text)
        else:
            db.upsert(key, vector, {"v": int(rng.integers(99))})
            record = db[key]
            model.put(key, vector, record.metadata or {}, record.text)


@pytest.mark.engines(without=("postgres",))
def test_snapshots_stay_what_they_were(open_db: Callable[..., NoPokeDB], seed: int, tmp_path: Path) -> None:
    """Each named state reads as it was written, through every read method, after reopening, and from a reader."""
    rng = np.random.default_rng(seed)
    db = open_db(dim=DIM)
    model = Model(DIM, "cosine")
    states = {}
    for n in range(5):
        change(db, rng, model)
        made = db.snapshot(f"s{n}")
        assert (made.name, made.lsn, made.count) == (f"s{n}", db.stats().lsn, len(db))
        assert abs((made.created_at - datetime.now(UTC)).total_seconds()) < 60
        states[f"s{n}"] = (dump(db), dict(model.records), made)
        if n == 2:
            db.save()
    change(db, rng, model)
    assert db.check() == []
    db.close()
    copy = db.path
    if Path(db.path).is_dir():
        copy = shutil.copytree(db.path, tmp_path / "copy")
        assert check(copy) == []
    for handle in (open_db(), NoPokeDB(path=copy, read_only=True)):
        assert handle.snapshots() == [made for _, _, made in states.values()]
        assert handle.stats().snapshots == tuple(states)
        for name, (content, records, made) in states.items():
            view = handle.at(name)
            assert dump(view) == content  # type: ignore[arg-type]
            assert len(view) == view.count() == made.count == len(records)
            for key, (vector, metadata, text) in records.items():
                assert view.get(key) == metadata and view[key].text == text
                (hit,) = view.query(vector, k=1, include=("vector",))
                assert hit.distance < 1e-6
            assert view.get_many(["absent"]) == [None] and view.get("absent") is None
            with pytest.raises(RecordNotFoundError):
                view["absent"]
            assert {hit.id for hit in view.query(np.ones(DIM), k=100)} == set(records)
            assert [record.id for record in view.scan(limit=1)] == [row[1] for row in content[:1]]
        handle.close()
        with pytest.raises(ClosedError):
            view.get(0)


@pytest.mark.engines(without=("postgres",))
def test_rollback_brings_a_snapshot_back_in_one_batch(open_db: Callable[..., NoPokeDB], seed: int) -> None:
    """Any snapshot, forwards and backwards; undo takes the rollback back; other snapshots stay."""
    rng = np.random.default_rng(seed)
    db = open_db(dim=DIM)
    model = Model(DIM, "cosine")
    states = {}
    for n in range(4):
        change(db, rng, model)
        db.snapshot(str(n))
        states[str(n)] = dump(db)
    change(db, rng, model)
    assert_same(db, model)
    for name in ("1", "3", "0", "2"):
        before, lsn = dump(db), db.stats().lsn
        db.rollback(name)
        assert dump(db) == states[name] and db.stats().lsn <= lsn + 1
        view = db.at("0")
        assert dump(view) == states["0"]  # type: ignore[arg-type]
        for record in view.scan(include=("metadata", "vector")):
            (hit,) = view.query(record.vector, k=1)  # its row has newer labels by now, whose chain leads back to then
            assert (hit.id, hit.metadata) == (record.id, record.metadata)
        if before != states[name]:
            db.undo()
            assert dump(db) == before
            assert db.rollback(name) > 0
        assert db.rollback(name) == 0
    db.close()
    assert dump(open_db()) == states["2"]


def test_views_use_indexes_that_their_rows_have(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment over rows of the snapshot serves it with the live bits of then; newer rows are never seen."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 256)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)
    db = open_db(dim=DIM, index="exact")
    db.close()
    vectors = rng.standard_normal((3000, DIM)).astype(np.float32)
    with NoPokeDB(dim=DIM, path=Path(db.path).parent / "two") as two:
        two.add_many(vectors)
        deadline = time.monotonic() + 60
        while two.stats().sealing and time.monotonic() < deadline:
            time.sleep(0.02)
        two.snapshot("full")
        two.delete_many(range(0, 3000, 2))
        two.upsert_many(range(1, 3000, 2), -vectors[1::2])
        view = two.at("full")
        for n in (0, 1, 1500, 2999):
            assert [hit.id for hit in view.query(vectors[n], k=1)] == [n]
        assert len(view.query(vectors[0], k=3000)) == 3000


def test_a_segment_that_covers_newer_rows_does_not_serve_an_older_view(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows sealed together with later ones are compared exactly by the view, and none of the later ones shows."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 1000)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)
    db = open_db(dim=DIM)
    vectors = rng.standard_normal((6000, DIM)).astype(np.float32)
    db.add_many(vectors[:900])
    db.snapshot("early")
    db.add_many(vectors[900:])
    deadline = time.monotonic() + 60
    while (db.stats().sealing or not db.stats().segments) and time.monotonic() < deadline:
        time.sleep(0.02)
    view = db.at("early")
    assert db._engine.at("early")[0]._state.segments == ()  # type: ignore[attr-defined]
    assert {hit.id for hit in view.query(vectors[3000], k=6000)} == set(range(900))
    assert [view.query(vectors[n], k=1)[0].id for n in (0, 899)] == [0, 899]


@pytest.mark.engines(without=("postgres",))
def test_wrong_names_and_states_are_refused(open_db: Callable[..., NoPokeDB]) -> None:
    """A name is one plain path component, new, and known when it is used."""
    db = open_db(dim=DIM)
    db.add(np.ones(DIM))
    for wrong in ("", "../x", "a/b", ".x", "x" * 129, "x\0", 5, None):
        for method in (db.snapshot, db.at, db.rollback, db.drop_snapshot):
            with pytest.raises(InvalidInputError):
                method(wrong)  # type: ignore[arg-type,operator]
    db.snapshot("one")
    with pytest.raises(InvalidInputError, match="exists"):
        db.snapshot("one")
    for method in (db.at, db.rollback, db.drop_snapshot):
        with pytest.raises(SnapshotNotFoundError, match="'one'"):
            method("two")
    with NoPokeDB(path=db.path, read_only=True) as reader:
        for method in (reader.snapshot, reader.rollback, reader.drop_snapshot):
            with pytest.raises(ReadOnlyError):
                method("one")
    db.drop_snapshot("one")
    assert db.snapshots() == [] and db.snapshot("one").count == 1


def test_a_rollback_over_the_batch_limit_changes_nothing(
    open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db(dim=DIM)
    db.add(np.ones(DIM), {"a": "x" * 1000})
    db.snapshot("s")
    db.delete(0)
    before = dump(db)

    def small(size: int) -> None:
        if size > 500:
            raise BatchTooLargeError("expected less, got more")

    monkeypatch.setattr(compensation, "check_batch_bytes", small)
    with pytest.raises(BatchTooLargeError):
        db.rollback("s")
    monkeypatch.undo()
    assert dump(db) == before and db.rollback("s") == 1


def test_a_damaged_snapshot_is_reported_and_set_aside(open_db: Callable[..., NoPokeDB], tmp_path: Path) -> None:
    """Any changed byte; the collection itself is as it was."""
    db = open_db(dim=DIM)
    db.add_many(np.eye(DIM), [{"n": n} for n in range(DIM)])
    db.snapshot("s")
    db.snapshot("sound")
    content = dump(db)
    path = tmp_path / "db" / "snapshots" / "s@1.npks"
    data = path.read_bytes()
    for at in range(0, len(data), 97 if len(data) > 2000 else 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CorruptionError):
            db.at("s")
        with pytest.raises(CorruptionError):
            db.rollback("s")
        assert [item.name for item in db.snapshots()] == ["sound"] and db.stats().snapshots == ("s", "sound")
        path.write_bytes(data[:at])
        with pytest.raises(CorruptionError):
            db.at("s")
    db.close()
    (problem,) = check(tmp_path / "db")
    assert (problem.kind, problem.file) == ("snapshot", str(path))
    assert [p.repaired for p in check(tmp_path / "db", repair=True)] == [True]
    again = open_db()
    assert [item.name for item in again.snapshots()] == ["sound"] and dump(again) == content
    assert (tmp_path / "db" / "quarantine-1" / "snapshots" / "s@1.npks").exists()


@pytest.mark.engines(without=("postgres",))
def test_a_compaction_keeps_what_snapshots_need(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Versions that only a snapshot needs survive compactions, with new numbers; dropped with it, they go."""
    db = open_db(dim=DIM, indexed_fields=("v",))
    model = Model(DIM, "cosine")
    for _ in range(6):
        change(db, rng, model)
    db.snapshot("first")
    first = [(record.id, record.metadata, record.text, record.vector.tobytes()) for record in db.scan(include=PARTS)]
    held = db.at("first")
    for name in ("second", "third"):
        for _ in range(6):
            change(db, rng, model)
        db.snapshot(name)
        db.compact()
        assert_same(db, model)
        for view in (db.at("first"), held):
            now = [
                (record.id, record.metadata, record.text, record.vector.tobytes())
                for record in view.scan(include=PARTS)
            ]
            assert now == first
    assert [named.name for named in db.snapshots()] == ["first", "second", "third"]
    assert db.check() == []
    db.close()
    db = open_db()
    query = rng.standard_normal(DIM)
    assert {hit.id for hit in db.at("first").query(query, k=100, where={"$id": {"$exists": True}})} == {
        record[0] for record in first
    }
    assert db.at("first").count({"v": {"$gte": 0}}) == sum("v" in record[1] for record in first)
    db.rollback("first")
    again = [(record.id, record.metadata, record.text, record.vector.tobytes()) for record in db.scan(include=PARTS)]
    assert again == first
    for name in ("first", "second", "third"):
        db.drop_snapshot(name)
    db.compact()
    stats = db.stats()
    assert stats.label_count == stats.count == len(first) and not stats.snapshots
    assert db.compact() == 0
