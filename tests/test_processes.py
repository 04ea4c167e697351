"""Several processes: a second writer, forks, spawned children."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from at_once import vector_of

from nopokedb import (
    DatabaseLockedError,
    ForkedHandleError,
    NoPokeDB,
)

DIM = 8


def test_a_second_process_is_refused_at_once(tmp_path: Path) -> None:
    """The second writer gets `DatabaseLockedError` with the pid of the first, without waiting."""
    code = "import sys; from nopokedb import NoPokeDB; db = NoPokeDB(dim=8, path=sys.argv[1]); print(1, flush=True)"
    code += "; sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    with pytest.raises(DatabaseLockedError) as caught:
        NoPokeDB(dim=DIM, path=tmp_path / "db")
    assert caught.value.pid == child.pid and str(child.pid) in str(caught.value)
    with NoPokeDB(path=tmp_path / "db", read_only=True) as reader:
        assert len(reader) == 0
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with NoPokeDB(path=tmp_path / "db") as db:
        assert len(db) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_handle_does_not_survive_a_fork(open_db: Callable[..., NoPokeDB]) -> None:
    """In a forked child every use of the parent's handle raises, and the child keeps neither its lock nor touches its
    files; the parent goes on. The child may open read-only."""
    db = open_db(dim=DIM)
    db.add(vector_of(0, 0))
    read_end, write_end = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        result = []
        uses: list[Callable[[], object]] = [
            lambda: db.query(vector_of(0, 0)),
            lambda: db.add(vector_of(1, 0)),
            lambda: db.get(0),
            lambda: len(db),
            lambda: list(db.scan()),
            db.save,
            db.stats,
        ]
        for use in uses:
            try:
                use()
                result.append("no error")
            except ForkedHandleError:
                result.append("ok")
            except BaseException as error:  # noqa: BLE001  # told to the parent
                result.append(repr(error))
        db.close()
        with NoPokeDB(path=db.path, read_only=True) as mine:
            result.append("ok" if len(mine) == 1 else "wrong")
        os.write(write_end, ",".join(result).encode())
        os.close(write_end)
        os.read(go_read, 1)  # alive while the parent reopens
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read(2000).decode() == ",".join(["ok"] * 8)
    db.add(vector_of(2, 0))
    db.close()
    with NoPokeDB(path=db.path) as again:  # the child's copy of the lock is closed
        assert len(again) == 2
    os.write(go_write, b"x")
    os.waitpid(pid, 0)
    os.close(go_read)
    os.close(go_write)


def _count_in_child(path: str, queue: multiprocessing.Queue[int]) -> None:
    with NoPokeDB(path=path, read_only=True) as db:
        queue.put(len(db))


def test_a_spawned_child_opens_read_only(open_db: Callable[..., NoPokeDB]) -> None:
    """multiprocessing with "spawn" works beside a writer."""
    db = open_db(dim=DIM)
    db.add(vector_of(0, 0))
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    child = context.Process(target=_count_in_child, args=(db.path, queue))
    child.start()
    assert queue.get(timeout=60) == 1
    child.join(60)
    queue.close()
