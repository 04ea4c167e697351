"""Compaction on failing disks and in killed processes: the next open finds the old generation or the new one, whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_once import vector_of
from faults import NAMES, SYNCS, WRITES, failing
from generations import fill, generations
from model import dump

from nopokedb import NeedsReopenError, NoPokeDB
from nopokedb.embedded import compaction, sealing, upkeep
from nopokedb.embedded.storage.manifest import read_manifest

DIM = 8
STEPS: list[Callable[[NoPokeDB], object]] = [
    lambda db: db.compact(),
    lambda db: db.upsert(1, metadata={"step": 1}),
    lambda db: db.delete_many(range(0, 100, 3)),
    lambda db: db.add(vector_of(5, 5), {"step": 3}, id="new", text="late"),
    lambda db: db.compact(),
    lambda db: db.close(),
]

# The parent of all attempts has loaded everything and done nothing yet, so each attempt is a fork.
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from killing import die_at, kill_at_each
import nopokedb.embedded.engine
from nopokedb import NoPokeDB
from nopokedb.embedded import sealing, upkeep
from test_compaction_faults import STEPS
sealing.SEAL_ROWS = 128


def attempt(folder, limit, acknowledge):
    db = NoPokeDB(path=folder)
    die_at(limit)
    for step in STEPS:
        step(db)
        acknowledge()


kill_at_each(Path(sys.argv[1]), range(1, 400), attempt)
"""


def make(path: Path) -> tuple[Path, list[list[tuple[Any, ...]]]]:
    """A folder as its writer left it without closing, and what it holds after each step."""
    with NoPokeDB(dim=DIM, path=path / "model", indexed_fields=["kind"]) as db:
        fill(db, 240)
        shutil.copytree(path / "model", path / "db")
        states = []
        for step in STEPS[:-1]:
            states.append(dump(db))
            step(db)
        states += [dump(db)] * 2
    return path / "db", states


def assert_one_of(path: Path, states: list[list[tuple[Any, ...]]]) -> None:
    """The folder opens to one of these states, with the files of one generation, and can be compacted from there."""
    with NoPokeDB(path=path) as db:
        found = dump(db)
        assert found in states
        manifest = read_manifest(path)
        assert manifest is not None and generations(path) == {manifest.generation}
        assert not list(path.rglob("*.tmp"))
        assert db.query(vector_of(1, 0), k=1)[0].id == 1
        assert db.count({"kind": 7}) == sum('"kind": 7' in metadata for _, _, metadata, _, _ in found)
        new = db.add(vector_of(3, 3))
        assert new not in [entry[1] for entry in found]
        db.delete(new)
        assert db.compact() >= 0 and dump(db) == found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_at_every_file_operation(tmp_path: Path) -> None:
    """A process that compacts, writes and compacts again is killed at its n-th file operation, for each n: all it had
    acknowledged is there, in one generation, and nothing of the other is left after the open."""
    _, states = make(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    last, status = map(int, run.stdout.split())
    assert status == 0 and last > 60
    seen = set()
    for limit in range(1, last + 1):
        acknowledged = len((tmp_path / f"{limit}.acks").read_bytes())
        manifest = read_manifest(tmp_path / str(limit))
        assert manifest is not None
        seen.add((acknowledged, manifest.generation))
        assert_one_of(tmp_path / str(limit), states[acknowledged : acknowledged + 2])
        shutil.rmtree(tmp_path / str(limit))
    assert {(0, 1), (0, 2), (4, 2), (4, 3)} <= seen, "both sides of both switches were met"


@pytest.mark.parametrize("forever", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize(
    ("names", "code", "short"),
    [(WRITES, errno.ENOSPC, False), (WRITES, errno.EIO, True), (SYNCS, errno.EIO, False), (NAMES, errno.EIO, False)],
    ids=["disk-full", "short-write", "sync", "names"],
)
def test_every_call_may_fail(
    tmp_path: Path, names: tuple[str, ...], code: int, short: bool, forever: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call fails: up to the rename of the manifest the handle goes on in the old generation, as if there had
    been no compaction; only a failure of the log or from the rename on ends its writing. Reads go on in any case, and
    the next open finds one generation, whole."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 128)
    monkeypatch.setattr(upkeep, "MAX_WAIT_S", 600.0)
    monkeypatch.setattr(upkeep, "PAUSE_S", 600.0)  # nothing but the compaction meets the fault
    image, states = make(tmp_path)
    want = states[0]
    at, ended, went_on = 0, 0, 0
    while True:
        at += 1
        path = tmp_path / f"{at}"
        shutil.copytree(image, path)
        db = NoPokeDB(path=path)
        db.save()
        with failing(names, at, code=code, forever=forever, short=short) as fault:
            error: OSError | None = None
            try:
                db.compact()
            except OSError as problem:
                error = problem
        assert dump(db) == want
        if error is not None:
            assert fault.failed
            places = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
            doubtful = bool(places & {"rotate", "adopt_manifest"})
            try:
                db.upsert("after", vector_of(1, 1))
                assert not doubtful
                db.delete("after")
                assert db.stats().generation == 1
                went_on += 1
                if not forever:
                    assert generations(path) == {1} or names == NAMES
                assert db.compact() >= 0  # the disk is sound again
                assert db.stats().generation == 2 and dump(db) == want
            except NeedsReopenError:
                assert doubtful, places
                ended += 1
        db.close()
        assert_one_of(path, [want])
        shutil.rmtree(path)
        if not fault.failed:
            break
    assert went_on > 3 and ended >= 1


def test_a_disk_that_fills_up_in_between(small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A real full disk in the middle of the copy (that of SQLite too) drops what was copied, and writing goes on."""
    folder = small_disk(3)
    with NoPokeDB(dim=DIM, path=folder / "db") as db:
        fill(db)
        db.save()
        want = dump(db)
        with pytest.raises(OSError, match=r"expected \d+ free bytes"):
            (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - 100_000))
            db.compact()
        monkeypatch.setattr(compaction, "check_room", lambda *_: None)
        met = set()
        for left in range(0, 700_000, 6_000):
            (folder / "ballast").unlink()
            (folder / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(folder).free - left)))
            try:
                db.compact()
                break
            except OSError as error:
                met.add(str(error).partition(" ")[0])
            assert generations(folder / "db") == {1} and dump(db) == want
            assert shutil.disk_usage(folder).free >= left - 20_000, "what was copied is gone again"
        assert len(met) > 1, "our own writes and those of SQLite failed"
        (folder / "ballast").unlink()
        db.add(vector_of(1, 1), id="more")
        assert db.stats().generation == 2 and dump(db)[:-1] == want
    with NoPokeDB(path=folder / "db") as again:
        assert dump(again)[:-1] == want


def test_the_order_of_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the new generation is on the medium before the rename; the rename is, before anything old goes; and with
    the rename done nothing old is needed any more, nor anything that SQLite keeps beside its database."""
    image, states = make(tmp_path)
    events: list[tuple[str, str]] = []
    db = NoPokeDB(path=image)
    real_adopt = compaction.adopt_manifest

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if isinstance(args[0], int):
                target = str(Path(f"/proc/self/fd/{args[0]}").readlink()) if sys.platform == "linux" else "?"
            else:
                target = os.fspath(args[-1] if name in ("rename", "replace") else args[0])
            result = real(*args, **kwargs)
            events.append((name, Path(target).name))
            return result

        monkeypatch.setattr(os, name, call)

    def adopt(folder: Path) -> None:
        real_adopt(folder)
        bare = tmp_path / "bare"
        shutil.copytree(folder, bare)
        for path in (*bare.glob("*-1.*"), *bare.glob("live-1-*"), *bare.glob("metadata-2.db-*")):
            path.unlink()
        for path in sorted(bare.glob("oplog/*"))[:-1]:
            path.unlink()

    monkeypatch.setattr(compaction, "adopt_manifest", adopt)
    for name in ("pwrite", "fdatasync", "fsync", "unlink", "rename", "replace"):
        watch(name)
    db.compact()
    monkeypatch.undo()
    switch = max(at for at, event in enumerate(events) if event[1] == "manifest.json")
    if sys.platform == "linux":
        for name in ("vectors-2.f32", "rows-2.bin", "labels-2.bin", "manifest.json.tmp"):
            written = max(at for at, event in enumerate(events) if event == ("pwrite", name))
            synced = max(at for at, event in enumerate(events) if event == ("fdatasync", name))
            assert written < synced < switch, name
        assert not [event for event in events[:switch] if event[0] == "unlink" and "-1" in event[1]]
        assert not [event for event in events[:switch] if event[0] == "unlink" and event[1].endswith(".log")]
        removed = [at for at, event in enumerate(events) if event[0] == "unlink" and at > switch]
        assert removed and ("fsync", image.name) in events[switch : removed[0]]
        assert ("fsync", image.name) in events[:switch]
    db.close()
    with NoPokeDB(path=tmp_path / "bare") as bare:
        assert dump(bare) == states[0]
        assert bare.stats().generation == 2
