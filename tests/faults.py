"""Make the operating system fail: the n-th call of chosen `os` functions raises, once or from then on.

Only Python's view of the system is changed (SQLite makes its own calls); the code under test runs as it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WRITES = ("pwrite",)
SYNCS = ("fdatasync", "fsync")
NAMES = ("rename", "replace", "unlink", "open", "mkdir")


@dataclass
class Fault:
    """What happened."""

    calls: int = 0
    failed: int = 0


@contextmanager
def failing(
    names: tuple[str, ...], at: int, *, code: int = errno.EIO, forever: bool, short: bool = False
) -> Iterator[Fault]:
    """Within the block the `at`-th call (from 1) of any of these functions fails; with `short` a pwrite writes half of
    its bytes first."""
    fault = Fault()
    real = {name: getattr(os, name) for name in names}

    def wrap(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            fault.calls += 1
            if fault.calls == at or (forever and fault.calls > at):
                fault.failed += 1
                if short and name == "pwrite":
                    real[name](args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                raise OSError(code, os.strerror(code))
            return real[name](*args, **kwargs)

        return call

    try:
        for name in names:
            setattr(os, name, wrap(name))
        yield fault
    finally:
        for name, function in real.items():
            setattr(os, name, function)
