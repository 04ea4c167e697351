"""The vectors of a collection, block by block: what duplicates, outliers and projections read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nopokedb.reading import Reading
from nopokedb.records import Id, Vectors
from nopokedb.where import Where

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """Some records."""

    ids: list[Id]
    vectors: Vectors
    """Shape (n, dim)."""


def blocks(db: Reading, where: Where, size: int, *, after: Id | None = None) -> Iterator[Block]:
    """The records that pass the filter in id order, `size` at a time, all of one moment."""
    return _gathered(db, where, size, after, None)


def chosen_blocks(db: Reading, where: Where, size: int, chosen: Positions | None) -> Iterator[Block]:
    """The same of the records at these places (ascending) of the id order; None: all."""
    return _gathered(db, where, size, None, chosen)


def places(count: int, wanted: int | None, seed: int) -> Positions | None:
    """`wanted` of `count` places by chance, ascending, the same ones each time; None: all."""
    if wanted is None or wanted >= count:
        return None
    found: Positions = np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False))
    return found


def _gathered(db: Reading, where: Where, size: int, after: Id | None, chosen: Positions | None) -> Iterator[Block]:
    ids: list[Id] = []
    vectors: list[Vectors] = []
    wanted = None if chosen is None else set(chosen.tolist())
    for place, record in enumerate(db.scan(where, after=after, include=("vector",))):
        if wanted is not None and place not in wanted:
            continue
        assert record.vector is not None
        ids.append(record.id)
        vectors.append(record.vector)
        if len(ids) == size:
            yield Block(ids, np.stack(vectors))
            ids, vectors = [], []
    if ids:
        yield Block(ids, np.stack(vectors))
