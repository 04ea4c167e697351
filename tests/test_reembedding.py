"""A collection gets another model: all of it at once, and what it was before is kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_models import NEW, OLD, Hashed, assert_is, assert_no_second_generation, fill, told

import nopokedb
from nopokedb import (
    CorruptionError,
    InvalidInputError,
    InvalidVectorError,
    NoPokeDB,
    NotSupportedError,
    SettingsMismatchError,
)


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


@pytest.mark.parametrize("half_way", [False, True])
def test_records_without_a_text_are_refused(tmp_path: Path, small_slices: None, half_way: bool) -> None:
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


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_manifest_of_before_bars_only_what_is_kept_there(tmp_path: Path, damage: str) -> None:
    """The snapshots are listed, made and dropped, those kept there too; opening one, `check` and the notes name the
    file."""
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        fill(db, 20)
        db.snapshot("a")
        db.reembed(NEW, snapshot="b")
        db.reembed(OLD, snapshot="c")
        db.snapshot("d")
        expected = told(db)
    path = tmp_path / "db" / "earlier" / "1" / "manifest.json"
    data = path.read_bytes()
    at = data.index(b'"dim"')
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:at] + (b"!" + data[at + 1 :] if damage == "flipped" else b""))

    def problems(found: list[nopokedb.Problem]) -> list[tuple[str, str, str, bool]]:
        return [(each.kind, each.severity, each.file, each.repaired) for each in found]

    one = [("manifest", "error", str(path), False)]
    assert problems(nopokedb.check(tmp_path / "db")) == problems(nopokedb.check(tmp_path / "db", repair=True)) == one
    for read_only in (True, False):
        with NoPokeDB(path=tmp_path / "db", embed=OLD, read_only=read_only) as db:
            assert [item.name for item in db.snapshots()] == ["a", "b", "c", "d"] == list(db.stats().snapshots)
            assert any(str(path) in note and "'a', 'b'" in note for note in db.stats().notes)
            with pytest.raises(CorruptionError, match="manifest") as refused:
                db.at("a")
            assert refused.value.file == str(path)
            assert told(db.at("c")) == told(db.at("d")) == expected
            assert problems(db.check()) == one
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        db.snapshot("e")
        with pytest.raises(InvalidInputError, match="exists"):
            db.snapshot("a")
        with pytest.raises(InvalidInputError, match="present model"):
            db.rollback("a")
        for name in ("d", "b", "a"):
            db.drop_snapshot(name)
        assert [item.name for item in db.snapshots()] == ["c", "e"] and db.check() == []
        assert not path.parent.exists()
    with NoPokeDB(path=tmp_path / "db", embed=OLD) as db:
        assert not db.stats().notes and told(db.at("c")) == expected
