"""The data sets on disk: what every child process reads, whatever its environment has installed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import datasets, real
from bench.datasets import Floats, Labels
from bench.measure import say
from bench.scale import K

QUERIES_AT_ONCE = 50
SHORTLIST = 4 * K


@dataclass(frozen=True)
class Data:
    """Vectors and queries of unit length; per query the k nearest rows and the least product among them."""

    vectors: Floats
    queries: Floats
    nearest: Labels
    worst: np.ndarray[tuple[int], np.dtype[np.float64]]
    recipe: str


def _exact(vectors: Floats, queries: Floats) -> Labels:
    """A generous shortlist in float32, several queries at a time, ordered in float64."""
    found = np.empty((len(queries), K), np.int64)
    length = min(SHORTLIST, len(vectors))
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        products = queries[start : start + QUERIES_AT_ONCE] @ vectors.T
        for number, scores in enumerate(products, start):
            shortlist = np.argpartition(-scores, length - 1)[:length]
            exact = vectors[shortlist].astype(np.float64) @ queries[number].astype(np.float64)
            found[number] = shortlist[np.argsort(-exact, kind="stable")[:K]]
    return found


def _write(folder: Path, vectors: Floats, queries: Floats, recipe: str) -> None:
    say(f"exact answers for {len(vectors):,} x {vectors.shape[1]}")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "nearest.npy", _exact(vectors, queries))
    (folder / "facts.json").write_text(json.dumps({"recipe": recipe}))  # last: the others are whole


def make_gaussian(folder: Path, count: int, dim: int, query_count: int) -> None:
    """The original benchmark's vectors, unless they are there."""
    if not (folder / "facts.json").exists():
        made = datasets.gaussian(count, dim, query_count)
        _write(folder, made.vectors, made.queries, f"{count:,} x {dim} Gaussian vectors of length 1, seed 42")


def make_real(corpus: Path, folder: Path, count: int, query_count: int) -> None:
    """Embeddings of real texts, unless they are there."""
    if not (folder / "facts.json").exists():
        made = real.load(corpus, count, query_count)
        _write(folder, made.vectors, made.queries, made.recipe)


def read(folder: Path) -> Data:
    """Reads what was written; the vectors are mapped."""
    vectors: Floats = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    queries, nearest = (np.load(folder / name, allow_pickle=False) for name in ("queries.npy", "nearest.npy"))
    worst = np.array(
        [
            vectors[rows[-1]].astype(np.float64) @ query.astype(np.float64)
            for rows, query in zip(nearest, queries, strict=True)
        ]
    )
    recipe = str(json.loads((folder / "facts.json").read_text())["recipe"])
    return Data(vectors, queries, nearest, worst, recipe)
