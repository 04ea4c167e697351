"""How well vectors, text and both together find the one right document: MRR@10 and recall@10."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import debian, real, retrieval
from bench.conversation import serve
from bench.datasets import Floats
from bench.filters.scale import Scale
from bench.measure import say
from bench.peers.nopokedb_ours import settle
from bench.scale import BATCH_SIZE, K
from nopokedb import NoPokeDB

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The share of the vector in a weighted fusion."""

Ask = Callable[[Floats, str], list[Any]]


def _ways(db: Any) -> dict[str, Ask]:
    """Name -> how a query is asked."""
    ways: dict[str, Ask] = {
        "vector": lambda vector, text: db.query(vector, k=K),
        "BM25": lambda vector, text: db.query(text=text, k=K),
        "RRF": lambda vector, text: db.query(vector, text=text, k=K, fusion="rrf"),
    }
    for alpha in ALPHAS:
        ways[f"weighted, alpha {alpha:g}"] = lambda vector, text, alpha=alpha: db.query(  # type: ignore[misc]
            vector, text=text, k=K, fusion="weighted", alpha=alpha
        )
    return ways


def measure(corpus: Path, folder: Path, scale: Scale) -> dict[str, Any]:
    """The figures of each way, and what the set is like."""
    real.load_corpus(corpus)  # fetches the descriptions on first need
    relevance = retrieval.make(debian.packages(corpus / "debian"), scale.relevance_count)
    if not relevance.documents:
        raise RuntimeError("no package descriptions: this part needs Debian's apt")
    # Of a smoke test only the answers are stored: the whole set would take a minute.
    documents, answers = relevance.documents, relevance.answers
    if scale.relevance_count < len(documents) // 100:
        documents, answers = [documents[row] for row in answers], list(range(len(answers)))
    say(f"  {len(documents):,} documents, {len(relevance.queries):,} queries")
    vectors = real.embed_cached(corpus, "relevance", documents)
    query_vectors = real.embed_cached(corpus, "relevance-queries", relevance.queries)
    found: dict[str, dict[str, float]] = {}
    with NoPokeDB(vectors.shape[1], path=folder, space="cosine") as db:
        for start in range(0, len(documents), BATCH_SIZE):
            db.add_many(vectors[start : start + BATCH_SIZE], texts=documents[start : start + BATCH_SIZE])
        settle(db)
        for name, ask in _ways(db).items():
            ranked = [
                [hit["id"] for hit in ask(vector, text)]
                for vector, text in zip(query_vectors, relevance.queries, strict=True)
            ]
            found[name] = retrieval.score(ranked, answers)
            say(f"  {name}: MRR@10 {found[name]['mrr']:.4f}, recall@10 {found[name]['recall']:.4f}")
    return {
        "document_count": len(documents),
        "query_count": len(relevance.queries),
        "shared_words": relevance.shared_words,
        "ways": found,
    }


if __name__ == "__main__":
    CORPUS, FOLDER, SCALE = sys.argv[1:]
    serve(lambda: {"measure": lambda: measure(Path(CORPUS), Path(FOLDER), Scale(**json.loads(SCALE)))})
