"""The background scrub: a damaged vector that no query returned is found in idle time, and queries say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nopokedb import CorruptionError, NoPokeDB
from nopokedb.embedded import scrub

DIM = 8


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of 10 rows, one after the other."""
    monkeypatch.setattr(scrub, "SLICE_BYTES", 10 * DIM * 4)
    monkeypatch.setattr(scrub, "SLICE_PAUSE_S", 0.001)
    monkeypatch.setattr(scrub, "IDLE_S", 0.0)
    monkeypatch.setattr(scrub, "PASS_PAUSE_S", 0.0)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the scrub did not get there"
        time.sleep(0.005)


def damage(path: Path, row: int) -> bytes:
    """Overwrite a vector with one that is far away; its old bytes."""
    with (path / "vectors-1.f32").open("r+b") as file:
        file.seek(row * DIM * 4)
        old = file.read(DIM * 4)
        file.seek(row * DIM * 4)
        file.write(np.full(DIM, 50.0, "<f4").tobytes())
    return old


def test_a_damaged_vector_is_found_and_named(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path
) -> None:
    """No query returned it; when the scrub has passed, queries raise with file, offset and remedy, `get` goes on, and
    replacing the record ends it."""
    db = open_db(dim=DIM, space="l2")
    vectors = rng.standard_normal((95, DIM)).astype(np.float32)
    db.add_many(vectors, [{"n": n} for n in range(95)])
    wait(lambda: db.stats().scrub_passes >= 1)
    assert db.stats().damaged_count == 0 and 0.0 <= db.stats().scrub_progress <= 1.0
    damage(tmp_path / "db", 60)
    wait(lambda: db.stats().damaged_count == 1)
    for call in (lambda: db.query(vectors[3], k=1), lambda: db.query_many(vectors[:2], k=1)):
        with pytest.raises(CorruptionError, match="check --repair") as caught:
            call()
        assert caught.value.file == str(tmp_path / "db" / "vectors-1.f32") and caught.value.offset == 60 * DIM * 4
    assert db.get(60) == {"n": 60}
    db.upsert(60, vectors[60])
    assert db.query(vectors[60], k=1)[0].id == 60


def test_vectors_that_no_record_uses_are_no_reason_to_refuse(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path
) -> None:
    """Damage to a deleted record's vector changes no answer; bytes that are right again are taken off the list."""
    db = open_db(dim=DIM)
    vectors = rng.standard_normal((40, DIM)).astype(np.float32)
    db.add_many(vectors)
    db.delete(7)
    damage(tmp_path / "db", 7)
    passes = db.stats().scrub_passes
    wait(lambda: db.stats().scrub_passes >= passes + 2)
    assert db.stats().damaged_count == 0 and len(db.query(vectors[3], k=40)) == 39
    old = damage(tmp_path / "db", 8)
    wait(lambda: db.stats().damaged_count == 1)
    with (tmp_path / "db" / "vectors-1.f32").open("r+b") as file:
        file.seek(8 * DIM * 4)
        file.write(old)
    wait(lambda: db.stats().damaged_count == 0)
    assert db.query(vectors[8], k=1)[0].id == 8


def test_the_scrub_rests_between_passes(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass, then nothing until the pause is over: an idle collection costs nothing."""
    monkeypatch.setattr(scrub, "PASS_PAUSE_S", 3600.0)
    db = open_db(dim=DIM)
    db.add_many(rng.standard_normal((40, DIM)))
    wait(lambda: db.stats().scrub_passes == 1)
    assert db.stats().scrub_progress == 1.0
    upkeep = db._engine._upkeep  # type: ignore[attr-defined]
    assert not upkeep.scrub.due(db._engine.snapshot())  # type: ignore[attr-defined]
