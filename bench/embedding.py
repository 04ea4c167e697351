"""Embeds texts with the small model that ships inside the wheel of `wordllama`, 256 dimensions, offline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.datasets import Floats
from bench.measure import say

DIM = 256
BATCH = 16_384


class Embedder:
    """The mean of the word pieces' static vectors, at length 1. Nothing is downloaded and nothing written."""

    name = "wordllama"

    def __init__(self) -> None:
        import wordllama

        # Its package turns on logging for the whole program; the loader of another one then talks about processors.
        logging.getLogger("faiss").setLevel(logging.WARNING)

        # The wheel keeps both files in its own folder, where only its cache lookup finds the tokenizer.
        package = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(dim=DIM, cache_dir=package, disable_download=True)

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of shape (len(texts), 256). A text without a known word becomes the first axis."""
        rows = np.empty((len(texts), DIM), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            rows[start : start + len(part)] = self._model.embed(part)
            if start and start % (10 * BATCH) == 0:
                say(f"  embedded {start:,} of {len(texts):,}")
        rows[~rows.any(axis=1), 0] = 1.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
