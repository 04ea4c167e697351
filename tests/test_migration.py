"""Folders of an older format. There is one format so far: what comes after it is a format that only tests know."""

from __future__ import annotations

import errno
import logging
import tarfile
from pathlib import Path
from typing import Any

import pytest
from faults import NAMES, SYNCS, WRITES, failing
from model import dump
from next_format import NEXT, PRESENT, format_is

from nopokedb import (
    DatabaseLockedError,
    NeedsRecoveryError,
    NewerFormatError,
    NoPokeDB,
    NotADatabaseError,
    check,
    list_collections,
)
from nopokedb.embedded import migration
from nopokedb.embedded.storage import manifest as manifests

ARCHIVE = Path(__file__).parent / "data" / "format-1.tar.gz"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A folder of the present format, as a killed writer left it."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "collection"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_older_folder_is_brought_to_the_present_format(older: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opening it for writing is enough: all records are there, batches that only the log had included; what the folder
    was is kept, says the log, and the older version opens that and refuses the folder."""
    before = files_of(older)
    with format_is(NEXT), caplog.at_level(logging.WARNING, "nopokedb"):
        with NoPokeDB(path=older) as db:
            records = dump(db)
            db.add([1.0] * 16, {"new": True})
        assert f"from format {PRESENT} to {NEXT}" in caplog.text and "before-format-2" in caplog.text
        with NoPokeDB(path=older, read_only=True) as db:
            assert len(dump(db)) == len(records) + 1
        assert check(older) == []
    assert len(records) == 1203
    kept = older / f"before-format-{NEXT}"
    assert files_of(kept) == {name: data for name, data in before.items() if name != "LOCK" and "-shm" not in name}
    with NoPokeDB(path=kept) as db:
        assert dump(db) == records
    with pytest.raises(NewerFormatError, match=rf"format {PRESENT} or older, got format {NEXT}"):
        NoPokeDB(path=older)


def test_what_only_reads_leaves_an_older_folder_alone(older: Path) -> None:
    """A read-only open, a check and a repair name both versions and the remedy; the folder is listed all the same."""
    before = files_of(older)
    with format_is(NEXT):
        looks = (lambda: NoPokeDB(path=older, read_only=True), lambda: check(older), lambda: check(older, repair=True))
        for look in looks:
            with pytest.raises(NeedsRecoveryError, match=rf"format {NEXT}, got format {PRESENT}.*open it for writing"):
                look()
        assert list_collections(older.parent) == ["collection"]
    assert {name: data for name, data in files_of(older).items() if name != "LOCK"} == {
        name: data for name, data in before.items() if name != "LOCK"
    }


def test_without_a_way_nothing_is_changed(older: Path) -> None:
    """A step is missing: both versions are named, and the folder opens as before."""
    before = files_of(older)
    with format_is(NEXT + 1), pytest.raises(NotADatabaseError, match=rf"format {NEXT + 1}, got format {PRESENT}"):
        NoPokeDB(path=older)
    assert {**files_of(older), "LOCK": b""} == {**before, "LOCK": b""}
    with NoPokeDB(path=older) as db:
        assert len(db) == 1203


def test_steps_follow_each_other(older: Path) -> None:
    """From two versions ago: each step gets what the one before it made, and only the last manifest is written."""
    seen: list[Any] = []

    def second(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
        seen.append(fields["live_file"])
        assert (folder / fields["live_file"]).exists()
        version, _ = manifests.read_fields(folder, (folder / manifests.NAME).read_bytes())
        assert version == PRESENT
        return fields

    with format_is(NEXT + 1):
        migration.STEPS[NEXT] = second
        with NoPokeDB(path=older) as db:
            assert len(db) == 1203
    assert len(seen) == 1 and (older / f"before-format-{NEXT + 1}").is_dir()


def test_a_writer_of_the_older_version_is_not_disturbed(older: Path) -> None:
    """The lock comes before the first look that matters."""
    db = NoPokeDB(path=older)
    db.add([1.0] * 16)
    with format_is(NEXT), pytest.raises(DatabaseLockedError):
        NoPokeDB(path=older)
    db.add([1.0] * 16)
    db.close()
    assert not list(older.glob("before-format-*"))


@pytest.mark.parametrize("names", [WRITES, SYNCS, NAMES], ids=["writes", "syncs", "names"])
def test_whatever_fails_the_next_open_goes_on(older: Path, names: tuple[str, ...], seed: int) -> None:
    """Any file operation of a migration may fail: then it is an older folder still, or one of the new format, whole.
    Every third operation is tried here; the power cuts take all."""
    with NoPokeDB(path=older) as db:
        records = dump(db)
    at = seed % 3 - 2
    while True:
        at += 3
        copy = older.with_name(f"copy-{at}")
        _copy(older, copy)
        with format_is(NEXT):
            with failing(names, at, code=errno.EIO, forever=False) as fault:
                try:
                    migration.migrate(copy)
                except OSError:
                    assert fault.failed
            with NoPokeDB(path=copy) as db:
                assert dump(db) == records
        if not fault.failed:
            break


def _copy(source: Path, target: Path) -> None:
    for name, data in files_of(source).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
