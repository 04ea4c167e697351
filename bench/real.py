"""Real embeddings, cached below `.bench/corpus`.

Where Debian's texts are not to be had, or are too few, made vectors take their place, and the result says so.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import corpus
from bench.datasets import EMBEDDING_LIKE_RECIPE, Floats, embedding_like
from bench.embedding import DIM, Embedder
from bench.measure import say

QUERY_COUNT = 1_000
"""Queries kept back from the corpus; a run uses the first of them."""
SAMPLE = 1_000


@dataclass(frozen=True)
class Records:
    """Vectors (n, 256), the text of each, held-out queries, and what they are in words."""

    vectors: Floats
    texts: list[str]
    queries: Floats
    recipe: str


def load_corpus(folder: Path) -> corpus.Corpus:
    """The corpus, collected on first need and cached below `folder` as one text a line."""
    cached = folder / "corpus.json"
    if not cached.exists():
        say("collecting texts")
        folder.mkdir(parents=True, exist_ok=True)
        found = corpus.collect(folder / "debian", QUERY_COUNT)
        if not found.texts:
            return found
        (folder / "texts.txt").write_text("\n".join(found.texts))
        (folder / "queries.txt").write_text("\n".join(found.queries))
        cached.write_text(json.dumps(found.counts, indent=2))  # last: it says that the others are whole
    lines = [(folder / name).read_text().split("\n") for name in ("texts.txt", "queries.txt")]
    return corpus.Corpus(lines[0], lines[1], json.loads(cached.read_text()))


def embed_cached(folder: Path, name: str, texts: list[str]) -> Floats:
    """Unit vectors of `texts` from `folder`, from a longer file of the same texts if there is one."""
    # The first texts stand for all: a corpus that was collected anew is in another order.
    name = f"{name}-{zlib.crc32(' '.join(texts[:SAMPLE]).encode()):08x}"
    known = {int(path.stem.rpartition("-")[2]): path for path in folder.glob(f"{name}-*.npy")}
    length = min((length for length in known if length >= len(texts)), default=None)
    if length is not None:
        vectors: Floats = np.load(known[length], mmap_mode="r", allow_pickle=False)[: len(texts)]
        return vectors
    say(f"embedding {len(texts):,} texts")
    made = Embedder()(texts)
    unfinished = folder / f"unfinished-{name}.npy"
    np.save(unfinished, made)
    unfinished.rename(folder / f"{name}-{len(texts)}.npy")
    return made


def load(folder: Path, count: int, query_count: int) -> Records:
    """`count` records and `query_count` queries that are not among them."""
    found = load_corpus(folder)
    texts = found.texts[:count]
    if not texts:
        made = embedding_like(count, DIM, query_count)
        return Records(made.vectors, [f"document {row}" for row in range(count)], made.queries, EMBEDDING_LIKE_RECIPE)
    vectors = embed_cached(folder, "texts", texts)
    queries = embed_cached(folder, "queries", found.queries)[:query_count]
    sources = ", ".join(f"{number:,} {name}" for name, number in found.counts.items() if number)
    recipe = f"{len(texts):,} of {len(found.texts):,} distinct texts ({sources}), embedded by wordllama"
    if (missing := count - len(texts)) > 0:
        # Deterministic and labelled: vectors that no text has are not passed off as real ones.
        made = embedding_like(missing, DIM, 1)
        vectors = np.concatenate([vectors, made.vectors])
        texts += [f"document {row}" for row in range(missing)]
        recipe += f"; filled up with {missing:,} made vectors ({EMBEDDING_LIKE_RECIPE})"
    return Records(vectors, texts, queries, recipe)
