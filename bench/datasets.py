"""Data sets made from a seed, and their exact answers.

Both sets hold unit vectors, so cosine similarity is the inner product and no backend has to normalise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

EMBEDDING_LIKE_RECIPE = (
    "mixture of 2,000 clusters with weights 1/(10 + i), centres and members Gaussian in 192 latent "
    "dimensions whose scale falls as i^-0.5 (members 1.2 x as wide as centres), rotated into the full space, "
    "plus a common mean of norm 0.3 and isotropic noise of norm 0.3, normalised to length 1; queries are "
    "fresh draws"
)


@dataclass(frozen=True)
class Dataset:
    """Vectors (n, dim), queries (m, dim), and `truth` (m, k): the rows of the k nearest, nearest first."""

    vectors: Floats
    queries: Floats
    truth: Labels

    @property
    def k(self) -> int:
        """How many neighbours the exact answers hold per query."""
        return int(self.truth.shape[1])


def _unit(rows: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    return rows / lengths


def exact_neighbours(vectors: Floats, queries: Floats, k: int) -> Labels:
    """Rows of the k largest inner products per query: a generous shortlist in float32, ordered in float64."""
    shortlist_length = min(4 * k, len(vectors))
    truth = np.empty((len(queries), k), dtype=np.int64)
    for number, query in enumerate(queries):
        shortlist = np.argpartition(-(vectors @ query), shortlist_length - 1)[:shortlist_length]
        products = vectors[shortlist].astype(np.float64) @ query.astype(np.float64)
        truth[number] = shortlist[np.argsort(-products, kind="stable")[:k]]
    return truth


def gaussian(count: int, dim: int, query_count: int, k: int = 10, seed: int = 42) -> Dataset:
    """The original benchmark's data, from the same generator and seed: Gaussian, normalised for cosine.

    Such vectors have no neighbourhood structure, which makes them the worst case for every approximate index.
    """
    rng = np.random.default_rng(seed)
    vectors = _unit(rng.normal(size=(count, dim)).astype(np.float32))
    queries = _unit(rng.normal(size=(query_count, dim)).astype(np.float32))
    return Dataset(vectors, queries, exact_neighbours(vectors, queries, k))


def embedding_like(count: int, dim: int, query_count: int, k: int = 10, seed: int = 7) -> Dataset:
    """Clustered, correlated vectors, about as hard to search as text embeddings: `EMBEDDING_LIKE_RECIPE`."""
    rng = np.random.default_rng(seed)
    rank = min(192, dim)
    cluster_count = 2_000
    basis = np.linalg.qr(rng.standard_normal((dim, rank)))[0].T.astype(np.float32)
    scale = (1.0 + np.arange(rank)) ** -0.5
    scale = (scale / np.linalg.norm(scale)).astype(np.float32)
    centres = rng.standard_normal((cluster_count, rank), dtype=np.float32) * scale
    weights = 1.0 / (10.0 + np.arange(cluster_count))
    mean = rng.standard_normal(dim, dtype=np.float32)
    mean *= np.float32(0.3) / np.linalg.norm(mean)

    total = count + query_count
    cluster = rng.choice(cluster_count, size=total, p=weights / weights.sum())
    latent = centres[cluster] + np.float32(1.2) * rng.standard_normal((total, rank), dtype=np.float32) * scale
    noise = np.float32(0.3 / np.sqrt(dim)) * rng.standard_normal((total, dim), dtype=np.float32)
    rows = _unit(latent @ basis + mean + noise)
    vectors, queries = rows[:count], rows[count:]
    return Dataset(vectors, queries, exact_neighbours(vectors, queries, k))


def save(dataset: Dataset, path: Path) -> None:
    """Writes the set as one uncompressed .npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, vectors=dataset.vectors, queries=dataset.queries, truth=dataset.truth)


def load(path: Path) -> Dataset:
    """Reads what `save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Dataset(arrays["vectors"], arrays["queries"], arrays["truth"])


def metadata_for(count: int, start: int = 0) -> list[dict[str, object]]:
    """Small metadata objects, the same for every database that stores any."""
    return [
        {"title": f"document {row}", "group": row % 100, "year": 1990 + row % 35} for row in range(start, start + count)
    ]
