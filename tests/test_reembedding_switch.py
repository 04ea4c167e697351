"""The moment at which a collection's new model takes the place of the old one: reads and questions under way, and
interrupts at each of its lines."""

from __future__ import annotations

import gc
import itertools
import linecache
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from two_models import NEW, OLD, assert_is, fill, told

import nopokedb
from nopokedb import ClosedError, NoPokeDB, binding, database
from nopokedb.embedded import reembedding
from nopokedb.embedded.engine import EmbeddedEngine
from nopokedb.embedded.text_view import TextView
from nopokedb.question import Asker


def no_switch(*_: Any) -> None:
    """In place of the last step before the switch: a new engine then goes on with the old model."""
    raise OSError("no switch today")


def test_reads_of_before_a_compaction_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that began two generations ago is read to its end, whether the switch comes or not; then the files of its
    generation go."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 1500)
        scan = db.scan(include=("vector",))
        store = db._engine.snapshot().store  # type: ignore[attr-defined]
        assert len(next(scan).vector) == 8
        db.delete_many(range(500))
        db.compact()
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no switch"):
            patch.setattr(reembedding.earlier, "keep", no_switch)
            db.reembed(NEW)
        for model in (NEW, OLD):
            db.reembed(model)
            store.reader._idle.clear()
            assert [len(record.vector) for record in itertools.islice(scan, 500)] == [8] * 500
        assert len([*scan]) == 499
        del scan, store
        gc.collect()  # the engine of the switch that did not come
    assert {path.name for path in (tmp_path / "db").glob("rows-*")} == {"rows-4.bin"}
    assert nopokedb.check(tmp_path / "db") == []


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("comes", [True, False], ids=["comes", "fails"])
def test_texts_are_found_before_during_and_after_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: bool, comes: bool
) -> None:
    """An engine that gets a successor has left the folder of the text index when that is opened. Both answer rightly,
    in any order, and neither disturbs the other."""
    pytest.importorskip("tantivy")
    text = tmp_path / "db" / "text"

    def ask(asker: Asker, count: int) -> None:
        hits = asker.engine.query(asker.one_of(None, 100, None, None, text="text"))[0]
        assert sorted(hit.id for hit in hits) == [n for n in range(count) if n != 5]  # type: ignore[union-attr]

    def successor(shadow: reembedding.Reembedding) -> EmbeddedEngine:
        assert not [*text.glob("work-*")]
        ask(old, 32)
        assert not [*text.glob("work-*")]
        made = really(shadow)
        ask(old, 32)
        return made

    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 30)
        old = db._asker
        if used:
            assert len(db.query(text="text", k=100)) == 30
        db.add(text="text 30")
        db.add(text="text 31")
        db.delete(5)
        really = reembedding.Reembedding._successor
        monkeypatch.setattr(reembedding.Reembedding, "_successor", successor)
        if comes:
            db.reembed(NEW)
        else:
            monkeypatch.setattr(reembedding.earlier, "keep", no_switch)
            with pytest.raises(OSError, match="no switch"):
                db.reembed(NEW)
        assert db._asker is not old
        for count in (33, 34):
            ask(db._asker, count - 1)
            db.add(text=f"text {count - 1}")
            ask(old, 32)
            ask(db._asker, count)
            assert len([*text.glob("work-*")]) == 1
    with NoPokeDB(path=tmp_path / "db") as db:
        ask(db._asker, 34)
        assert db.stats().notes == () and db.check() == []


def test_texts_that_are_just_being_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question whose index is being built when the switch comes is answered from one in memory."""
    pytest.importorskip("tantivy")
    begun, go_on = threading.Event(), threading.Event()
    found: list[Any] = []
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 30)
        build = TextView._add

        def slowly(view: TextView, *arguments: Any) -> Any:
            if not begun.is_set():
                begun.set()
                assert go_on.wait(60)
            return build(view, *arguments)

        def closing(view: TextView) -> None:
            view._closed = True
            go_on.set()
            close(view)

        close = TextView.close
        monkeypatch.setattr(TextView, "_add", slowly)
        monkeypatch.setattr(TextView, "close", closing)
        asking = threading.Thread(target=lambda: found.extend(db.query(text="text", k=100)))
        asking.start()
        assert begun.wait(60)
        db.reembed(NEW)
        asking.join()
        assert sorted(hit.id for hit in found) == [*range(30)]
        assert len(db.query(text="text", k=100)) == 30


def test_an_interrupt_at_every_line_of_the_exchange(tmp_path: Path) -> None:
    """The handle has one model or the other, whole: it answers with it, and writes or says that it has to be opened
    again. Closed, it holds nothing; the folder has that model, or the new one where it did not write, with all records.
    """
    steps = {reembedding.Reembedding.switch, reembedding.Reembedding._successor, database.reembed, binding.bind}
    codes = {step.__code__ for step in steps}
    left = [0]

    def interrupting(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code not in codes:
            return None
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # Python itself handles no interrupt between the body of a `with` and its end, which is this line again.
        if event == "line" and not text.lstrip().startswith("with "):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        return interrupting

    seen = set()
    for line in itertools.count(1):
        left[0] = line
        db = NoPokeDB(path=tmp_path / f"{line}", embed=OLD)
        fill(db, 20)
        expected = told(db)
        before = sys.gettrace()
        sys.settrace(interrupting)
        try:
            db.reembed(NEW)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        model = NEW if db.dim == 12 else OLD
        assert_is(db, model, expected)
        assert db.explain("text 3", k=1).hit_count == 1 and db.measure_recall(5, k=3).recall == 1
        try:
            expected[db.add(text="x", id=100)] = ({}, "x")
            written = True
        except ClosedError as error:
            assert "open the folder again" in str(error)
            written = False
        db.close()
        with NoPokeDB(path=tmp_path / f"{line}") as again:
            now = NEW if again.dim == 12 else OLD
            assert_is(again, now, expected)
            assert now is model or (now is NEW and not written)
        seen.add((model is NEW, now is NEW, written))
        if not interrupted:
            break
    # Before the switch, between it and the one assignment, and behind that.
    assert line > 20 and seen == {(False, False, True), (False, True, False), (True, True, True)}


def test_an_opening_that_is_interrupted_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its last step, with all threads at work: the folder is free."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 20)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEngine, "_warm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            NoPokeDB(path=tmp_path / "db", embed=OLD)
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        assert len(db) == 20
        with monkeypatch.context() as patch:
            patch.setattr(EmbeddedEngine, "_warm", interrupted)
            with pytest.raises(KeyboardInterrupt):
                db.reembed(NEW)
        assert_is(db, OLD, told(db))
    with NoPokeDB(path=tmp_path / "db", embed=NEW) as db:
        assert_is(db, NEW, told(db))
