"""Vectors that users asked lately, for calibration: no sample of what is stored says as well what will be asked."""

from __future__ import annotations

import numpy as np

from nopokedb.records import Vectors

_KEPT = 256
_STRIDE = 16
"""Once so many are kept, every sixteenth query replaces the oldest: the ring then spans some thousand queries, and most
queries cost a division."""


class RecentQueries:
    """A ring in memory, shared by all threads of a handle. A count that two threads take at once loses one of their
    queries, which is harmless."""

    def __init__(self) -> None:
        self._kept: list[Vectors] = []
        self._seen = 0
        self._next = 0

    def note(self, vectors: Vectors) -> None:
        """Remember the first of these vectors (n, dim), at times."""
        seen = self._seen
        self._seen = seen + 1
        if seen >= _KEPT:
            if seen % _STRIDE:
                return
            self._next = at = (self._next + 1) % _KEPT
            if at < len(self._kept):
                self._kept[at] = vectors[0].copy()  # the caller may change its array
                return
        self._kept.append(vectors[0].copy())
        del self._kept[_KEPT:]

    def vectors(self) -> Vectors | None:
        """Those that are kept, shape (n, dim); None where there are none."""
        kept = list(self._kept)
        return np.stack(kept) if kept else None
