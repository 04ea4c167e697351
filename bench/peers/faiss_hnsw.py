"""FAISS `IndexHNSWFlat` with 32 links, inner product over unit vectors, as the original benchmark ran it."""

from __future__ import annotations

from typing import Any

import faiss

from bench.peers import Layout, Setting
from bench.peers.faiss_index import FaissPeer

LINKS = 32
DEFAULT_EF = 16  # what a new faiss.IndexHNSWFlat has as hnsw.efSearch


class Backend(FaissPeer):
    """In-memory HNSW; 40 is FAISS' own efConstruction, 200 is that of the other graphs in the table."""

    largest_effort = 20_000

    def __init__(self, ef_construction: int) -> None:
        super().__init__()
        self.label = f"FAISS HNSW, efC {ef_construction}"
        self._ef_construction = ef_construction

    def parameters(self) -> dict[str, object]:
        shape = {"M": LINKS, "ef_construction": self._ef_construction, "default_ef": DEFAULT_EF}
        return {"index": "IndexHNSWFlat", **shape, **self._facts()}

    def _empty(self, layout: Layout) -> Any:
        index = faiss.IndexHNSWFlat(layout.dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self._ef_construction
        return index

    def use(self, setting: Setting) -> None:
        self._index.hnsw.efSearch = setting.get("ef", DEFAULT_EF)
