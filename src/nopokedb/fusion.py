"""Combining answers: several rankings into one, and a ranking into a varied one. Pure functions over numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter

import numpy as np
import numpy.typing as npt

RECIPROCAL_RANK_K = 60
"""The constant of the paper; it was found not to be critical."""


def reciprocal_rank(rankings: Sequence[Sequence[int]], k: float = RECIPROCAL_RANK_K) -> dict[int, float]:
    """Reciprocal rank fusion: score(x) = sum over the rankings that contain x of 1 / (k + rank of x), ranks from 1.

    Only ranks count, so rankings of any scale may be mixed. The dict is ordered best first; ties stay in the order in
    which the rankings, one after the other, name them. A label that a ranking names twice counts at its first place.

    Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
    SIGIR 2009.
    """
    if not k >= 0:
        raise ValueError(f"expected k of at least 0, got {k}")
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, label in enumerate(dict.fromkeys(ranking), 1):
            scores[label] = scores.get(label, 0.0) + 1.0 / (k + rank)
    return _best_first(scores)


def weighted(
    vector_scores: Mapping[int, float],
    text_scores: Mapping[int, float],
    alpha: float,
    *,
    vector_minimum: float | None = None,
) -> dict[int, float]:
    """Convex combination: score(x) = alpha * v(x) + (1 - alpha) * t(x); alpha 1 is vectors only, 0 is text only.

    Both parts are brought to [0, 1] by (score - minimum) / (best score - minimum). The minimum is the least score that
    there can be, not the least that was observed, so the worst candidate does not become 0 by chance: 0 for BM25;
    `vector_minimum`, which is -1 for a cosine. Squared distances and dot products have no least score: with None the
    observed one takes its place. A label without a text score matches no word: t(x) = 0. One without a vector
    score counts as v(x) = 0, so give the scores of all candidates.

    Where all scores equal the minimum nothing is told apart: all are 1 if the minimum was observed (a single candidate
    is the best one), all are 0 if it is the least there can be. The dict is ordered best first; ties stay in the
    order of `vector_scores`, then of `text_scores`.

    Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", 2022 (ACM TOIS 42(1), 2023): TM2C2.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"expected alpha from 0 (text only) to 1 (vectors only), got {alpha}")
    vectors = _scaled(vector_scores, vector_minimum)
    texts = _scaled(text_scores, 0.0)
    labels = dict.fromkeys((*vector_scores, *text_scores))
    return _best_first(
        {label: alpha * vectors.get(label, 0.0) + (1 - alpha) * texts.get(label, 0.0) for label in labels}
    )


def maximal_marginal_relevance(
    relevance: npt.ArrayLike, vectors_unit: npt.NDArray[np.float32], k: int, diversity: float
) -> list[int]:
    """Positions of up to k of n candidates, chosen one by one so that each is relevant and unlike those before it:
    the next is argmax of (1 - diversity) * relevance(x) - diversity * max over the chosen y of similarity(x, y).

    `relevance` has shape (n,) and should be on the scale of a cosine; `vectors_unit` has shape (n, dim) and rows of
    length 1, so that similarity is their dot product. diversity 0 orders by relevance alone; 1 asks only for
    difference, after a first choice by relevance. Ties go to the smaller position. Takes O(k * n * dim).

    Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries", SIGIR 1998 (their lambda is 1 - diversity).
    """
    scores = np.asarray(relevance, np.float64)
    count = len(scores)
    if scores.shape != (count,) or vectors_unit.ndim != 2 or len(vectors_unit) != count:
        raise ValueError(
            f"expected one relevance and one vector per candidate, got shapes {scores.shape} and {vectors_unit.shape}"
        )
    if not 0 <= diversity <= 1:
        raise ValueError(f"expected diversity from 0 (relevance only) to 1 (difference only), got {diversity}")
    if diversity == 0:
        return [int(at) for at in np.argsort(-scores, kind="stable")[:k]]
    chosen: list[int] = []
    closest = np.full(count, -np.inf)  # the largest similarity to a chosen one
    left = np.ones(count, np.bool_)
    while len(chosen) < min(k, count):
        value = (1 - diversity) * scores - diversity * closest if chosen else scores
        best = int(np.argmax(np.where(left, value, -np.inf)))
        if not left[best]:  # all that are left have the value -Inf
            best = int(np.argmax(left))
        chosen.append(best)
        left[best] = False
        np.maximum(closest, vectors_unit @ vectors_unit[best], out=closest)
    return chosen


def varied(
    scores: Sequence[float], vectors: npt.NDArray[np.float32], k: int, diversity: float, *, cosine: bool
) -> list[int]:
    """Positions of up to k of n candidates by maximal marginal relevance, in the order in which they are chosen.

    `vectors` has shape (n, dim), as stored. Scores that are no cosines are brought onto that scale, from 0 for the
    worst candidate to 1 for the best.
    """
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    unit = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0).astype(np.float32)
    relevance = np.array(scores)
    if not cosine:
        width = relevance.max() - relevance.min()
        relevance = (relevance - relevance.min()) / width if width > 0 else np.ones(len(relevance))
    return maximal_marginal_relevance(relevance, unit, k, diversity)


def _best_first(scores: dict[int, float]) -> dict[int, float]:
    return dict(sorted(scores.items(), key=itemgetter(1), reverse=True))  # stable even so: ties stay in order


def _scaled(scores: Mapping[int, float], minimum: float | None) -> dict[int, float]:
    """The scores brought to [0, 1], from the minimum (None: the least of them) to the best."""
    if not scores:
        return {}
    least = min(scores.values()) if minimum is None else minimum
    width = max(scores.values()) - least
    if not width > 0:
        return dict.fromkeys(scores, 1.0 if minimum is None else 0.0)
    return {label: max(0.0, (score - least) / width) for label, score in scores.items()}
