"""The metadata that is filtered on: columns of numbers, random ones and ones that know of the vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.datasets import Floats

TITLE_LENGTH = 60

Column = NDArray[np.int64]

EQUALITY_SHARES = {
    "one_in_2": 2,
    "one_in_5": 5,
    "one_in_10": 10,
    "one_in_20": 20,
    "one_in_100": 100,
    "one_in_1000": 1000,
}
NUMBER_RANGE = 1_000_000


def columns_for(vectors: Floats, seed: int = 5) -> dict[str, Column]:
    """The numbers that are filtered on, by field name.

    Random ones know nothing of the vectors. `half_space` is 1 on the positive side of a random direction through the
    mean, `far_cluster` is 1 for the hundredth of the records nearest to a random one. The fields that begin with
    "plain" never get an index.
    """
    rng = np.random.default_rng(seed)
    count = len(vectors)
    columns: dict[str, Column] = {"number": rng.integers(0, NUMBER_RANGE, count)}
    for name, parts in EQUALITY_SHARES.items():
        columns[name] = rng.integers(0, parts, count)
    direction = rng.standard_normal((vectors.shape[1],)).astype(np.float32)
    projections: Floats = vectors @ direction
    columns["half_space"] = np.asarray(projections > projections.mean(), np.int64)
    likeness: Floats = vectors @ vectors[rng.integers(count)]
    least = np.partition(likeness, -(count // 100))[-(count // 100)]
    columns["far_cluster"] = np.asarray(likeness >= least, np.int64)
    columns["plain_number"] = rng.integers(0, NUMBER_RANGE, count)
    columns["plain_group"] = rng.integers(0, 1000, count)
    return columns


def indexed_fields(columns: dict[str, Column]) -> list[str]:
    """The fields that every database gets a scalar index on."""
    return [name for name in columns if not name.startswith("plain")]


def metadata_of(texts: list[str], columns: dict[str, Column], rows: slice) -> list[dict[str, object]]:
    """The metadata objects of some rows: a title and every column."""
    lists = {name: column[rows].tolist() for name, column in columns.items()}
    titles = [text[:TITLE_LENGTH] for text in texts[rows]]
    return [
        {"title": title, **dict(zip(lists, values, strict=True))}
        for title, values in zip(titles, zip(*lists.values(), strict=True), strict=True)
    ]
