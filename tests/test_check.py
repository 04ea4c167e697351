"""`check`: any damage is reported with its file, nothing sound is, and a repair saves all that is sound."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from damaging import DIM, Dump, bad, content_of, file_named, vector_of
from model import dump

from nopokedb import (
    CollectionNotFoundError,
    CorruptionError,
    DatabaseLockedError,
    InvalidInputError,
    NoPokeDB,
    check,
)
from nopokedb.problems import ProblemKind


def names_in(path: Path) -> set[Path]:
    return {file for file in path.rglob("*") if file.is_file() and not file.name.endswith("-shm")}


def test_a_sound_folder_has_no_problems(folder: tuple[Path, Dump]) -> None:
    """Nothing is reported of a closed folder, only the waiting batches of a killed one; nothing is written."""
    path, content = folder
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.suffix != ".db-shm"}
    for deep in (True, False):
        assert {problem.kind for problem in check(path, deep=deep)} <= {"unapplied"}
    for file, data in before.items():
        assert file.suffix == ".db-shm" or file.name.endswith("-shm") or file.read_bytes() == data
    assert bad(check(path, repair=True)) == []
    assert not list(path.glob("quarantine-*"))
    assert content_of(path) == content
    assert check(path) == []


def files_of(path: Path) -> list[str]:
    names = ["manifest.json", "vectors-1.f32", "rows-1.bin", "labels-1.bin", "metadata-1.db", "LOCK"]
    return [*names, "live", "segment", "oplog"]


def used_bytes(path: Path, file: Path) -> int:
    """How much of a column is content; it grows ahead in sparse extents."""
    manifest = json.loads((path / "manifest.json").read_bytes())["manifest"]
    widths = {
        "vectors-1.f32": ("row_count", DIM * 4),
        "rows-1.bin": ("row_count", 16),
        "labels-1.bin": ("label_count", 8),
    }
    if file.name in widths:
        count, width = widths[file.name]
        return int(manifest[count]) * width
    return file.stat().st_size


def assert_repaired(path: Path, content: Dump, file: Path, what: str) -> None:
    """After a repair the collection opens, what it holds is right, and a second check is clean."""
    problems = check(path, repair=True)
    if file.name == "manifest.json" and any(p.kind == "manifest" and not p.repaired for p in problems):
        with pytest.raises(CorruptionError):  # cut short: nothing can be known without it
            NoPokeDB(path=path)
        return
    assert all(problem.repaired for problem in bad(problems)), (what, problems)
    assert bad(check(path)) == [], what
    with NoPokeDB(path=path) as db:
        after = dump(db)
        db.add(vector_of(1), {"new": True}, id="after the repair")
        assert db.query(vector_of(1), k=1)[0].distance < 1e-6
    live_lost = any("deleted ones may be back" in problem.message for problem in problems)
    text_lost = {p.message.split("id ")[1].split(" is")[0] for p in problems if "kept without it" in p.message}
    wanted = {row[1]: row for row in content}
    for row in after:
        if row[1] in wanted and row != wanted[row[1]]:
            assert repr(row[1]) in text_lost and row[3] is None, (what, row, wanted[row[1]])
        assert row[1] in wanted or live_lost, (what, row)
    lost = len(wanted) - len({row[1] for row in after} & set(wanted))
    reported = sum(problem.kind == "record" and problem.repaired for problem in problems)
    assert lost <= reported, (what, lost, problems)
    if lost:
        assert list(path.glob("quarantine-*/*")), what


@pytest.mark.parametrize("name", files_of(Path()))
def test_a_flipped_bit_is_reported_and_repaired(
    folder: tuple[Path, Dump], name: str, seed: int, tmp_path: Path
) -> None:
    """One bit of any file: check names the file and neither crashes nor changes anything; the repair loses at most
    what was damaged, says so, and keeps it aside."""
    original, content = folder
    rng = np.random.default_rng(seed)
    unnoticed = 0
    for attempt in range(12):
        path = tmp_path / f"copy{attempt}"
        shutil.copytree(original, path)
        file = file_named(path, name)
        at = int(rng.integers(used_bytes(path, file)))
        data = bytearray(file.read_bytes())
        data[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(data))
        what = f"{name} byte {at}"
        problems = check(path)
        named = [problem for problem in problems if problem.file.startswith(str(file)) or problem.kind == "sqlite"]
        if not named:
            unnoticed += 1
            # SQLite's pages have bytes that mean nothing, and zeros ahead of the log's end are no content.
            assert name == "metadata-1.db" or bad(problems), what
            if not bad(problems):
                assert content_of(path) == content, what
                continue
        assert_repaired(path, content, file, what)
        shutil.rmtree(path)
    assert unnoticed == 0 or name in ("metadata-1.db", "oplog")


@pytest.mark.parametrize("name", files_of(Path()))
def test_a_truncated_file_is_reported_and_repaired(
    folder: tuple[Path, Dump], name: str, seed: int, tmp_path: Path
) -> None:
    """A file cut anywhere, emptied or removed."""
    original, content = folder
    rng = np.random.default_rng(seed)
    for attempt in range(5):
        path = tmp_path / f"copy{attempt}"
        shutil.copytree(original, path)
        file = file_named(path, name)
        lost = b""
        length = [0, -1, *(int(rng.integers(used_bytes(path, file))) for _ in range(3))][attempt]
        if length < 0:
            file.unlink()
        else:
            lost = file.read_bytes()[length:]
            with file.open("r+b") as opened:
                opened.truncate(length)
        what = f"{name} cut at {length}"
        if name == "manifest.json" and length < 0:
            with pytest.raises((CollectionNotFoundError, ValueError)):
                check(path)
            continue
        before = names_in(path)
        problems = check(path)
        assert before <= names_in(path), what
        # An empty log file is what a crash right after its creation leaves; a LOCK is not needed.
        # The WAL of a killed writer may still have every page of the database, and SQLite reads what is missing of the
        # last page as zeros, which it may have been.
        harmless = name in ("LOCK", "oplog") or (path / "metadata-1.db-wal").stat().st_size
        assert bad(problems) or harmless or (length >= 0 and not any(lost)), what
        assert_repaired(path, content, file, what)
        shutil.rmtree(path)


def test_several_files_damaged_at_once(folder: tuple[Path, Dump], seed: int, tmp_path: Path) -> None:
    """Zeroed sectors in several files: never a crash, never a wrong record; what opens afterwards checks clean."""
    original, content = folder
    rng = np.random.default_rng(seed)
    wanted = {row[1]: row for row in content}
    for attempt in range(6):
        path = tmp_path / f"copy{attempt}"
        shutil.copytree(original, path)
        for name in rng.choice([n for n in files_of(path) if n != "manifest.json"], 3, replace=False):
            file = file_named(path, str(name))
            at = int(rng.integers(used_bytes(path, file)))
            data = bytearray(file.read_bytes())
            data[at : at + 64] = bytes(len(data[at : at + 64]))
            file.write_bytes(bytes(data))
        check(path)
        check(path, repair=True)
        assert bad(check(path)) == []
        for row in content_of(path):
            assert row[1] not in wanted or row[:3] == wanted[row[1]][:3] or row[1] in (5, 6)
        shutil.rmtree(path)


def test_check_beside_a_writing_handle(tmp_path: Path, rng: np.random.Generator) -> None:
    """Through a handle that goes on writing nothing sound is reported, and damage is; a check by path is refused."""
    db = NoPokeDB(dim=DIM, path=tmp_path / "db", durability="os")
    db.add_many(rng.standard_normal((50, DIM)))
    done = threading.Event()

    def write() -> None:
        n = 0
        while not done.is_set():
            n += 1
            db.upsert(n % 70, rng.standard_normal(DIM), {"n": n}, text="t")
            if n % 40 == 0:
                db.save()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with NoPokeDB(path=tmp_path / "db", read_only=True) as reader:
            for _ in range(15):
                assert db.check() == []
                assert db.check(deep=False) == []
                assert bad(reader.check()) == []
        with pytest.raises(DatabaseLockedError, match="handle"):
            check(tmp_path / "db")
        with pytest.raises(DatabaseLockedError):
            check(tmp_path / "db", repair=True)
        with pytest.raises(InvalidInputError, match=r"nopokedb\.check"):
            db.check(repair=True)
    finally:
        done.set()
        thread.join()
    row = db._engine.snapshot().live_rows.members(0, 10**6)[3]  # type: ignore[attr-defined]
    with (tmp_path / "db" / "vectors-1.f32").open("r+b") as file:
        file.seek(int(row) * DIM * 4)
        file.write(b"\1\2\3\4")
    assert {problem.kind for problem in db.check()} == {"vector"}
    db.close()


def test_absent_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    """A check never makes anything."""
    for repair in (False, True):
        with pytest.raises(CollectionNotFoundError):
            check(tmp_path / "none", repair=repair)
    assert not (tmp_path / "none").exists()


def test_kinds_are_a_closed_set() -> None:
    """The documented kinds are those of the type."""
    text = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    for kind in get_args(ProblemKind):
        assert f"`{kind}`" in text


def test_checking_imports_no_command_line() -> None:
    """The library does not need the extra."""
    code = "import nopokedb, nopokedb.embedded.repair, sys; print([m for m in ('click', 'rich') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
