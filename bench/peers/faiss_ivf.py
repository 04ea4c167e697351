"""FAISS IVF over 4-bit product quantization (fast scan), reranked with the float32 vectors.

FAISS' guidelines for choosing an index advise this family from speed-bound work in memory, with 4 to 16 times the
square root of the number of vectors as the number of lists.
"""

from __future__ import annotations

from typing import Any

import faiss

from bench.peers import Layout, Setting
from bench.peers.faiss_index import FaissPeer

LISTS_PER_ROOT = 4
K_FACTOR = 20
"""Candidates per answer that are compared exactly; fewer cap the recall of the Gaussian set below 0.99."""


class Backend(FaissPeer):
    """Effort is the number of lists that are scanned."""

    label = "FAISS IVF, fast scan"
    largest_effort = 4_096

    def parameters(self) -> dict[str, object]:
        return {"index": "IVF<n>,PQ<dim/2>x4fs,RFlat", "k_factor": K_FACTOR, **self._facts()}

    def _empty(self, layout: Layout) -> Any:
        lists = max(1, round(LISTS_PER_ROOT * layout.count**0.5))
        text = f"IVF{lists},PQ{layout.dim // 2}x4fs,RFlat"
        return faiss.index_factory(layout.dim, text, faiss.METRIC_INNER_PRODUCT)

    def setting(self, effort: int) -> Setting:
        return {"nprobe": effort, "k_factor": K_FACTOR}

    def use(self, setting: Setting) -> None:
        self._index.k_factor = setting.get("k_factor", 1)
        faiss.extract_index_ivf(self._index).nprobe = setting.get("nprobe", 1)
