"""kill -9 at chosen system calls, SQLite's own included: strace kills the writer when it makes its n-th call.

`NOPOKEDB_SYSCALL_KILLS=1000` kills at each of the first 1,000 calls in turn; the short form takes some of them.
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
