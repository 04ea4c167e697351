"""Repairs: what each kind of damage costs, and what is put right; killed anywhere, they can be repeated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import apsw
import google_crc32c
import numpy as np
import orjson
import pytest
from damaging import DIM, Dump, bad, content_of, file_named, vector_of
from killing import run_killed_at
from model import dump

from nopokedb import (
    CorruptionError,
    NoPokeDB,
    check,
)
from nopokedb.embedded.mending import mend_one_byte


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


def test_mending_finds_any_single_byte(rng: np.random.Generator) -> None:
    """Every changed byte is found, and nothing that no single byte explains."""
    data = rng.bytes(3000)
    crc = google_crc32c.value(data)
    for at in (0, 1, 1500, 2998, 2999):
        damaged = data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]
        assert mend_one_byte(damaged, crc) == (data, at)
    assert mend_one_byte(data[:100] + b"abcd" + data[104:], crc) is None
    assert mend_one_byte(data[:100] + bytes([data[100] ^ 1]) + data[101:], crc, lambda mended: False) is None


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
