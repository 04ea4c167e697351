"""`Cached`: a model that remembers what it made of each text, in memory or in a file."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nopokedb.embedding.embedder import Embedder, Model
from nopokedb.errors import InvalidInputError
from nopokedb.records import Vectors, check_int, check_vectors, shown

Vector = npt.NDArray[np.float32]
_MAX_TEXTS = 2**40
_DEFAULT_MEMORY, _DEFAULT_FILE = 10_000, 1_000_000


class Shelf(Protocol):
    """Where vectors are kept, by the hash of their text."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """Those that are there."""
        ...

    def keep(self, vectors: dict[bytes, Vector]) -> None:
        """Remember these, and forget those that were not asked for longest where there is no room."""
        ...

    def count(self) -> int:
        """How many there are."""
        ...

    def close(self) -> None: ...


class Cached:
    """A model in front of which its answers are kept, by the SHA-256 of the text.

    Any number of threads may use one, and any number of processes one file. The vectors of another model, or of another
    version of this one, are other entries: the key has the model's name, dimension and fingerprint in it.

    Args:
        model: what `embed=` takes: a callable or a str.
        place: how many texts to remember in memory, or the path of a file (SQLite), which may be deleted at any time
            that nobody has it open.
        max_texts: how many texts a file may hold (of all models together); those asked for longest ago go first.

    `hits`, `misses` and `hit_rate` count since this object was made; a text that is twice in one call counts twice.
    Raises: `InvalidInputError` if the file is something else, which is left untouched.
    """

    def __init__(
        self, model: str | Model, place: int | str | os.PathLike[str] = _DEFAULT_MEMORY, *, max_texts: int | None = None
    ) -> None:
        from nopokedb.embedding.names import make_embedder  # which knows all models, this one too

        self._embedder: Embedder = make_embedder(model)
        self.name = self._embedder.name
        self.batch_size = self._embedder.batch_size
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._shelf: Shelf
        if isinstance(place, str | os.PathLike):
            from nopokedb.embedding.cache_file import CacheFile

            limit = check_int("max_texts", _DEFAULT_FILE if max_texts is None else max_texts, 1, _MAX_TEXTS)
            self._shelf = CacheFile(Path(place), self._identity(), self._embedder.dim, limit)
        elif max_texts is not None:
            raise InvalidInputError(f"expected max_texts only beside the path of a file, got place={shown(place)}")
        else:
            self._shelf = _Memory(check_int("place", place, 1, _MAX_TEXTS))

    def _identity(self) -> bytes:
        """What tells this model from others."""
        told = repr((self.name, self._embedder.dim, self._embedder.fingerprint))
        return hashlib.sha256(told.encode()).digest()

    def __call__(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), dim), float32; the model is asked for those that are not kept."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        found = self._shelf.find(list(dict.fromkeys(keys)))
        hits = sum(key in found for key in keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            vectors = check_vectors(self._embedder(list(missing.values())), self._embedder.dim, "l2")  # or none is kept
            made = dict(zip(missing, vectors, strict=True))
            self._shelf.keep(made)
            found |= made
        with self._lock:
            self.hits += hits
            self.misses += len(texts) - hits
        return np.array([found[key] for key in keys], np.float32).reshape(len(texts), self._embedder.dim)

    @property
    def hit_rate(self) -> float:
        """The share of texts for which the model was not asked; 0 before the first."""
        with self._lock:
            asked = self.hits + self.misses
            return self.hits / asked if asked else 0.0

    def __len__(self) -> int:
        """How many texts are kept, in a file those of all models."""
        return self._shelf.count()

    def __repr__(self) -> str:
        return f"Cached({self.name!r}, {self.hits} hits, {self.misses} misses)"

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._shelf.close()


class _Memory:
    """The texts that were asked for last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        return found

    def keep(self, vectors: dict[bytes, Vector]) -> None:
        with self._lock:
            for key, vector in vectors.items():
                self._kept[key] = vector.copy()  # not a row that keeps its whole batch alive
                self._kept.move_to_end(key)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)

    def count(self) -> int:
        return len(self._kept)

    def close(self) -> Any:
        """Nothing is open."""
