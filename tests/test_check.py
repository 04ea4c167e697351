"""`check`: any damage is reported with its file, nothing sound is, and a repair saves all that is sound."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, get_args

import apsw
import google_crc32c
import numpy as np
import orjson
import pytest
from killing import run_killed_at
from model import dump

from nopokedb import (
    CollectionNotFoundError,
    CorruptionError,
    DatabaseLockedError,
    InvalidInputError,
    NoPokeDB,
    Problem,
    check,
)
from nopokedb.embedded import sealing, upkeep
from nopokedb.embedded.mending import mend_one_byte
from nopokedb.problems import ProblemKind

DIM = 8
COUNT = 90
Dump = list[tuple[Any, ...]]


def vector_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal(DIM).astype(np.float32)


def fill(path: Path) -> Dump:
    """A small collection of everything: an index, retired labels, texts, str ids, deletes. Its content."""
    with NoPokeDB(dim=DIM, path=path) as db:
        db.add_many(
            [vector_of(n) for n in range(COUNT)],
            [{"n": n, "word": "x" * (n % 7)} for n in range(COUNT)],
            texts=[f"text {n}" if n % 2 else None for n in range(COUNT)],
        )
        deadline = time.monotonic() + 30
        while db.stats().sealing and time.monotonic() < deadline:
            time.sleep(0.01)
        assert db.stats().segments
        db.save()
        db.add(vector_of(1000), {"s": 1}, id="one")
        db.upsert(5, metadata={"n": 5, "changed": True})
        db.upsert(6, vector_of(1006))
        db.delete_many([7, 8])
        return dump(db)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Dump]]:
    """The collection closed cleanly, and as a killed writer leaves it: with batches that only the log has."""
    base = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "SEAL_ROWS", 64)
        patch.setattr(upkeep, "PAUSE_S", 0.0)
        content = fill(base / "closed")
        shutil.copytree(base / "closed", base / "work")
        db = NoPokeDB(path=base / "work")
        db.add_many([vector_of(2000 + n) for n in range(4)], [{"late": n} for n in range(4)], texts=["late"] * 4)
        db.delete(9)
        late = dump(db)
        shutil.copytree(base / "work", base / "killed")
        db.close()
    return {"closed": (base / "closed", content), "killed": (base / "killed", late)}


@pytest.fixture(params=["closed", "killed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, folders: dict[str, tuple[Path, Dump]]) -> tuple[Path, Dump]:
    source, content = folders[request.param]
    shutil.copytree(source, tmp_path / "db")
    return tmp_path / "db", content


def bad(problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity != "note"]


def names_in(path: Path) -> set[Path]:
    return {file for file in path.rglob("*") if file.is_file() and not file.name.endswith("-shm")}


def content_of(path: Path) -> Dump:
    with NoPokeDB(path=path) as db:
        return dump(db)


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


def file_named(path: Path, name: str) -> Path:
    pattern = {"live": "live-*.bits", "segment": "index/*.npk", "oplog": "oplog/*.log"}.get(name, name)
    return sorted(path.glob(pattern))[-1]


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


def test_a_changed_byte_of_a_vector_is_put_right(folder: tuple[Path, Dump]) -> None:
    """Its checksum and its norm together say which byte it was, so nothing is lost."""
    path, content = folder
    file = path / "vectors-1.f32"
    data = bytearray(file.read_bytes())
    data[20 * DIM * 4 + 7] ^= 0x10
    file.write_bytes(bytes(data))
    (problem,) = bad(check(path))
    assert (problem.kind, problem.file, problem.offset) == ("vector", str(file), 20 * DIM * 4)
    (mended,) = bad(check(path, repair=True))
    assert mended.repaired
    assert content_of(path) == content


def test_a_destroyed_vector_retires_its_record(folder: tuple[Path, Dump]) -> None:
    """What nothing can restore leaves the collection, and its bytes and metadata are kept in the quarantine."""
    path, content = folder
    file = path / "vectors-1.f32"
    data = bytearray(file.read_bytes())
    data[20 * DIM * 4 : 21 * DIM * 4] = b"\7" * DIM * 4
    file.write_bytes(bytes(data))
    problems = check(path, repair=True)
    assert [problem.kind for problem in bad(problems)] == ["vector", "record"] and all(
        p.repaired for p in bad(problems)
    )
    assert content_of(path) == [row for row in content if row[1] != 20]
    raw = np.load(path / "quarantine-1" / "vectors.npy")
    assert raw.tobytes() == b"\7" * DIM * 4
    (line,) = (path / "quarantine-1" / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == 20 and json.loads(json.loads(line)["metadata"])["n"] == 20


def change(path: Path, sql: str, *values: Any) -> None:
    connection = apsw.Connection(str(path / "metadata-1.db"))
    connection.execute(sql, values)
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


@pytest.mark.parametrize("label", [30, 5])
def test_changed_metadata_are_found_also_of_retired_versions(folder: tuple[Path, Dump], label: int) -> None:
    """Of a live record and of a version that was replaced (which `scan` would trip over)."""
    path, content = folder
    change(path, "UPDATE records SET metadata=jsonb('{\"n\":-1}') WHERE label=?", label)
    (problem,) = bad(check(path))
    assert problem.kind == "record" and f"label {label} " in problem.message
    assert all(problem.repaired for problem in bad(check(path, repair=True)))
    assert content_of(path) == [row for row in content if row[1] != 30 or label != 30]
    assert bad(check(path)) == []


def test_a_changed_text_costs_the_text_only(folder: tuple[Path, Dump]) -> None:
    """The record stays, without it."""
    path, content = folder
    change(path, "UPDATE texts SET text='another' WHERE label=31")
    (problem,) = bad(check(path))
    assert problem.kind == "text"
    problems = check(path, repair=True)
    assert all(problem.repaired for problem in bad(problems))
    assert content_of(path) == [(*row[:3], None, row[4]) if row[1] == 31 else row for row in content]


def test_a_record_that_the_index_on_ids_hides_is_found(folder: tuple[Path, Dump]) -> None:
    """The index is rebuilt from the records; until then a lookup by id would miss one and `add` would double it."""
    path, content = folder
    connection = apsw.Connection(str(path / "metadata-1.db"))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql='CREATE INDEX records_id ON records(id) WHERE label!=30' "
                       "WHERE name='records_id'")  # fmt: skip
    connection.close()
    connection = apsw.Connection(str(path / "metadata-1.db"))
    connection.execute("REINDEX")
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql='CREATE INDEX records_id ON records(id)' WHERE name='records_id'")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    found = bad(check(path))
    assert found and {problem.kind for problem in found} == {"id_index"}
    assert all(problem.repaired for problem in bad(check(path, repair=True)))
    assert content_of(path) == content
    with NoPokeDB(path=path) as db:
        assert db.get(30) is not None


def test_two_live_versions_of_one_id_are_found(folder: tuple[Path, Dump]) -> None:
    """A live set with a matching checksum that is wrong all the same: the newest version counts."""
    path, content = folder
    live = file_named(path, "live")
    data = bytearray(live.read_bytes())
    data[0] |= 1 << 5  # label 5 was replaced by a later version of id 5
    live.write_bytes(bytes(data))
    outer = json.loads((path / "manifest.json").read_bytes())
    outer["manifest"]["live_crc32c"] = google_crc32c.value(bytes(data))
    body = orjson.loads(orjson.dumps(outer["manifest"]))
    (path / "manifest.json").write_bytes(
        orjson.dumps({"crc32c": google_crc32c.value(orjson.dumps(body)), "manifest": body})
    )
    assert "live_set" in {problem.kind for problem in bad(check(path))}
    assert all(problem.repaired for problem in bad(check(path, repair=True)))
    assert content_of(path) == content


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


def test_a_damaged_log_keeps_what_was_applied(tmp_path: Path) -> None:
    """A durable batch whose frame is destroyed, while the stores have it: the repair keeps the records."""
    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    for n in range(6):
        db.add(vector_of(n), {"n": n}, text="t")
    content = dump(db)
    shutil.copytree(tmp_path / "db", tmp_path / "image")
    db.close()
    log = file_named(tmp_path / "image", "oplog")
    data = bytearray(log.read_bytes())
    data[56 + 100] ^= 1  # inside the first frame, which later ones call durable
    log.write_bytes(bytes(data))
    with pytest.raises(CorruptionError):
        NoPokeDB(path=tmp_path / "image")
    assert next(problem.kind for problem in bad(check(tmp_path / "image"))) == "log"
    assert all(problem.repaired for problem in bad(check(tmp_path / "image", repair=True)))
    assert content_of(tmp_path / "image") == content
    assert list((tmp_path / "image").glob("quarantine-1/oplog/*.log"))


def test_a_new_generation_carries_no_wrong_vector_over(folder: tuple[Path, Dump]) -> None:
    """A folder that cannot be opened and has a destroyed vector too: that record is lost, and said to be; settings
    and the identity stay, and so does every other record."""
    path, content = folder
    change(path, "DELETE FROM records WHERE label=11")
    (path / "labels-1.bin").write_bytes(b"")
    with (path / "vectors-1.f32").open("r+b") as file:
        file.seek(20 * DIM * 4)
        file.write(b"\7" * DIM * 4)
    before = json.loads((path / "manifest.json").read_bytes())["manifest"]
    problems = check(path, repair=True)
    assert all(problem.repaired for problem in bad(problems))
    assert content_of(path) == [row for row in content if row[1] not in (11, 20)]
    after = json.loads((path / "manifest.json").read_bytes())["manifest"]
    assert after["generation"] == 2 and after["checkpoint_lsn"] > before["checkpoint_lsn"]
    assert [after[name] for name in ("settings", "identity")] == [before[name] for name in ("settings", "identity")]
    highest = max(row[1] for row in content if isinstance(row[1], int))
    assert after["next_auto_id"] == highest + 1 > before["checkpoint_lsn"]
    assert np.load(path / "quarantine-1" / "vectors.npy").tobytes() == b"\7" * DIM * 4
    assert {"labels-1.bin", "vectors-1.f32", "metadata-1.db"} <= {
        file.name for file in (path / "quarantine-1").iterdir()
    }


def test_lost_metadata_come_back_from_the_log(tmp_path: Path) -> None:
    """SQLite is gone and every batch is still in the log: nothing is lost."""
    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    for n in range(6):
        db.upsert(n % 4, vector_of(n), {"n": n}, text="t")
    db.delete(1)
    content = dump(db)
    shutil.copytree(tmp_path / "db", tmp_path / "image")
    db.close()
    for file in (tmp_path / "image").glob("metadata-1.db*"):
        file.unlink()
    (tmp_path / "image" / "vectors-1.f32").write_bytes(b"")
    assert {"missing"} <= {problem.kind for problem in bad(check(tmp_path / "image"))}
    assert all(problem.repaired for problem in bad(check(tmp_path / "image", repair=True)))
    assert content_of(tmp_path / "image") == content


def test_absent_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    """A check never makes anything."""
    for repair in (False, True):
        with pytest.raises(CollectionNotFoundError):
            check(tmp_path / "none", repair=repair)
    assert not (tmp_path / "none").exists()


def test_mending_finds_any_single_byte(rng: np.random.Generator) -> None:
    """Every changed byte is found, and nothing that no single byte explains."""
    data = rng.bytes(3000)
    crc = google_crc32c.value(data)
    for at in (0, 1, 1500, 2998, 2999):
        damaged = data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]
        assert mend_one_byte(damaged, crc) == (data, at)
    assert mend_one_byte(data[:100] + b"abcd" + data[104:], crc) is None
    assert mend_one_byte(data[:100] + bytes([data[100] ^ 1]) + data[101:], crc, lambda mended: False) is None


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


def test_a_wrong_index_on_a_field_is_found_and_rebuilt(tmp_path: Path) -> None:
    """An entry that was lost from an index on a field hides a record from filters: check sees it, repair mends it."""
    with NoPokeDB(dim=2, path=tmp_path / "db", indexed_fields=("year", "tags")) as db:
        db.add_many(np.ones((50, 2)), [{"year": 2000 + i % 5, "tags": ["a", i]} for i in range(50)])
    assert not check(tmp_path / "db")
    connection = apsw.Connection(str(tmp_path / "db" / "metadata-1.db"))
    connection.execute("DELETE FROM field_values WHERE field = 1 AND label = 7")
    connection.close()
    found = check(tmp_path / "db")
    assert [problem.kind for problem in found] == ["field_index"] and "'year'" in found[0].message
    assert all(problem.repaired for problem in check(tmp_path / "db", repair=True))
    assert not check(tmp_path / "db")
    with NoPokeDB(path=tmp_path / "db") as db:
        assert db.count({"year": 2002}) == 10 and db.stats().indexed_fields == ("year", "tags")


TASK = """
import nopokedb, nopokedb.embedded.repair, nopokedb.embedded.restore
task, path, file = sys.argv[1:]
if task == "restore":
    nopokedb.restore(file, path)
else:
    nopokedb.check(path, repair=True)
"""


@pytest.mark.parametrize("task", ["retire", "salvage", "restore"])
def test_a_repair_or_restore_killed_anywhere_can_be_repeated(tmp_path: Path, task: str, seed: int) -> None:
    """A killed repair leaves the old state or the new one, and the next repair ends as an undisturbed one; a killed
    restore leaves no collection or the whole one."""
    source = tmp_path / "source"
    with NoPokeDB(dim=DIM, path=source) as db:
        db.add_many([vector_of(n) for n in range(30)], [{"n": n} for n in range(30)], texts=["t"] * 30)
        db.save()
        db.delete(3)
        db.backup(tmp_path / "file")
        content = dump(db)
    if task == "retire":
        with (source / "vectors-1.f32").open("r+b") as file:
            file.seek(20 * DIM * 4)
            file.write(b"\7" * DIM * 4)
        content = [row for row in content if row[1] != 20]
    if task == "salvage":
        (source / "labels-1.bin").write_bytes(b"")
        change(source, "DELETE FROM records WHERE label=11")
        content = [row for row in content if row[1] != 11]

    def prepared(name: str) -> Path:
        if task != "restore":
            shutil.copytree(source, tmp_path / name)
        return tmp_path / name

    whole = run_killed_at(0, TASK, task, prepared("whole"), tmp_path / "file")
    assert whole is not None and whole > 20
    for limit in np.random.default_rng(seed).integers(1, whole, 6).tolist():
        path = prepared(f"killed{limit}") if not (tmp_path / f"killed{limit}").exists() else None
        if path is None:
            continue
        assert run_killed_at(limit, TASK, task, path, tmp_path / "file") is None
        if task == "restore" and not path.exists():
            continue
        check(path, repair=True)
        assert bad(check(path)) == [], limit
        assert content_of(path) == content, limit
