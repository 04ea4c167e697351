"""kill -9 and errors at chosen system calls, SQLite's own included: strace kills the writer when it makes its n-th
call, or has that call fail.

`NOPOKEDB_SYSCALL_KILLS=1000` kills at each of the first 1,000 calls in turn, and lets each fail; the short form takes
some of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import test_crash
from crash_writer import DIM

from crash.pool import environment
from nopokedb import NoPokeDB

CALLS = "pwrite64,fdatasync,fsync,rename,unlink,ftruncate,mkdir"
KILLS = int(os.environ.get("NOPOKEDB_SYSCALL_KILLS", "0"))
SHORT, REACH = 10, 600
ERRORS = 1
ENOUGH = 300
"""Lines after which a writer is taken to have got over the error."""


def kill_at_call(folder: Path, seed: int, number: int) -> list[str]:
    """Run a writer that is killed at its `number`-th call of these; what it printed."""
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={CALLS}"]
    command += ["-e", f"inject={CALLS}:signal=KILL:when={number}"]
    command += [sys.executable, str(test_crash.WRITER), str(folder), str(seed), "1"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    if "PTRACE" in run.stderr or "ptrace" in run.stderr:
        pytest.skip(f"processes may not be traced here: {run.stderr.strip()[-200:]}")
    assert run.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), run.stderr[-500:]
    return [line.strip() for line in run.stdout.splitlines(keepends=True) if line.endswith("\n")]


def fail_at_call(folder: Path, seed: int, number: int, error: str, *, forever: bool) -> tuple[list[str], bool]:
    """Run a writer whose `number`-th call of these fails, and maybe all later ones; what it printed until it stopped or
    until it had gone on well for a while, and whether it stopped."""
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={CALLS}"]
    command += ["-e", f"inject={CALLS}:error={error}:when={number}{'+' if forever else ''}"]
    command += [sys.executable, str(test_crash.WRITER), str(folder), str(seed), "1"]
    tracer = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    assert tracer.stdout is not None and tracer.stderr is not None
    seen: list[str] = []
    for line in tracer.stdout:
        seen.append(line)
        if len(seen) >= ENOUGH:
            break
    stopped = len(seen) < ENOUGH
    os.killpg(tracer.pid, signal.SIGKILL)  # of the session that was begun above: strace and the writer
    seen += list(tracer.stdout)
    words = tracer.stderr.read()
    tracer.wait()
    tracer.stdout.close()
    tracer.stderr.close()
    if "ptrace" in words.lower():
        pytest.skip(f"processes may not be traced here: {words.strip()[-200:]}")
    return [line.strip() for line in seen if line.endswith("\n") and line.count(" ") >= 2], stopped


@pytest.mark.parametrize("forever", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_any_system_call_may_fail(tmp_path: Path, seed: int, error: str, forever: bool) -> None:
    """Whichever call fails, SQLite's included: what was acknowledged is there, the rest whole or absent, and a disk
    that fails for good ends the writing."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    dice = random.Random(f"{seed}/{error}/{forever}")
    numbers = range(1, KILLS + 1) if KILLS else dice.sample(range(1, REACH // 3), ERRORS)
    ended = acknowledged = 0
    for number in numbers:
        folder = tmp_path / "db"
        lines, stopped = fail_at_call(folder, seed, number, error, forever=forever)
        ended += stopped
        assert stopped or not forever, "it writes on where nothing can be written"
        acknowledged += sum(line.startswith("ack") for line in lines)
        with NoPokeDB(dim=DIM, path=folder) as db:
            test_crash.check(db, lines, {}, 1)
            assert db.check(deep=True) == []
        shutil.rmtree(folder)
    print(f"{len(numbers)} errors, {ended} ended the writer, {acknowledged} acknowledged batches")


def test_killed_at_any_system_call(tmp_path: Path, seed: int) -> None:
    """Whichever call is the last: all acknowledged batches are there, the running one whole or absent."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    numbers = range(1, KILLS + 1) if KILLS else random.Random(seed).sample(range(1, REACH), SHORT)
    acknowledged = 0
    for number in numbers:
        folder = tmp_path / "db"
        lines = kill_at_call(folder, seed, number)
        acknowledged += sum(line.startswith("ack") for line in lines)
        with NoPokeDB(dim=DIM, path=folder) as db:
            test_crash.check(db, [line for line in lines if line.count(" ") >= 2], {}, 1)
        shutil.rmtree(folder)
    print(f"{len(numbers)} kills, {acknowledged} acknowledged batches")
    assert acknowledged
