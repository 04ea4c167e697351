"""A collection of everything, to be damaged; and what is found and left of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model import dump
from sealing import wait_sealed

from nopokedb import (
    NoPokeDB,
    Problem,
)
from nopokedb.embedded import sealing, upkeep

DIM = 8
COUNT = 90
Dump = list[tuple[Any, ...]]


def vector_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal(DIM).astype(np.float32)


def fill(path: Path) -> Dump:
    """A small collection of everything: an index, retired labels, texts, str ids, deletes. Its content."""
    with NoPokeDB(dim=DIM, path=path) as db:
        db.add_many(
            [vector_of(n) for n in range(COUNT)],
            [{"n": n, "word": "x" * (n % 7)} for n in range(COUNT)],
            texts=[f"text {n}" if n % 2 else None for n in range(COUNT)],
        )
        wait_sealed(db)
        assert db.stats().segments
        db.save()
        db.add(vector_of(1000), {"s": 1}, id="one")
        db.upsert(5, metadata={"n": 5, "changed": True})
        db.upsert(6, vector_of(1006))
        db.delete_many([7, 8])
        return dump(db)


def closed_and_killed(base: Path) -> dict[str, tuple[Path, Dump]]:
    """The collection closed cleanly, and as a killed writer leaves it: with batches that only the log has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "SEAL_ROWS", 64)
        patch.setattr(upkeep, "PAUSE_S", 0.0)
        content = fill(base / "closed")
        shutil.copytree(base / "closed", base / "work")
        db = NoPokeDB(path=base / "work")
        db.add_many([vector_of(2000 + n) for n in range(4)], [{"late": n} for n in range(4)], texts=["late"] * 4)
        db.delete(9)
        late = dump(db)
        shutil.copytree(base / "work", base / "killed")
        db.close()
    return {"closed": (base / "closed", content), "killed": (base / "killed", late)}


def bad(problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity != "note"]


def content_of(path: Path) -> Dump:
    with NoPokeDB(path=path) as db:
        return dump(db)


def file_named(path: Path, name: str) -> Path:
    pattern = {"live": "live-*.bits", "segment": "index/*.npk", "oplog": "oplog/*.log"}.get(name, name)
    return sorted(path.glob(pattern))[-1]
