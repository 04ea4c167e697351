"""How right an answer is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.datasets import Floats

TIE = 1e-6
"""Products closer than float32 can tell: texts of the same words in another order have the same vector."""


def score_answer(
    ids: list[int], query: Floats, worst: float, right_count: int, vectors: Floats, mask: NDArray[np.bool_] | None
) -> tuple[int, int]:
    """How many of the true k an answer holds, where equal products are equally right, and how many break the filter."""
    distinct = np.array(sorted(set(ids)), dtype=np.int64)
    passing = distinct if mask is None else distinct[mask[distinct]]
    products = vectors[passing].astype(np.float64) @ query.astype(np.float64)
    right = min(int((products >= worst - TIE).sum()), right_count)
    return right, len(distinct) - len(passing)
