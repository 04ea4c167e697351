"""`Model2Vec`: static models, a table of token vectors that are averaged (extra "model2vec").

Tulkens and van Dongen, Model2Vec (2024): a sentence transformer distilled into a table. No PyTorch, and so quick that a
processor embeds tens of thousands of texts a second.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from nopokedb.distribution import install_hint
from nopokedb.embedding.embedder import without_zeros
from nopokedb.embedding.local import base_name, is_name, local_folder, refusal
from nopokedb.records import Vectors

_HOW = "give the path of a folder that StaticModel.save_pretrained made, or hand in a loaded StaticModel"


class Model2Vec:
    """A model of model2vec.

    Args:
        model: the path of a saved model, the name of one in the cache of Hugging Face, or a `StaticModel`.
        name: what collections remember it as; None: "model2vec:" and the last part of the path.

    Raises: ImportError without the library, `InvalidInputError` for a name whose files are not on this machine.
    """

    batch_size = 1024

    def __init__(self, model: Any, *, name: str | None = None) -> None:
        self._model = _loaded(model) if is_name(model) else model
        if not callable(getattr(self._model, "encode", None)):
            raise refusal("model2vec", type(model).__name__, _HOW)
        own = base_name(model) if is_name(model) else base_name(self._model.base_model_name or "StaticModel")
        self.name = name or f"model2vec:{own}"
        self._lock = threading.Lock()  # each call sets the tokenizer's truncation, and puts it back

    def __call__(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), dim), float32."""
        with self._lock:
            return without_zeros(self._model.encode(texts, use_multiprocessing=False))

    def __repr__(self) -> str:
        return f"Model2Vec({self.name!r})"


def _loaded(place: str | os.PathLike[str]) -> Any:
    try:
        from huggingface_hub import snapshot_download
        from model2vec import StaticModel
    except ImportError as error:
        raise ImportError(f"Model2Vec needs model2vec: {install_hint('model2vec')}") from error
    folder = local_folder(place)
    try:
        # Only a folder is handed on: with a name the library would look for it on the network.
        return StaticModel.from_pretrained(folder or snapshot_download(str(place), local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        raise refusal("model2vec", place, _HOW, error) from error
