"""Processes that are killed at their n-th file operation, as far as Python makes it (SQLite makes its own calls)."""

from __future__ import annotations

import os
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
