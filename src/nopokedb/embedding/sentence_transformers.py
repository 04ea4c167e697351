"""`SentenceTransformers`: models of the library sentence-transformers (extra "sentence-transformers").

Reimers and Gurevych, Sentence-BERT (2019). The library needs PyTorch, which is large: hence an extra of its own.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nopokedb.distribution import install_hint
from nopokedb.embedding.local import base_name, is_name, local_folder, refusal

_HOW = "give the path of a folder that SentenceTransformer.save made, or hand in a loaded SentenceTransformer"


class SentenceTransformers:
    """A model of sentence-transformers.

    Args:
        model: the path of a saved model, the name of one in the cache of Hugging Face, or a `SentenceTransformer`.
        name: what collections remember it as; None: "sentence-transformers:" and the last part of the path.
        batch_size: texts that the model works on at a time.
        options: for `SentenceTransformer.encode`, such as `prompt_name` or `normalize_embeddings`.

    Raises: ImportError without the library, `InvalidInputError` for a name whose files are not on this machine.
    """

    def __init__(self, model: Any, *, name: str | None = None, batch_size: int = 32, **options: Any) -> None:
        self.batch_size = batch_size
        self._options = options
        self._model = _loaded(model) if is_name(model) else model
        if not callable(getattr(self._model, "encode", None)):
            raise refusal("sentence-transformers", type(model).__name__, _HOW)
        self.name = name or f"sentence-transformers:{base_name(model) if is_name(model) else _name_of(model)}"

    def __call__(self, texts: list[str]) -> Any:
        """Vectors of shape (len(texts), dim), float32."""
        vectors = self._model.encode(
            texts, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True, **self._options
        )
        return np.asarray(vectors, np.float32)

    def __repr__(self) -> str:
        return f"SentenceTransformers({self.name!r})"


def _loaded(place: str | os.PathLike[str]) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"SentenceTransformers needs sentence-transformers: {install_hint('sentence-transformers')}"
        ) from error
    folder = local_folder(place)
    try:
        return SentenceTransformer(str(folder or place), local_files_only=True)
    except (OSError, ValueError) as error:
        raise refusal("sentence-transformers", place, _HOW, error) from error


def _name_of(model: Any) -> str:
    card = getattr(model, "model_card_data", None)
    return base_name(getattr(card, "base_model", None) or type(model).__name__)
