"""How fast one thread reads memory: the ceiling of any scan."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

SIZES = {"16 MB": 16 * 10**6, "1 GB": 10**9}
"""One that the last cache of a server may hold, and one that none does."""
LEAST_S = 0.5
FEWEST = 5

_native: Any = faiss  # its annotations do not name the raw calls


def _best_gb_per_s(size: int) -> float:
    """The fastest of several passes of a sum of squares, which is vectorised and reads each byte once."""
    numbers = np.ones(size // 4, np.float32)
    pointer = faiss.swig_ptr(numbers)
    best, started, passes = float("inf"), time.perf_counter(), 0
    while passes < FEWEST or time.perf_counter() - started < LEAST_S:
        before = time.perf_counter()
        _native.fvec_norm_L2sqr(pointer, len(numbers))
        best = min(best, time.perf_counter() - before)
        passes += 1
    return numbers.nbytes / best / 1e9


def measure() -> dict[str, float]:
    """Gigabytes a second by what is read."""
    return {name: _best_gb_per_s(size) for name, size in SIZES.items()}
