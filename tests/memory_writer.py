"""A process that runs out of memory while it writes. Run as a script:

    python memory_writer.py points FOLDER FIRST STEP   the n-th allocation of Python fails; n = FIRST, FIRST + STEP ...
    python memory_writer.py limit FOLDER BYTES         the address space may grow by so much after opening
    python memory_writer.py hoard FOLDER SEED          takes ever more memory, until something kills it

Lines: `begin KEY COUNT` before a batch, `ack KEY COUNT` after its call returned, `error NAME` where it raised, `at N`
before the allocation that fails.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from nopokedb import NeedsReopenError, NoPokeDB
from nopokedb.embedded import sealing, upkeep

Call = Callable[[], object]
DIM = 16
TRIES = 25
"""Batches after the limit is in force."""


def vector_of(key: int) -> np.ndarray:
    """float32 (DIM,)."""
    return np.random.default_rng(key).standard_normal(DIM).astype(np.float32)


def nothing() -> None:
    """In place of a shortage."""


class Writer:
    """Writes batches of new keys, and says so. Arguments are made before the memory is short."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.db = NoPokeDB(dim=DIM, path=folder)
        self._next = max((record.id for record in self.db.scan() if isinstance(record.id, int)), default=0) + 1
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        with self._lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def batch(self, count: int, short: Call = nothing, enough: Call = nothing) -> bool:
        """One batch, True if it was acknowledged; `short` and `enough` are called right before and after the write."""
        key = self._next
        self._next += count
        keys = list(range(key, key + count))
        vectors, metadatas = np.array([vector_of(k) for k in keys]), [{"k": k} for k in keys]
        texts = [f"text {k} " + "é" * 200 for k in keys]
        self.say(f"begin {key} {count}")
        failed: BaseException | None = None
        try:
            short()
            self.db.add_many(vectors, metadatas, ids=keys, texts=texts)
        except (MemoryError, OSError, RuntimeError, SystemError) as error:  # the last: NumPy lost its MemoryError
            failed = error
        finally:
            enough()
        if failed is None:
            self.say(f"ack {key} {count}")
            return True
        self.say(f"error {type(failed).__name__}")
        assert len(self.db) >= 0  # it reads on
        if isinstance(failed, NeedsReopenError):
            self.db.close()
            self.db = NoPokeDB(path=self._folder)
        return False


def points(folder: str, first: int, step: int) -> None:
    """Each allocation that a batch makes of Python fails in its turn."""
    import _testcapi

    upkeep.PAUSE_S = 1e9  # the other threads keep still, so that it is the writer that meets the failure
    writer = Writer(folder)
    writer.batch(3)
    number, quiet = first, 0
    while quiet < 30:  # past the last allocation
        writer.say(f"at {number}")
        good = writer.batch(3, partial(_testcapi.set_nomemory, number, number + 1), _testcapi.remove_mem_hooks)
        number += step
        quiet = quiet + 1 if good else 0
    writer.db.close()


def limit(folder: str, size: int) -> None:
    """Batches of 500 records while the address space is nearly used up."""
    import resource

    sealing.SEAL_ROWS, upkeep.URGENT_ROWS, upkeep.CHECKPOINT_BYTES, upkeep.PAUSE_S = 1024, 2048, 200_000, 0.0
    writer = Writer(folder)
    writer.batch(10)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + size, resource.RLIM_INFINITY))
    for _ in range(TRIES):
        writer.batch(500)


def hoard(folder: str, seed: int) -> None:
    """Small batches, and memory that nobody gives back."""
    sealing.SEAL_ROWS, upkeep.URGENT_ROWS, upkeep.CHECKPOINT_BYTES, upkeep.PAUSE_S = 256, 512, 20_000, 0.0
    writer, dice = Writer(folder), random.Random(seed)
    writer.say("open")
    sys.stdin.readline()
    kept = []
    while True:
        writer.batch(dice.choice((1, 5, 40)))
        kept.append(np.ones(dice.randint(1, 400_000)))


if __name__ == "__main__":
    what, path, *rest = sys.argv[1:]
    {"points": points, "limit": limit, "hoard": hoard}[what](path, *map(int, rest))
