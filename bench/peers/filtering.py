"""The databases that filter, one file each, behind one small protocol; each runs in a process of its own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from bench.datasets import Floats
from bench.filters.cases import Filter

Setting = dict[str, int]
"""How a peer is asked to search, such as {"ef": 100}; an empty one is its default."""


@dataclass(frozen=True)
class FilterBuild:
    """Seconds until the last write had returned, and until everything was indexed."""

    written_s: float
    seconds: float


class FilterPeer(Protocol):
    """One database. `settings` go from fast to accurate; `exact_settings` are tried beside them.

    `syncs` says in words what the peer has on disk when a write returns.
    """

    label: str
    packages: tuple[str, ...]
    syncs: str
    settings: tuple[Setting, ...]
    exact_settings: tuple[Setting, ...]

    def parameters(self) -> dict[str, object]: ...

    def build(
        self, vectors: Floats, metadatas: list[dict[str, object]], indexed: list[str], folder: Path
    ) -> FilterBuild: ...

    def open(self, folder: Path) -> None: ...

    def native(self, condition: Filter | None) -> object:
        """The condition in the peer's own language, made outside of the timing."""

    def query(self, vector: Floats, k: int, condition: object, setting: Setting) -> object: ...

    def ids(self, answer: object) -> list[int]: ...

    def close(self) -> None: ...


OURS = "nopokedb"

# Name on the command line -> module in this package, with a class `FilterBackend`.
FILTER_PEERS = {
    OURS: "nopokedb_ours_filters",
    "zvec": "zvec_filters",
    "chroma": "chroma_filters",
    "lancedb": "lancedb_filters",
}


def load(name: str) -> FilterPeer:
    """The backend of that name; only its own libraries are imported."""
    module = importlib.import_module(f"bench.peers.{FILTER_PEERS[name]}")
    return cast(FilterPeer, module.FilterBackend())
