"""Outliers: the records whose nearest others are farthest away on average.

The score is the weight of Angiulli and Pizzuti, "Fast Outlier Detection in High Dimensional Spaces" (2002), divided by
k. As in Bay and Schwabacher, "Mining Distance-Based Outliers in Near Linear Time" (2003), upper bounds rule out most
records: the mean distance to any k others is one, so the collection's quick search gives a bound for each record, and
only those whose bound is large enough are searched exactly. The answer is the exact one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nopokedb.insight.blocks import blocks
from nopokedb.reading import Reading
from nopokedb.records import Hit, Id, Vectors, id_order
from nopokedb.where import Where

_ASKED = 256
"""Quick questions of one call."""
_CHECKED = 256
"""Exact ones; fewer are compared row by row and take as long."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """A record that is far from its nearest others."""

    id: Id
    distance: float
    """Mean distance to its k nearest others, or to all others where there are fewer."""


def outliers_of(db: Reading, count: int, k: int, where: Where) -> list[Outlier]:
    """See `NoPokeDB.outliers`."""
    bounds: list[tuple[float, Id]] = []
    for block in blocks(db, where, _ASKED):
        means = _mean_distances(db, block.ids, block.vectors, k, where, None)
        bounds += [(mean, id_) for id_, mean in zip(block.ids, means, strict=True) if mean is not None]
    bounds.sort(key=lambda item: (-item[0], id_order(item[1])))
    found: list[Outlier] = []
    for at in range(0, len(bounds), _CHECKED):
        some = bounds[at : at + _CHECKED]
        if len(found) == count and some[0][0] < found[-1].distance:
            break  # nobody behind can be farther away than the last
        records = db.get_many([id_ for _, id_ in some], include=("vector",))
        there = [(record.id, record.vector) for record in records if record is not None and record.vector is not None]
        if not there:
            continue
        ids = [id_ for id_, _ in there]
        means = _mean_distances(db, ids, np.stack([vector for _, vector in there]), k, where, 1.0)
        found += [Outlier(id_, mean) for id_, mean in zip(ids, means, strict=True) if mean is not None]
        found = sorted(found, key=lambda item: (-item.distance, id_order(item.id)))[:count]
    return found


def _mean_distances(
    db: Reading, ids: list[Id], vectors: Vectors, k: int, where: Where, recall: float | None
) -> list[float | None]:
    """Of each record to its k nearest others, None where there is no other. Without a recall: to k others that are
    about the nearest."""
    # One more than asked for: the record itself is left out. (With dot products it may not be among its nearest.)
    answers = db.query_many(vectors, k + 1, where=where, target_recall=recall, include=())
    return [_mean(answer, id_, k) for id_, answer in zip(ids, answers, strict=True)]


def _mean(answer: list[Hit], id_: Id, k: int) -> float | None:
    others = [hit["distance"] for hit in answer if not (type(hit.id) is type(id_) and hit.id == id_)][:k]
    return float(np.mean(others)) if others else None
