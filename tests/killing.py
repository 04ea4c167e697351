"""Processes that are killed at their n-th file operation, as far as Python makes it (SQLite makes its own calls)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = ("pwrite", "fdatasync", "fsync", "unlink", "replace", "rename", "open", "mkdir", "rmdir")


def die_at(limit: int) -> Callable[[], int]:
    """From here on this process is killed when it begins its `limit`-th file operation (0: never). What is returned
    tells how many it has made."""
    count = 0

    def guard(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(os, name, call)

    for name in OPERATIONS:
        guard(name)
    return lambda: count


def run_killed_at(limit: int, code: str, *arguments: object) -> int | None:
    """Run the code, which finds the arguments in `sys.argv[1:]`, in a process that is killed at its `limit`-th file
    operation; how many it made if it came to its end."""
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from killing import die_at",
        f"made = die_at({limit})",
        code,
        "print(made())",
    )
    command = [sys.executable, "-c", "\n".join(lines), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def kill_at_each(root: Path, limits: range, attempt: Callable[[Path, int, Callable[[], object]], object]) -> None:
    """Fork for each of these limits, and make the attempt there on a copy of the folder `root/db`, until one comes to
    its end: its limit and exit status are printed. An attempt gets the copy, the limit for `die_at`, and what writes a
    byte to `root/LIMIT.acks`, for what it acknowledges."""
    for limit in limits:
        folder = root / str(limit)
        shutil.copytree(root / "db", folder)
        pid = os.fork()
        if not pid:
            acks = os.open(f"{folder}.acks", os.O_WRONLY | os.O_CREAT)
            attempt(folder, limit, lambda: os.write(acks, b"."))  # noqa: B023  # called before the loop goes on
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            print(limit, os.WEXITSTATUS(status))
            return
