"""`FastEmbed`: ONNX models run by fastembed (extra "fastembed")."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nopokedb.distribution import install_hint
from nopokedb.embedding.local import base_name, is_name, local_folder, refusal
from nopokedb.records import Vectors

_HOW = "give path= the folder with its files, or hand in a loaded TextEmbedding"


class FastEmbed:
    """A model of fastembed.

    Args:
        model: the name that fastembed knows it by (`TextEmbedding.add_custom_model` makes others known), or a
            `TextEmbedding`.
        path: the folder that holds the model's files. None: fastembed's cache (`cache_dir`, or the environment variable
            FASTEMBED_CACHE_PATH).
        name: what collections remember it as; None: "fastembed:" and the last part of the model's name.
        batch_size: texts that the model works on at a time.
        options: for `TextEmbedding`, such as `threads` or `cache_dir`.

    Raises: ImportError without the library, `InvalidInputError` for a name whose files are not on this machine.
    """

    def __init__(
        self,
        model: Any,
        *,
        path: str | os.PathLike[str] | None = None,
        name: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self.batch_size = batch_size
        self._model = _loaded(str(model), path, options) if is_name(model) else model
        if not callable(getattr(self._model, "embed", None)):
            raise refusal("fastembed", type(model).__name__, _HOW)
        own = model if is_name(model) else getattr(model, "model_name", type(model).__name__)
        self.name = name or f"fastembed:{base_name(own)}"

    def __call__(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), dim), float32."""
        return np.asarray(list(self._model.embed(texts, batch_size=self.batch_size)), np.float32)

    def __repr__(self) -> str:
        return f"FastEmbed({self.name!r})"


def _loaded(model: str, path: str | os.PathLike[str] | None, options: dict[str, Any]) -> Any:
    try:
        from fastembed import TextEmbedding
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf, NoSuchFile
    except ImportError as error:
        raise ImportError(f"FastEmbed needs fastembed: {install_hint('fastembed')}") from error
    folder = None
    if path is not None and (folder := local_folder(path)) is None:
        raise refusal("fastembed", path, _HOW, "there is no such folder")
    try:
        return TextEmbedding(
            model, specific_model_path=None if folder is None else str(folder), **options | {"local_files_only": True}
        )
    except (OSError, ValueError, NoSuchFile, InvalidProtobuf) as error:
        raise refusal("fastembed", folder or model, _HOW, error) from error
