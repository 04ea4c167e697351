"""What a collection has stored, in forms that tests compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from nopokedb import (
    NoPokeDB,
    Record,
)
from nopokedb.records import Part

EVERYTHING: tuple[Part, ...] = ("metadata", "vector", "text")


def ids_of(records: Any) -> list[int | str]:
    return [record.id for record in records]


def dump(db: NoPokeDB) -> list[Record]:
    return list(db.scan(include=EVERYTHING))


def float32(values: Any) -> bytes:
    return np.asarray(values, dtype=np.float32).tobytes()


def stored(db: NoPokeDB, id_: int | str) -> bytes:
    vector = db[id_].vector
    assert vector is not None and vector.dtype == np.float32 and vector.shape == (db.dim,)
    return vector.tobytes()
