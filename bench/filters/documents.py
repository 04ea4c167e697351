"""The documents of the text part on disk, for every child process to read.

They are the long descriptions of Debian's packages, filled up with other texts of the corpus; queries are packages'
one-line descriptions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import debian, real
from bench.datasets import Floats
from bench.filters import records

QUERY_COUNT = 200
GROUPS = 10


@dataclass(frozen=True)
class Documents:
    """What is stored, what is asked, and the vectors of both."""

    texts: list[str]
    vectors: Floats
    queries: list[str]
    query_vectors: Floats

    def metadatas(self) -> list[dict[str, object]]:
        """Each record's title and one of ten groups."""
        return [{"title": text[: records.TITLE_LENGTH], "tenth": row % GROUPS} for row, text in enumerate(self.texts)]


def make(corpus_folder: Path, folder: Path, count: int) -> None:
    """Writes the documents into `folder`, unless they are there. RuntimeError where Debian's apt is not to be had."""
    if (folder / "texts.txt").exists():
        return
    corpus = real.load_corpus(corpus_folder)
    packages = debian.packages(corpus_folder / "debian")
    if not packages:
        raise RuntimeError("no package descriptions: this part needs Debian's apt")
    texts = list(dict.fromkeys([*(package.long for package in packages if package.long), *corpus.texts]))[:count]
    rng = random.Random(2)
    rng.shuffle(texts)
    queries = rng.sample(sorted({package.short for package in packages}), QUERY_COUNT)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", real.embed_cached(corpus_folder, "documents", texts))
    np.save(folder / "query-vectors.npy", real.embed_cached(corpus_folder, "shorts", queries))
    (folder / "queries.txt").write_text("\n".join(queries))
    (folder / "texts.txt").write_text("\n".join(texts))  # last: the others are whole


def read(folder: Path) -> Documents:
    """Reads what `make` wrote."""
    texts, queries = ((folder / name).read_text().split("\n") for name in ("texts.txt", "queries.txt"))
    vectors, query_vectors = (np.load(folder / name) for name in ("vectors.npy", "query-vectors.npy"))
    return Documents(texts, vectors, queries, query_vectors)
