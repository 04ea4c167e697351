"""What `stats` tells an operator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from nopokedb import NoPokeDB
from nopokedb.embedded import sealing

DIM = 16


def test_parts_add_up_to_what_is_there(open_db: Callable[..., NoPokeDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts, bytes on disk and in memory by part, and how old the last checkpoint is."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 512)
    db = open_db(dim=DIM)
    first = db.stats()
    assert first.checkpoint_age_s is None and first.retired_count == 0 and first.index_memory_bytes == 0
    db.add_many(np.random.default_rng(0).random((2000, DIM)), texts=["a text"] * 2000)
    db.update_many(range(300), {"changed": True})
    db.delete_many(range(1900, 2000))
    deadline = time.monotonic() + 60
    while db.stats().sealing and time.monotonic() < deadline:
        os.sched_yield()
    db.save()
    stats = db.stats()
    assert (stats.count, stats.retired_count, stats.label_count) == (1900, 400, 2300)
    assert stats.checkpoint_age_s is not None and stats.checkpoint_age_s < 60
    assert stats.index_memory_bytes == sum(segment.size_bytes for segment in stats.segments) > 0
    assert stats.tables_memory_bytes >= 2000 * 4
    assert stats.vectors_bytes >= 2000 * DIM * 4 and stats.metadata_bytes > 10_000
    parts = stats.vectors_bytes + stats.metadata_bytes + stats.log_bytes + stats.index_bytes
    assert 0.9 * stats.disk_bytes < parts <= stats.disk_bytes


def test_who_holds_the_lock(open_db: Callable[..., NoPokeDB]) -> None:
    """A reader is told the writer's process, and nobody's where there is none, however it ended."""
    db = open_db(dim=DIM)
    assert db.stats().lock_holder == os.getpid()
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert reader.stats().lock_holder == os.getpid()
        db.close()
        assert reader.stats().lock_holder is None
        code = "import os, sys; from nopokedb import NoPokeDB; db = NoPokeDB(path=sys.argv[1]); print(1, flush=True); "
        child = subprocess.Popen(
            [sys.executable, "-c", code + "sys.stdin.read()", db.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        assert reader.stats().lock_holder == child.pid
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert reader.stats().lock_holder is None
