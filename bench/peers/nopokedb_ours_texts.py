"""This project with texts: defaults throughout, every batch synced, the filtered field indexed."""

from __future__ import annotations

import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from bench.datasets import Floats
from bench.filters.documents import Documents
from bench.peers.nopokedb_ours import settle
from bench.peers.texting import TextLoad
from bench.scale import BATCH_SIZE
from bench.timing import timed_us
from nopokedb import NoPokeDB

MARKER = "zyqxwv"
"""With more letters behind it, a word that no document has."""
SEARCHABLE_LIMIT_S = 60


class TextBackend:
    """Text is searchable when a write returns; the first query after a load may find work left to do."""

    label = "NoPokeDB"
    packages: tuple[str, ...] = ("nopokedb", "faiss-cpu", "numpy", "apsw", "orjson", "tantivy")
    syncs = "syncs its log before a write returns"

    def __init__(self) -> None:
        self._db: Any = None

    def parameters(self) -> dict[str, object]:
        return {"fusion": "rrf", "text_language": "en", "batch_size": BATCH_SIZE}

    def _until_found_s(self, word: str) -> float:
        """Seconds until a text query for the word finds something."""
        started = time.perf_counter()
        while not self._db.query(text=word, k=1):
            if time.perf_counter() - started > SEARCHABLE_LIMIT_S:
                raise RuntimeError(f"a stored word was not found within {SEARCHABLE_LIMIT_S} s")
        return time.perf_counter() - started

    def load(self, documents: Documents, folder: Path) -> TextLoad:
        metadatas = documents.metadatas()
        texts = [*documents.texts[:-1], f"{documents.texts[-1]} {MARKER}0"]
        self._db = NoPokeDB(documents.vectors.shape[1], path=folder, space="cosine")
        started = time.perf_counter()
        for start in range(0, len(texts), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            self._db.add_many(documents.vectors[part], metadatas[part], texts=texts[part])
        written = time.perf_counter() - started
        searchable = self._until_found_s(f"{MARKER}0")
        self._db.create_index("tenth")
        settle(self._db)
        return TextLoad(len(texts) / written, searchable, time.perf_counter() - started - written)

    def open(self, folder: Path) -> None:
        self._db = NoPokeDB(path=folder)
        settle(self._db)

    def add_and_find_us(self, vector: Floats) -> tuple[float, float]:
        """Microseconds to add one record, and then to find it by its text."""
        word = f"{MARKER}{uuid.uuid4().hex}"  # a database that is used again has the words of earlier runs
        add = partial(self._db.add, vector, {"title": word, "tenth": 0}, text=f"a new record {word}")
        return timed_us(add), self._until_found_s(word) * 1e6

    def query(self, vector: Floats | None, text: str | None, k: int, tenth: bool) -> object:
        return self._db.query(vector, text=text, k=k, where={"tenth": 3} if tenth else None)

    def ids(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    def close(self) -> None:
        self._db.close()
