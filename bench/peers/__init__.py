"""The backends that are measured, one file each, behind one small class; each runs in a process of its own."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench.datasets import Floats

if TYPE_CHECKING:  # the package of filters knows of metadata, and its cases import this module's neighbours
    from bench.filters.cases import Filter

OURS = "nopokedb"

Setting = dict[str, Any]
"""How a peer is asked to search, such as {"ef": 100}, as JSON holds it; an empty one is its default."""
Metadata = dict[str, object]


@dataclass(frozen=True)
class Layout:
    """What a peer is told when its database is made: an example of the metadata, and the fields to be indexed."""

    dim: int
    count: int
    example: Metadata
    indexed: tuple[str, ...] = ()


class Peer(ABC):
    """One backend. It is made and filled by `create`, `add` and `finish`, or opened; then `use` and `query` it.

    The answers are read by `ids`, untimed. A query keeps one thread busy, by the peer's own means. `syncs` says in
    words what is on disk when a write returns. `is_database` tells stores that return metadata with each hit and keep
    their files themselves from indexes in memory, which get all vectors in one call and are saved at the end.
    """

    label: str
    packages: tuple[str, ...]
    is_database = True
    syncs = "an index in memory, on disk when it is saved"
    largest_effort = 0
    """Efforts go from k to this; 0 for exact search, which has none."""
    curve: tuple[int, ...] = (10, 40, 160, 640)
    """Efforts that are drawn beside those that just reach a recall."""
    exact_settings: tuple[Setting, ...] = ()
    """Ways to search exactly beside those."""
    takes_threads = True
    """Whether one handle may be used by several threads."""

    @abstractmethod
    def parameters(self) -> dict[str, object]: ...

    @abstractmethod
    def create(self, folder: Path, layout: Layout) -> None:
        """Makes an empty database in a folder that does not exist."""

    @abstractmethod
    def add(self, start: int, vectors: Floats, metadatas: list[Metadata]) -> None:
        """Stores rows with the ids from `start` on, each call acknowledged as `syncs` says."""

    def add_one(self, row: int, vector: Floats, metadata: Metadata) -> None:
        """Stores one row in the way the peer offers for that."""
        self.add(row, vector[None], [metadata])

    def finish(self) -> None:
        """Ends in the state that is queried, which may mean to build an index."""
        return

    def save(self, folder: Path) -> None:
        """Writes what `open` needs, where adding does not see to that."""
        return

    @abstractmethod
    def open(self, folder: Path) -> None: ...

    def setting(self, effort: int) -> Setting:
        """How to search with that much effort, at least k."""
        return {"ef": effort}

    def use(self, setting: Setting) -> None:
        """Queries from here on search like this; not timed."""
        return

    @abstractmethod
    def query(self, vector: Floats, k: int) -> object: ...

    @abstractmethod
    def ids(self, answer: Any) -> list[int]: ...

    @abstractmethod
    def close(self) -> None: ...


class FilterPeer(Peer):
    """A database whose queries take a filter. `filter_settings` are tried from fast to accurate."""

    filter_settings: tuple[Setting, ...]

    @abstractmethod
    def native(self, condition: Filter | None) -> object:
        """The condition in the peer's own language, made outside of the timing."""

    @abstractmethod
    def query(self, vector: Floats, k: int, condition: Any = None) -> object: ...


# Name on the command line -> (module in this package, keyword arguments of its class `Backend`).
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    OURS: ("nopokedb_ours", {}),
    "nopokedb-scan": ("nopokedb_ours", {"index": "scan"}),
    "nopokedb-graph": ("nopokedb_ours", {"index": "graph"}),
    "nopokedb-0.5.1": ("nopokedb_051", {}),
    "hnswlib": ("hnswlib_peer", {}),
    "faiss-hnsw": ("faiss_hnsw", {"ef_construction": 40}),
    "faiss-hnsw-efc200": ("faiss_hnsw", {"ef_construction": 200}),
    "faiss-ivf": ("faiss_ivf", {}),
    "faiss-exact": ("faiss_exact", {}),
    "usearch": ("usearch_peer", {}),
    "zvec": ("zvec_peer", {}),
    "chroma": ("chroma_peer", {}),
    "lancedb": ("lancedb_peer", {}),
    "sqlite-vec": ("sqlite_vec_peer", {}),
    "qdrant-edge": ("qdrant_edge_peer", {}),
    "qdrant-local": ("qdrant_local_peer", {}),
    "milvus-lite": ("milvus_lite_peer", {}),
    "duckdb-vss": ("duckdb_vss_peer", {}),
    "weaviate": ("weaviate_peer", {}),
}
SEED_PEERS = (OURS, "nopokedb-0.5.1", "hnswlib", "faiss-hnsw", "faiss-hnsw-efc200", "faiss-exact")
FILTER_PEERS = (OURS, "zvec", "chroma", "lancedb")


def load(name: str) -> Peer:
    """The backend of that name; only its own libraries are imported."""
    module, options = PEERS[name]
    return cast(Peer, importlib.import_module(f"bench.peers.{module}").Backend(**options))
