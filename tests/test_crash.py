"""Killed writers: everything acknowledged is there, every batch is whole or absent.

The whole file runs the killed process for real; the time of the kill is random and its seed is printed.
`NOPOKEDB_CRASH_ROUNDS` makes it longer.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from crash_writer import DIM, vector_of
from killing import run_killed_at

from nopokedb import NoPokeDB
from nopokedb.embedded.storage import oplog

ROUNDS = int(os.environ.get("NOPOKEDB_CRASH_ROUNDS", "50"))
WRITER = Path(__file__).with_name("crash_writer.py")


def run_and_kill(path: Path, seed: int, threads: int, lines: int) -> list[str]:
    """Start a writer, kill it after it printed `lines` lines, return what it printed."""
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(seed), str(threads)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    seen = []
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    for line in child.stdout:
        seen.append(line.strip())
        if len(seen) == lines:
            child.send_signal(signal.SIGKILL)
    watchdog.cancel()
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL, "the writer failed by itself"
    assert len(seen) >= lines
    return [line for line in seen if line.count(" ") >= 2]


OPEN = """
from nopokedb import NoPokeDB
NoPokeDB(dim=int(sys.argv[2]) or None, path=sys.argv[1]).close()
"""


Batch = tuple[str, dict[int, int]]


def check(db: NoPokeDB, lines: list[str], before: dict[int, int], threads: int) -> dict[int, int]:
    """The state is that of all acknowledged batches plus, per thread, at most the one that was running, whole."""
    begun: dict[tuple[str, str], Batch] = {}
    state = dict(before)
    open_batches: dict[str, Batch] = {}

    def apply(target: dict[int, int], batch: Batch) -> None:
        for key, version in batch[1].items():
            if batch[0] == "del":
                target.pop(key, None)
            else:
                target[key] = version

    for line in lines:
        words = line.split(" ")
        if words[0] == "begin" and len(words) == 5:
            pairs = [pair.partition(":") for pair in words[4].split(",")]
            begun[words[1], words[2]] = open_batches[words[2]] = (words[3], {int(k): int(v or 0) for k, _, v in pairs})
        elif words[0] == "ack":
            apply(state, begun[words[1], words[2]])
            open_batches.pop(words[2], None)
    found: dict[int, int] = {}
    for record in db.scan(include=("metadata", "vector", "text")):
        assert record.metadata is not None and record.vector is not None and isinstance(record.id, int)
        version = record.metadata["v"]
        found[record.id] = version
        assert record.metadata == {"k": record.id, "v": version}
        assert record.text == f"{record.id}/{version}"
        assert record.vector.tobytes() == vector_of(record.id, version // 100).tobytes()
    # Threads write disjoint ids, so each thread's open batch is judged by itself.
    for number in range(threads):

        def mine(records: dict[int, int], number: int = number) -> dict[int, int]:
            return {k: v for k, v in records.items() if k // 1_000_000 == number + 1}

        absent = mine(state)
        whole = dict(absent)
        if str(number) in open_batches:
            apply(whole, open_batches[str(number)])
        assert mine(found) in (absent, whole), f"thread {number}: neither absent nor whole"
    return found


def test_kill_at_any_moment_loses_nothing(tmp_path: Path, seed: int) -> None:
    """kill -9 of a writing process, 50 times in a row on one folder, each followed by recovery and a full check."""
    random.seed(seed)
    state: dict[int, int] = {}
    recovered, generations = 0, set[int]()
    for round_ in range(ROUNDS):
        threads = random.choice([1, 1, 2])
        lines = run_and_kill(tmp_path / "db", seed + round_, threads, random.randint(1, 240))
        with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
            state = check(db, lines, state, threads)
            recovered += db.stats().lsn
            generations.add(db.stats().generation)
            if state:
                key, version = random.choice(list(state.items()))
                hit = db.query(vector_of(key, version // 100), k=1)[0]
                assert hit.id == key and hit.distance <= 1e-12
            # The next round writes other ids and may not change these.
            db.delete_many(list(state))
            state = {}
    assert recovered and len(generations) > ROUNDS // 5, "compactions take place all the time"


def test_recovery_may_be_killed_too(tmp_path: Path, seed: int) -> None:
    """A recovery that is killed at any of its file operations leaves a folder that the next one recovers fully."""
    lines = run_and_kill(tmp_path / "db", seed, 2, 150)
    for limit in range(1, 400):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "db", tmp_path / "copy")
        finished = run_killed_at(limit, OPEN, tmp_path / "copy", 0) is not None
        with NoPokeDB(path=tmp_path / "copy") as db:
            check(db, lines, {}, 2)
        if finished:
            break
    assert finished and limit > 10


def image_of_running(tmp_path: Path) -> tuple[Path, NoPokeDB]:
    """A copy of a folder as a kill would leave it: three batches that only the log holds for sure."""
    db = NoPokeDB(dim=DIM, path=tmp_path / "db", durability="os")
    for n in range(3):
        db.add_many(np.array([vector_of(10 * n + i, 0) for i in range(4)]), ids=[10 * n + i for i in range(4)])
    db.delete(0)
    target = tmp_path / "image"
    shutil.copytree(tmp_path / "db", target)
    return target, db


def test_the_log_cut_at_every_byte_keeps_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last sync missing, the log may end anywhere: opening yields whole batches, never part of one. The
    stores hold all batches, which the log does not know then: they are not believed."""
    monkeypatch.setattr(oplog, "_AHEAD_BYTES", 0)
    image, db = image_of_running(tmp_path)
    db.close()
    log = max((image / "oplog").iterdir())
    data = log.read_bytes()
    steps = {frozenset(): 0}
    ids: set[int] = set()
    for n in range(3):
        ids |= {10 * n + i for i in range(4)}
        steps[frozenset(ids)] = n + 1
    steps[frozenset(ids - {0})] = 4
    reached = set()
    for size in range(56, len(data) + 1):
        copy = tmp_path / "copy"
        shutil.copytree(image, copy)
        (copy / "oplog" / log.name).write_bytes(data[:size])
        with NoPokeDB(path=copy) as again:
            found = frozenset(record.id for record in again.scan())
            reached.add(steps[found])
            new = again.add(vector_of(99, 0))
            assert new not in found and again.get(new) == {}
            lsn = again.stats().lsn
        with NoPokeDB(path=copy) as again:
            assert frozenset(r.id for r in again.scan()) == found | {new}
            assert again.stats().lsn == lsn
        shutil.rmtree(copy)
    assert reached == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("lost", [[1], [0], [0, 2], [2], [1, 2], [0, 1, 2]])
def test_frames_lost_out_of_order_in_an_unsynced_tail(
    tmp_path: Path, lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With durability="os" several frames wait for the disk, which may write them in any order: after a power cut the
    batches before the first missing one are there, none behind it."""
    monkeypatch.setattr(oplog, "_AHEAD_BYTES", 0)
    db = NoPokeDB(dim=DIM, path=tmp_path / "db", durability="os")
    ends = []
    log = max((tmp_path / "db" / "oplog").iterdir())
    for n in range(3):
        db.add_many(np.array([vector_of(10 * n + i, 0) for i in range(4)]), ids=[10 * n + i for i in range(4)])
        ends.append(log.stat().st_size)
    image = tmp_path / "image"
    shutil.copytree(tmp_path / "db", image)
    db.close()
    data = bytearray(log_bytes := (image / "oplog" / log.name).read_bytes())
    for n in lost:
        start = 56 if n == 0 else ends[n - 1]
        data[start : ends[n]] = bytes(ends[n] - start)
    assert bytes(data) != log_bytes
    (image / "oplog" / log.name).write_bytes(bytes(data))
    with NoPokeDB(path=image) as again:
        kept = min(lost)
        assert [r.id for r in again.scan()] == [10 * n + i for n in range(kept) for i in range(4)]
        # Zeros at the very end cannot be told from room written ahead; the metadata tell that batches are missing.
        assert (lost[-1] == 2 and lost == list(range(lost[0], 3))) or any("dropped" in n for n in again.stats().notes)
        assert any("durability='os'" in note for note in again.stats().notes)
        # Labels and ids of the lost batches are not used again, and the folder goes on as any other.
        assert again.add(vector_of(7, 7)) is not None
        again.upsert(0 if kept else 77, vector_of(5, 5), {"new": 1})
    with NoPokeDB(path=image) as again:
        assert again.get(0 if kept else 77) == {"new": 1}
        assert len(again) == 4 * kept + (1 if kept else 2)


def test_an_unfinished_creation_is_finished(tmp_path: Path) -> None:
    """A creation killed at any file operation leaves a folder that the next open creates; no data can be in it."""
    for limit in range(1, 200):
        path = tmp_path / str(limit)
        finished = run_killed_at(limit, OPEN, path, 3) is not None
        with NoPokeDB(dim=3, path=path) as db:
            db.add([1, 2, 3])
        with NoPokeDB(path=path) as db:
            assert len(db) == 1
        if finished:
            break
    assert finished and limit > 10
