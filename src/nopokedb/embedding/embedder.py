"""`Embedder`: a model with its results checked, its name, and its fingerprint.

A model is a callable that takes a list of strs and returns vectors of shape (n, dim). A collection remembers the name
and the fingerprint, which is what the model makes of a fixed sentence: another model at open is an error that names
both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from nopokedb.errors import InvalidInputError, SettingsMismatchError
from nopokedb.records import Vectors, check_vectors

Model: TypeAlias = Callable[[list[str]], Any]

_PROBE = "A vector database keeps records and finds the nearest ones."
_FINGERPRINT_SIZE = 8
_SAME = 1e-2
"""Components of a unit vector that differ by less come from the same model on another machine."""
_BATCH_TEXTS = 256
"""A model is asked for so many texts at a time, unless it has a `batch_size` of its own."""


class Embedder:
    """A model, with its results checked."""

    def __init__(self, model: Model, name: str, dim: int | None = None) -> None:
        self._model = model
        self.name = name
        self.batch_size = int(getattr(model, "batch_size", _BATCH_TEXTS))
        probe = np.asarray(self._embed([_PROBE]), np.float64)
        self.dim = len(probe[0]) if dim is None else dim
        check_vectors(probe.astype(np.float32), self.dim, "l2")
        length = float(np.linalg.norm(probe[0])) or 1.0
        self.fingerprint = [round(float(value), 4) for value in probe[0][:_FINGERPRINT_SIZE] / length]

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (len(texts), dim), float32."""
        size = self.batch_size
        parts = [self._embed(list(texts[at : at + size])) for at in range(0, len(texts), size)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def _embed(self, texts: list[str]) -> Vectors:
        vectors = np.asarray(self._model(texts), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise InvalidInputError(
                f"expected the model {self.name} to return {len(texts)} vectors, got shape {vectors.shape}"
            )
        return vectors

    def check(self, name: str, fingerprint: Sequence[float]) -> None:
        """Raise `SettingsMismatchError` unless this is the model of that name and fingerprint."""
        difference = np.abs(np.subtract(self.fingerprint, fingerprint)) if fingerprint else np.ones(1)
        if name != self.name or difference.max() > _SAME:
            raise SettingsMismatchError(
                f"expected the model {name!r} (fingerprint {list(fingerprint)}), which the collection has, "
                f"got {self.name!r} (fingerprint {self.fingerprint}); `reembed` makes its vectors anew with another"
            )


def name_of(model: Model) -> str:
    """The name that a collection remembers: the model's own `name`, else that of the function or class."""
    own = getattr(model, "name", None)
    if isinstance(own, str) and own:
        return own
    kind = model if hasattr(model, "__qualname__") else type(model)
    return f"{kind.__module__}.{kind.__qualname__}"


def without_zeros(vectors: Any) -> Vectors:
    """These vectors as float32; one without a direction, of a text of which the model knows no word, gets the first
    axis as its own."""
    rows = np.array(vectors, np.float32)
    rows[~rows.any(axis=1), 0] = 1.0
    return rows
