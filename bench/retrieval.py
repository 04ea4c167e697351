"""A retrieval set with real relevance: a package's one-line description is the query, its long one the answer.

The document loses the package's name and the one-line description, and its first sentence where that repeats the
query, so that an answer has to be found by what it says. Families of packages that share their first paragraph, such
as libraries with development files and documentation, are represented by the one with the shortest name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bench.corpus import SENTENCE_END
from bench.debian import Package

SHORTEST_DOCUMENT = 80
FEWEST_QUERY_WORDS = 3
REPEATED = 0.6
"""A first sentence that holds this share of the query's words repeats it."""
# fmt: off
COMMON = frozenset((
    "a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "that", "the", "this",
    "to", "with",
))
# fmt: on


@dataclass(frozen=True)
class Relevance:
    """Documents, queries, and for each query the one document (row) that answers it."""

    documents: list[str]
    queries: list[str]
    answers: list[int]
    shared_words: float
    """The mean share of a query's words that its document holds."""


def words_of(text: str) -> set[str]:
    """Lower-case words, without those that any sentence may have."""
    return set(re.findall(r"\w+", text.lower())) - COMMON


def _without(text: str, phrase: str) -> str:
    """`text` without `phrase` wherever it stands as whole words."""
    pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
    return " ".join(re.sub(pattern, " ", text, flags=re.IGNORECASE).split())


def document_of(package: Package, query: str) -> str:
    """The long description without what would give the answer away."""
    text = _without(_without(package.long, package.short), package.name)
    first, *rest = SENTENCE_END.split(text)
    query_words = words_of(query)
    if len(query_words & words_of(first)) >= REPEATED * len(query_words):
        return " ".join(rest)
    return text


def _representatives(packages: Iterable[Package]) -> list[Package]:
    """One package for each first paragraph and for each one-line description."""
    by_paragraph: dict[str, Package] = {}
    by_short: dict[str, Package] = {}
    for package in sorted(packages, key=lambda each: (len(each.name), each.name)):
        if package.paragraphs:
            by_paragraph.setdefault(package.paragraphs[0], package)
    for package in by_paragraph.values():
        by_short.setdefault(package.short.lower(), package)
    return sorted(by_short.values(), key=lambda each: each.name)


def make(packages: Iterable[Package], query_count: int, seed: int = 3) -> Relevance:
    """The set: all documents that are left, and some of their queries."""
    pairs: dict[str, str] = {}
    for package in _representatives(packages):
        query = _without(package.short, package.name)
        document = document_of(package, query)
        if len(document) >= SHORTEST_DOCUMENT and len(words_of(query)) >= FEWEST_QUERY_WORDS:
            pairs.setdefault(document, query)
    documents = list(pairs)
    rows = random.Random(seed).sample(range(len(documents)), min(query_count, len(documents)))
    queries = [pairs[documents[row]] for row in rows]
    shares = [
        len(words_of(query) & words_of(documents[row])) / len(words_of(query))
        for query, row in zip(queries, rows, strict=True)
    ]
    return Relevance(documents, queries, rows, sum(shares) / max(len(shares), 1))


def score(ranked: list[list[int]], answers: list[int]) -> dict[str, float]:
    """MRR@10 and recall@10 of ranked rows, one list a query."""
    ranks = [row.index(answer) + 1 if answer in row else 0 for row, answer in zip(ranked, answers, strict=True)]
    return {
        "mrr": sum(1 / rank for rank in ranks if rank) / len(ranks),
        "recall": sum(rank > 0 for rank in ranks) / len(ranks),
    }
