"""Collections with something to compact, and the generations of their files."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from at_once import vector_of

from nopokedb import NoPokeDB


def generations(folder: str | Path) -> set[int]:
    """The generations that have files in the folder."""
    names = [path.name for path in Path(folder).rglob("*")]
    found = [re.match(r"(?:vectors|rows|labels|metadata|live|segment)-(\d+)", name) for name in names]
    return {int(match[1]) for match in found if match}


def fill(db: NoPokeDB, count: int = 600) -> None:
    """A history with every kind of write; two thirds of its versions are retired."""
    keys = list(range(count))
    vectors = np.array([vector_of(key, 0) for key in keys])
    db.add_many(vectors, [{"n": key, "kind": key % 3} for key in keys], ids=keys, texts=[f"text {key}" for key in keys])
    db.upsert_many(keys[::2], np.array([vector_of(key, 1) for key in keys[::2]]))
    db.update_many(keys[1::4], {"kind": 7, "deep": {"é": [None, 1.5]}})
    db.delete_many(keys[2::3])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)
