"""Failing disks: nothing is acknowledged that is not durable, nothing acknowledged is lost, no failure is retried."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import NAMES, SYNCS, WRITES, failing

from nopokedb import CorruptionError, NeedsReopenError, NoPokeDB, NotADatabaseError, OutcomeUnknownError, check
from nopokedb.embedded.storage import metadata as metadata_module

DIM = 5


def vector_of(key: int) -> np.ndarray:
    return np.random.default_rng(key).standard_normal(DIM).astype(np.float32)


def add(db: NoPokeDB, first: int, count: int = 3) -> None:
    """One atomic batch of records that can be told by their ids."""
    keys = list(range(first, first + count))
    db.add_many(np.array([vector_of(k) for k in keys]), [{"k": k} for k in keys], ids=keys, texts=["t"] * count)


def ids_of(db: NoPokeDB) -> list[int | str]:
    for record in db.scan(include=("metadata", "vector", "text")):
        assert isinstance(record.id, int)
        assert record.metadata == {"k": record.id} and record.text == "t"
        assert np.array_equal(record.vector, vector_of(record.id))
    return [record.id for record in db.scan()]


STEPS: list[Callable[[NoPokeDB], object]] = [
    lambda db: add(db, 0),
    lambda db: add(db, 10, 1),
    lambda db: db.save(),
    lambda db: db.delete(10),
    lambda db: add(db, 20, 40),
    lambda db: db.save(),
    lambda db: add(db, 100),
]
STATES = [
    [],
    [0, 1, 2],
    [0, 1, 2, 10],
    [0, 1, 2, 10],
    [0, 1, 2],
    [0, 1, 2, *range(20, 60)],
    [0, 1, 2, *range(20, 60)],
    [0, 1, 2, *range(20, 60), 100, 101, 102],
]


@pytest.mark.parametrize("forever", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize(
    ("names", "code", "short"),
    [
        (WRITES, errno.ENOSPC, False),
        (WRITES, errno.EIO, True),
        (SYNCS, errno.EIO, False),
        (NAMES, errno.EIO, False),
    ],
    ids=["disk-full", "short-write", "sync", "names"],
)
def test_every_call_may_fail(tmp_path: Path, names: tuple[str, ...], code: int, short: bool, forever: bool) -> None:
    """Whichever call fails, once or from then on: the step that met it raises, later writes are refused, reads go on,
    and reopening finds all acknowledged steps and the failed one whole or absent."""
    at = 0
    while True:
        at += 1
        path = tmp_path / str(at)
        db = NoPokeDB(dim=DIM, path=path)
        acknowledged, extra = 0, list[int]()
        with failing(names, at, code=code, forever=forever, short=short) as fault:
            error: BaseException | None = None
            for step in STEPS:
                try:
                    step(db)
                except OSError as problem:
                    error = problem
                    break
                acknowledged += 1
            if error is not None:
                # Reads go on; the failed batch shows only if it had become durable before the failure.
                assert ids_of(db) in (STATES[acknowledged], STATES[acknowledged + 1])
                try:
                    add(db, 999)
                    # A checkpoint that failed only at removing what it made superfluous has taken effect.
                    assert names == NAMES
                    extra = [999, 1000, 1001]
                except NeedsReopenError:
                    pass
            try:
                db.close()
            except OSError:
                assert fault.failed
        assert error is None or fault.failed
        with NoPokeDB(path=path) as again:
            found = [id_ for id_ in ids_of(again) if id_ not in extra]
            assert set(extra) <= set(ids_of(again))
            allowed = [STATES[acknowledged]]
            if acknowledged < len(STEPS):
                allowed.append(STATES[acknowledged + 1])
            assert found in allowed, (at, acknowledged)
            add(again, 5000)
        shutil.rmtree(path)
        if not fault.failed:
            break
    assert at > 5


def test_a_failed_sync_is_never_retried(tmp_path: Path) -> None:
    """After one failed sync of the log the handle syncs nothing any more: a later success would be a lie."""
    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    add(db, 0)
    with failing(SYNCS, 1, forever=False) as fault:
        with pytest.raises(OutcomeUnknownError, match="whole or absent"):
            add(db, 10)
        calls = fault.calls
        for _ in range(3):
            with pytest.raises(NeedsReopenError):
                add(db, 20)
            with pytest.raises(NeedsReopenError):
                db.save()
        db.close()
        assert fault.calls == calls
    with NoPokeDB(path=tmp_path / "db") as again:
        assert ids_of(again) in ([0, 1, 2], [0, 1, 2, 10, 11, 12])


def test_waiting_writers_learn_of_a_failed_sync(tmp_path: Path) -> None:
    """Every thread whose batch shared the failed sync gets an error; none hangs, none is told that it succeeded."""
    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    outcomes: list[str] = []

    def write(first: int) -> None:
        try:
            add(db, first)
            outcomes.append("ok")
        except NeedsReopenError:
            outcomes.append("refused")

    with failing(SYNCS, 1, forever=True):
        threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert outcomes == ["refused"] * 8
    db.close()


def test_an_answer_waits_for_what_it_rests_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That an id is gone, or exists, may rest on a batch that is not durable yet: nobody is told so before it is, and
    if its sync fails nobody is told so at all."""
    from nopokedb.embedded.storage import oplog

    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    add(db, 0)
    inside, gate = threading.Event(), threading.Event()

    def failing_sync(descriptor: int) -> None:
        inside.set()
        gate.wait(30)
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(oplog, "sync", failing_sync)
    outcomes: list[object] = []

    def attempt(call: Callable[[], object]) -> None:
        try:
            outcomes.append(call())
        except NeedsReopenError:
            outcomes.append("unknown")

    calls: list[Callable[[], object]] = [lambda: db.delete(1), lambda: db.delete(1), lambda: db.delete_many([1])]
    threads = [threading.Thread(target=attempt, args=(call,)) for call in calls]
    threads[0].start()
    inside.wait(30)
    for thread in threads[1:]:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive(), f"answered before the delete was durable: {outcomes}"
    gate.set()
    for thread in threads:
        thread.join(30)
    assert outcomes == ["unknown"] * 3
    assert 1 in db
    monkeypatch.undo()
    db.close()


def test_an_interrupt_right_after_the_append_ends_the_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the log has a frame that the handle does not know of, no other frame may follow it."""
    from nopokedb.embedded import write_path

    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    add(db, 0)

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write_path, "Position", interrupted)
    with pytest.raises(OutcomeUnknownError):
        add(db, 10)
    monkeypatch.undo()
    with pytest.raises(NeedsReopenError):
        add(db, 20)
    db.close()
    with NoPokeDB(path=tmp_path / "db") as again:
        assert ids_of(again) in ([0, 1, 2], [0, 1, 2, 10, 11, 12])
        add(again, 30)


def test_a_users_own_files_are_never_taken_for_leftovers(tmp_path: Path) -> None:
    """Names that only look like ours keep a folder from being used, and stay."""
    for name in ("vectors-train.npy", "live-concert.mp4", "rows-1.bin.bak", "manifest.json.old", "notes.tmp"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(NotADatabaseError, match="expected an empty folder"):
            NoPokeDB(dim=DIM, path=folder)
        assert [path.name for path in folder.iterdir()] == [name]
    with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
        add(db, 0)
    mine = [tmp_path / "db" / "notes.tmp", tmp_path / "db" / "live-concert.mp4", tmp_path / "db" / "index" / "own.txt"]
    for path in mine:
        path.write_text("mine")
    with NoPokeDB(path=tmp_path / "db"):
        pass
    assert all(path.read_text() == "mine" for path in mine)


def test_a_full_disk(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    """A real full disk: the batch is not acknowledged, the handle reads on but writes no more, and once there is room
    everything acknowledged is found."""
    disk = small_disk(2)
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    db = NoPokeDB(dim=DIM, path=disk / "db")
    acknowledged = 0
    with pytest.raises(OSError, match=r"No space left|could not use|full"):
        for first in range(0, 100_000, 500):
            add(db, first, 500)
            acknowledged = first + 500
    assert acknowledged > 1000
    assert len(db) == acknowledged and db.query(vector_of(7), k=1)[0].id == 7
    with pytest.raises(NeedsReopenError):
        db.delete(0)
    db.close()
    ballast.unlink()
    shutil.copytree(disk / "db", tmp_path / "roomy")
    with NoPokeDB(path=tmp_path / "roomy") as again:
        assert ids_of(again)[:acknowledged] == list(range(acknowledged))
        assert len(again) in (acknowledged, acknowledged + 500)
        assert again.delete(0)


def test_a_file_size_limit(tmp_path: Path) -> None:
    """The same through a limit of the process on file sizes, which meets SQLite's and our own writes alike."""
    if sys.platform == "win32":
        pytest.skip("this system has no such limit")
    code = """
import json, resource, signal, sys
import numpy as np
from nopokedb import NoPokeDB, NeedsReopenError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
db = NoPokeDB(dim=5, path=sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
done, error = 0, ""
try:
    for first in range(0, 100_000, 200):
        keys = list(range(first, first + 200))
        vectors = np.array([np.random.default_rng(k).standard_normal(5).astype(np.float32) for k in keys])
        db.add_many(vectors, [{"k": k} for k in keys], ids=keys, texts=["t"] * 200)
        done = first + 200
except OSError as problem:
    error = type(problem).__name__
try:
    db.add([1, 1, 1, 1, 1])
    error = "accepted"
except NeedsReopenError:
    pass
db.close()
print(json.dumps([done, error]))
"""
    for limit in (150_000, 300_000, 1_000_000):
        path = tmp_path / str(limit)
        run = subprocess.run(
            [sys.executable, "-c", code, str(path), str(limit)], capture_output=True, text=True, check=True
        )
        done, error = json.loads(run.stdout.splitlines()[-1])
        assert error in ("NeedsReopenError", "OutcomeUnknownError")
        with NoPokeDB(path=path) as again:
            assert len(again) in (done, done + 200)
            assert ids_of(again) == list(range(len(again)))


def test_a_checkpoint_while_a_reader_holds_an_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite then copies nothing and syncs nothing, and says so only in its result: the checkpoint syncs the WAL
    itself before it drops the log. A power cut after it keeps everything."""
    import apsw

    db = NoPokeDB(dim=DIM, path=tmp_path / "db")
    add(db, 0)
    holder = apsw.Connection(str(tmp_path / "db" / "metadata-1.db"))
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM records").fetchall()  # pins the state of now
    add(db, 10)
    synced: list[str] = []
    real = metadata_module.sync

    def spy(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()) if sys.platform == "linux" else "-wal")
        real(descriptor)

    monkeypatch.setattr(metadata_module, "sync", spy)
    db.save()
    assert [name[-4:] for name in synced] == ["-wal"]
    assert db.stats().checkpoint_lsn == db.stats().lsn
    shutil.copytree(tmp_path / "db", tmp_path / "image")
    holder.execute("ROLLBACK")
    holder.close()
    db.close()
    (tmp_path / "image" / "metadata-1.db-shm").unlink()  # not kept by a power cut
    with NoPokeDB(path=tmp_path / "image") as again:
        assert ids_of(again) == [0, 1, 2, 10, 11, 12]


FILES = ("vectors-1.f32", "rows-1.bin", "labels-1.bin", "metadata-1.db", "manifest.json", "oplog", "live", "LOCK")


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_never_give_a_wrong_answer(tmp_path: Path, name: str, seed: int) -> None:
    """A byte of any file is changed between two opens: what is answered is right, or an error names the file."""
    rng = np.random.default_rng(seed)
    with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
        add(db, 0, 60)
        db.delete(7)
    want = [k for k in range(60) if k != 7]
    folder = tmp_path / "db"
    file = next(p for p in sorted(folder.rglob(f"{name}*" if name != "oplog" else "*.log")) if p.is_file())
    data = file.read_bytes()
    used = {"vectors-1.f32": 60 * DIM * 4, "rows-1.bin": 60 * 16, "labels-1.bin": 60 * 8}
    noticed = 0
    for _ in range(60):
        image = bytearray(data)
        # A manifest built again may be a byte shorter: times and sizes stand in it.
        image[int(rng.integers(used.get(name, len(data))))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(image))
        try:
            with NoPokeDB(path=tmp_path / "db") as db:
                hits = [db.query(vector_of(k), k=1)[0] for k in (3, 31, 59)]
                assert all(hit.metadata == {"k": hit.id} for hit in hits)
                # A damaged vector may be missed as a neighbour; it is never returned.
                assert name == "vectors-1.f32" or [hit.id for hit in hits] == [3, 31, 59]
                found = ids_of(db)
                # A damaged index of SQLite's may hide a record from what goes by id; `check` finds that.
                assert found == want or (name == "metadata-1.db" and set(found) < set(want))
            if found != want:
                assert "id_index" in {problem.kind for problem in check(folder)}
                noticed += 1
        except (CorruptionError, OSError):
            noticed += 1
        shutil.rmtree(tmp_path / "db")
        with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
            add(db, 0, 60)
            db.delete(7)
        data = file.read_bytes() if file.exists() else data
    # What carries no checksum: padding of the log's header is covered, LOCK is rewritten, SQLite has unused bytes.
    assert noticed > 50 or name in ("LOCK", "metadata-1.db", "oplog")
