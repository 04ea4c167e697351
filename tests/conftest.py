"""Shared fixtures. Every random number of a test comes from a seed that is printed when the test fails."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from nopokedb import NoPokeDB

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
