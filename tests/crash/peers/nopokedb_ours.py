"""NoPokeDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crash.peers.child import DIM
from nopokedb import NoPokeDB

LABEL = "NoPokeDB"
PACKAGES = ("nopokedb",)
SETTING = 'durability="full" (the default)'


class Peer:
    def open(self, folder: Path) -> None:
        self._db = NoPokeDB(dim=DIM, path=folder, space="l2")

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        self._db.add_many(vectors, ids=keys, texts=texts)

    def read(self) -> dict[int, tuple[Any, str | None]]:
        return {record.id: (record.vector, record.text) for record in self._db.scan(include=("vector", "text"))}
