"""FAISS: a library, not a database. The index is saved with `write_index` after each batch, as its tutorials do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from crash.peers.child import DIM

LABEL = "FAISS, a saved file"
PACKAGES = ("faiss-cpu",)
SETTING = "write_index after each batch; it keeps no texts"


class Peer:
    def open(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = folder / "index.faiss"
        if self._file.exists():
            self._index = faiss.read_index(str(self._file))
        else:
            self._index = faiss.IndexIDMap2(faiss.IndexFlatL2(DIM))

    def add(self, keys: list[int], vectors: Any, texts: list[str]) -> None:
        self._index.add_with_ids(vectors, np.array(keys, np.int64))
        faiss.write_index(self._index, str(self._file))

    def read(self) -> dict[int, tuple[Any, str | None]]:
        keys = faiss.vector_to_array(self._index.id_map).tolist()
        return {key: (self._index.reconstruct(key), None) for key in keys}
