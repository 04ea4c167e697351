"""The databases with full text and hybrid search, one file each, behind one small protocol."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from bench.datasets import Floats
from bench.filters.documents import Documents
from bench.peers import OURS


@dataclass(frozen=True)
class TextLoad:
    """Records a second until the last write had returned, then seconds until text is found and until all is indexed."""

    add_per_s: float
    searchable_s: float
    indexed_s: float


class TextPeer(Protocol):
    """One database. A query has a vector, a text, or both; with `tenth` only every tenth record passes a filter."""

    label: str
    packages: tuple[str, ...]
    syncs: str

    def parameters(self) -> dict[str, object]: ...

    def load(self, documents: Documents, folder: Path) -> TextLoad: ...

    def open(self, folder: Path) -> None: ...

    def query(self, vector: Floats | None, text: str | None, k: int, tenth: bool) -> object: ...

    def ids(self, answer: object) -> list[int]: ...

    def close(self) -> None: ...


# Name on the command line -> module in this package, with a class `TextBackend`. Chroma finds substrings, not words.
TEXT_PEERS = {OURS: "nopokedb_ours_texts", "zvec": "zvec_texts", "lancedb": "lancedb_texts"}


def load(name: str) -> TextPeer:
    """The backend of that name; only its own libraries are imported."""
    module = importlib.import_module(f"bench.peers.{TEXT_PEERS[name]}")
    return cast(TextPeer, module.TextBackend())
