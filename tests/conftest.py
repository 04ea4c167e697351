"""Shared fixtures. Every random number of a test comes from a seed that is printed when the test fails."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from nopokedb import NoPokeDB
from nopokedb.embedded import sealing, upkeep
from nopokedb.embedded.search.curve import Cost

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A fresh seed per run; set NOPOKEDB_TEST_SEED to repeat one. pytest shows the print when the test fails."""
    value = int(os.environ.get("NOPOKEDB_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"NOPOKEDB_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """NumPy's generator of this test's seed."""
    return np.random.default_rng(seed)


@pytest.fixture
def quick_sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments at sizes that a test can afford; no small one is searched exactly, and no small graph is passed over."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 1024)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)
    monkeypatch.setattr(Cost, "list_us", lambda self, length: 1e-3 * length)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many MB; full before long."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root on Linux")
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a small file system is refused here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def open_db(tmp_path: Path) -> Iterator[Callable[..., NoPokeDB]]:
    """Opens `tmp_path / "db"` with the given arguments; whatever is still open is closed at the end."""
    opened: list[NoPokeDB] = []

    def open_(**arguments: object) -> NoPokeDB:
        db = NoPokeDB(path=tmp_path / "db", **arguments)  # type: ignore[arg-type]
        opened.append(db)
        return db

    yield open_
    for db in opened:
        db.close()
