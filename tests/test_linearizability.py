"""Histories of several threads and processes, with stops and kills: one order of the calls explains every answer.

`NOPOKEDB_HISTORY_ROUNDS` makes it longer.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from history import PRESENT, Call, calls_of, explain, read_log
from history_process import DIM, KEYS, whole_state

from nopokedb import NoPokeDB

ROUNDS = int(os.environ.get("NOPOKEDB_HISTORY_ROUNDS", "6"))
PROCESS = Path(__file__).with_name("history_process.py")
_LIMIT_S = 300.0
_VERSIONS = 10_000_000
"""Versions of one process begin at a multiple of this."""


class Process:
    """One of the processes, and what it wrote down."""

    def __init__(self, role: str, folder: Path, number: int, seed: int, planted: str = "") -> None:
        self.log = folder.parent / f"{role}-{number}.log"
        self._lines = 0
        arguments = [role, str(folder), str(self.log), f"{seed}/{number}", str(1 + number * _VERSIONS)]
        self._process = subprocess.Popen(
            [sys.executable, str(PROCESS), *arguments, *filter(None, [planted])], stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, lines: int) -> None:
        """Return when it has written so many more."""
        deadline = time.monotonic() + _LIMIT_S
        wanted = self._lines + lines
        while self._lines < wanted:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                raise AssertionError(f"it ended by itself: {self._process.stderr.read()[-2000:]}")
            assert time.monotonic() < deadline, f"it hangs: {self.log.name}"
            threading.Event().wait(0.005)
            self._lines = self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


def calls_of_all(processes: list[Process], settled: int) -> list[Call]:
    """The calls of one process after the other. What one had begun when it was killed is decided once the next one has
    opened the folder, or at the moment `settled`."""
    calls: list[Call] = []
    for process in reversed(processes):
        lines = read_log(process.log) if process.log.exists() else []
        calls += calls_of(lines, settled)
        settled = next((line["opened"] for line in lines if "opened" in line), settled)
    return calls


def last_state(folder: Path) -> Call:
    """What is in the folder after all."""
    with NoPokeDB(dim=DIM, path=folder) as db:
        began = time.monotonic_ns()
        assert db.check(deep=True) == []
        seen = whole_state(db)
        return Call(began, time.monotonic_ns(), "the last scan", seen, count=len(db))


def run(folder: Path, seed: int, rounds: int, planted: str = "") -> tuple[list[Call], list[Call]]:
    """Let a writer and a reader work, stop and kill them at random; calls of the writers and of the readers."""
    dice = random.Random(seed)
    NoPokeDB(dim=DIM, path=folder).close()
    processes = {role: [Process(role, folder, 0, seed, planted)] for role in ("writer", "reader")}
    try:
        for number in range(1, rounds + 1):
            role = dice.choice(("writer", "writer", "reader"))
            other = "reader" if role == "writer" else "writer"
            chosen = processes[role][-1]
            for process in (chosen, processes[other][-1]):
                process.wait_for(dice.randint(20, 200) if process.log.name.startswith("writer") else 5)
            chosen.stop()
            processes[other][-1].wait_for(3 if other == "reader" else 30)  # the other one works on alone
            if dice.random() < 0.6:
                chosen.kill()
                if dice.random() < 0.5:
                    processes[other][-1].kill()
                    processes[other].append(Process(other, folder, number, seed, planted))
                processes[role].append(Process(role, folder, number, seed, planted))
            else:
                chosen.go_on()
        for each in processes.values():
            each[-1].wait_for(20)
    finally:
        for each in processes.values():
            each[-1].kill()
    last = last_state(folder)
    written = calls_of_all(processes["writer"], last.began)
    followed = calls_of_all(processes["reader"], last.began)
    print(f"{len(written)} calls of {len(processes['writer'])} writers, {len(followed)} reads of "
          f"{len(processes['reader'])} followers")  # fmt: skip
    return [*written, last], followed


def test_threads_and_processes_that_are_stopped_and_killed(tmp_path: Path, seed: int) -> None:
    """Every answer follows from one order of the calls, over all processes: batches whole, own writes and all that
    returned before included; what a killed process had begun is there or not, for good. What a follower sees after a
    `refresh` lies at a moment within it. Of one moment each, followers and the writer's own readers are judged apart:
    a batch shows to the ones an instant before the others."""
    written, followed = run(tmp_path / "db", seed, ROUNDS)
    assert (problem := explain(written, KEYS)) is None, problem
    writes = [call for call in written if call.changes or not call.certain]
    assert (problem := explain([*writes, *followed], KEYS)) is None, problem
    assert len(followed) > ROUNDS


@pytest.mark.parametrize("planted", ["stale", "torn", "early"])
def test_a_planted_bug_shows_in_the_history(tmp_path: Path, seed: int, planted: str) -> None:
    """Reads of a state that is over, batches that show in part, and acknowledged batches that a kill takes away."""
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        written, followed = run(folder / "db", seed + attempt, 2, planted)
        writes = [call for call in written if call.changes or not call.certain]
        if explain(written, KEYS) or explain([*writes, *followed], KEYS):
            return
    raise AssertionError("it was not found")


# --- the checker -----------------------------------------------------------------------------------------------------

FIRST = Call(0, 10, "write", changes={0: 1, 1: 1})
SECOND = Call(5, 30, "write", changes={0: 2, 1: 2})
HISTORIES: dict[str, tuple[bool, list[Call]]] = {
    "nothing": (True, []),
    "own-write": (True, [FIRST, Call(11, 12, "read", {0: 1, 1: 1})]),
    "own-write-missed": (False, [FIRST, Call(11, 12, "read", {0: None})]),
    "either-order": (True, [FIRST, SECOND, Call(31, 32, "read", {0: 1, 1: 1})]),
    "seen-while-written": (True, [FIRST, SECOND, Call(12, 13, "read", {0: 2}), Call(14, 15, "read", {1: 2})]),
    "seen-and-gone": (False, [FIRST, SECOND, Call(12, 13, "read", {0: 2}), Call(14, 15, "read", {1: 1})]),
    "half-a-batch": (False, [FIRST, SECOND, Call(12, 40, "read", {0: 2, 1: 1})]),
    "no-order-for-two-readers": (
        False,
        [
            Call(0, 100, "write", changes={0: 1}),
            Call(0, 100, "write", changes={0: 2}),
            Call(10, 11, "read", {0: 1}),
            Call(12, 13, "read", {0: 2}),
            Call(14, 15, "read", {0: 1}),
        ],
    ),
    "never-written": (False, [FIRST, Call(11, 12, "read", {0: 7})]),
    "killed-and-there": (True, [Call(0, 50, "write", changes={0: 1}, certain=False), Call(60, 61, "read", {0: 1})]),
    "killed-and-absent": (True, [Call(0, 50, "write", changes={0: 1}, certain=False), Call(60, 61, "read", {0: None})]),
    "killed-and-seen-once": (
        False,
        [
            Call(0, 50, "write", changes={0: 1}, certain=False),
            Call(60, 61, "read", {0: 1}),
            Call(62, 63, "read", {0: None}),
        ],
    ),
    "killed-and-late": (
        False,
        [
            Call(0, 50, "write", changes={0: 1}, certain=False),
            Call(60, 61, "read", {0: None}),
            Call(62, 63, "read", {0: 1}),
        ],
    ),
    "present": (True, [FIRST, Call(11, 12, "delete", {0: PRESENT}, {0: None}), Call(13, 14, "count", count=1)]),
    "deleted-twice": (
        False,
        [FIRST, Call(11, 20, "delete", {0: PRESENT}, {0: None}), Call(12, 21, "delete", {0: PRESENT}, {0: None})],
    ),
    "miscounted": (False, [FIRST, Call(11, 12, "count", count=1)]),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_checker(name: str) -> None:
    """It accepts what some order explains, whatever the order of the list, and nothing else."""
    good, calls = HISTORIES[name]
    for seed in range(5):
        shuffled = random.Random(seed).sample(calls, len(calls))
        assert (explain(shuffled, 2) is None) == good
