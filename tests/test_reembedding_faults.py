"""A collection keeps its model or gets the other, whatever breaks: models, disks, interrupts, killed processes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import NAMES, SYNCS, WRITES, failing
from two_models import NEW, OLD, Hashed, assert_is, assert_no_second_generation, fill, told

from nopokedb import (
    ClosedError,
    InvalidInputError,
    InvalidVectorError,
    NeedsReopenError,
    NoPokeDB,
)
from nopokedb.database import engine_of
from nopokedb.embedded import reembedding
from nopokedb.embedded.storage.manifest import read_manifest


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
    tmp_path: Path, small_slices: None, wrong: Callable[[list[str]], Any], error: type[Exception]
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
def test_a_disk_that_fails(tmp_path: Path, small_slices: None, names: tuple[str, ...], code: int) -> None:
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
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from killing import die_at, kill_at_each
from two_models import OLD, Hashed
import nopokedb.embedded.engine
from nopokedb import NoPokeDB
from nopokedb.embedded import new_generation
new_generation.SLICE_RECORDS = 16


def attempt(folder, limit, acknowledge):
    db = NoPokeDB(path=folder, embed=OLD)
    model = Hashed("new", 12, [lambda: db.upsert(3, text="meanwhile") or acknowledge()])
    die_at(limit)
    db.reembed(model, snapshot="old")
    acknowledge()
    db.upsert(4, text="afterwards")
    acknowledge()


kill_at_each(Path(sys.argv[1]), range(1, 1000, 4), attempt)
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
