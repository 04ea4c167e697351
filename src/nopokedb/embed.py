"""Text -> vector: the model of a collection, given as `embed=` when it is created.

A model is a callable that takes a list of strs and returns vectors of shape (n, dim), or the name of one that ships
inside a wheel. The collection remembers its name and a fingerprint, which is what the model makes of a fixed sentence:
another model at open is an error that names both. Nothing is downloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidInputError, SettingsMismatchError
from nopokedb.records import Vectors, check_vectors, shown

Model: TypeAlias = Callable[[list[str]], Any]

_PROBE = "A vector database keeps records and finds the nearest ones."
_FINGERPRINT_SIZE = 8
_SAME = 1e-2
"""Components of a unit vector that differ by less come from the same model on another machine."""
_BATCH_TEXTS = 256


class Embedder:
    """A model, with its results checked."""

    def __init__(self, model: Model, name: str, dim: int | None = None) -> None:
        self._model = model
        self.name = name
        probe = np.asarray(self._embed([_PROBE]), np.float64)
        self.dim = len(probe[0]) if dim is None else dim
        check_vectors(probe.astype(np.float32), self.dim, "l2")
        length = float(np.linalg.norm(probe[0])) or 1.0
        self.fingerprint = [round(float(value), 4) for value in probe[0][:_FINGERPRINT_SIZE] / length]

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (len(texts), dim), float32."""
        parts = [self._embed(list(texts[at : at + _BATCH_TEXTS])) for at in range(0, len(texts), _BATCH_TEXTS)]
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
                f"expected the model {name!r} (fingerprint {list(fingerprint)}), with which the collection was "
                f"created, got {self.name!r} (fingerprint {self.fingerprint})"
            )


def make_embedder(embed: object) -> Embedder:
    """The embedder of an `embed=` argument: the name of a model, or a callable."""
    if isinstance(embed, str):
        if embed not in MODELS:
            raise InvalidInputError(
                f"expected embed to be a callable or one of {', '.join(map(repr, MODELS))}, got {embed!r:.80}"
            )
        return Embedder(MODELS[embed](), embed)
    if not callable(embed):
        raise InvalidInputError(f"expected embed to be a callable or the name of a model, got {shown(embed)}")
    kind = embed if hasattr(embed, "__qualname__") else type(embed)
    return Embedder(embed, f"{kind.__module__}.{kind.__qualname__}")


def stored_embedder(name: str, fingerprint: Sequence[float]) -> Callable[[Sequence[str]], Vectors] | None:
    """The model that a collection was created with, where that ships inside a wheel; loaded when first used."""
    if name not in MODELS:
        return None
    loaded: list[Embedder] = []

    def embed(texts: Sequence[str]) -> Vectors:
        if not loaded:
            embedder = make_embedder(name)
            embedder.check(name, fingerprint)
            loaded.append(embedder)
        return loaded[0](texts)

    return embed


def _wordllama() -> Model:
    """Li et al., WordLlama (2024): averaged token embeddings, 256 dimensions, English, inside its wheel."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import wordllama
    except ImportError as error:
        raise ImportError(f"embed='wordllama' needs wordllama: {install_hint('embed')}") from error
    finally:
        # Being imported, the package turns on logging for the whole program, which is not ours to decide.
        root.handlers[:] = handlers
        root.setLevel(level)
    # The wheel keeps both files in its own folder, where only its cache lookup finds the tokenizer.
    package = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(dim=256, cache_dir=package, disable_download=True)

    def embed(texts: list[str]) -> Any:
        rows = np.asarray(model.embed(texts), np.float32)
        rows[~rows.any(axis=1), 0] = 1.0  # a text without a known word: zero has no direction
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return embed


MODELS: dict[str, Callable[[], Model]] = {"wordllama": _wordllama}
"""Models that ship inside a wheel, by name."""
