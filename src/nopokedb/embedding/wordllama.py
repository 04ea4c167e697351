"""The model that ships inside a wheel (extra "embed")."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.distribution import install_hint
from nopokedb.embedding.embedder import Model, without_zeros


def load_wordllama() -> Model:
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
        rows = without_zeros(model.embed(texts))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return embed
