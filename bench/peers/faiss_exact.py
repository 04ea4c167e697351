"""FAISS `IndexFlatIP`: every vector compared with the query; the reference for recall 1."""

from __future__ import annotations

from typing import Any

import faiss

from bench.peers import Layout
from bench.peers.faiss_index import FaissPeer


class Backend(FaissPeer):
    """Exact search by inner product over unit vectors."""

    label = "FAISS exact"

    def parameters(self) -> dict[str, object]:
        return {"index": "IndexFlatIP", **self._facts()}

    def _empty(self, layout: Layout) -> Any:
        return faiss.IndexFlatIP(layout.dim)
