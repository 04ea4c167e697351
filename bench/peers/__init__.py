"""The backends of the table, one file each, behind one small protocol."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from bench.datasets import Floats


@dataclass(frozen=True)
class Build:
    """How long a build took. `seconds` ends in the state that is then queried.

    `acknowledged_seconds`, for databases: until the last write call had returned. `save_seconds`: what the
    backend takes on top to have its index on disk, where its write calls do not see to that.
    """

    seconds: float
    acknowledged_seconds: float | None = None
    save_seconds: float | None = None


class Peer(Protocol):
    """One backend in one process. `set_ef(None)` means its default; the answers are read by `ids`, untimed.

    Before it is queried a peer has been set to one thread per query, by its own means.
    """

    label: str
    packages: tuple[str, ...]
    table_efs: tuple[int | None, ...]
    sweep_efs: tuple[int, ...]

    def parameters(self) -> dict[str, object]: ...

    def build(self, vectors: Floats, folder: Path) -> Build: ...

    def set_ef(self, ef: int | None) -> None: ...

    def query(self, vector: Floats, k: int) -> object: ...

    def ids(self, answer: object) -> list[int]: ...

    def close(self) -> None: ...


# Name on the command line -> (module in this package, keyword arguments of its class `Backend`).
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "nopokedb": ("nopokedb_ours", {}),
    "nopokedb-0.5.1": ("nopokedb_051", {}),
    "hnswlib": ("hnswlib_peer", {}),
    "faiss-hnsw": ("faiss_hnsw", {"ef_construction": 40}),
    "faiss-hnsw-efc200": ("faiss_hnsw", {"ef_construction": 200}),
    "faiss-exact": ("faiss_exact", {}),
}


def load(name: str) -> Peer:
    """The backend of that name; only its own libraries are imported."""
    module, options = PEERS[name]
    return cast(Peer, importlib.import_module(f"bench.peers.{module}").Backend(**options))
