"""Compaction: the same records before and after, less space, and what stops it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import vector_of
from generations import fill, generations, wait_for
from model import Model, assert_answers, assert_same, dump

from nopokedb import CorruptionError, NeedsReopenError, NoPokeDB
from nopokedb.embedded import compaction, sealing, text_view, texts

DIM = 8


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


# --- the same records ----------------------------------------------------------------------------------------


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


# --- space ---------------------------------------------------------------------------------------------------


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


# --- damage --------------------------------------------------------------------------------------------------


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
