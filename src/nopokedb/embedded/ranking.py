"""Queries that ask for more than the nearest vectors: by text, by examples, fused, varied, grouped.

Each question becomes a list of candidates, best first: by vector, by text, or both sides fused (fusion.py has the
formulas). What is taken of them is the same on every engine: ../ranking.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nopokedb.distances import Floats, scores_and_distances
from nopokedb.embedded.allowed import Allowed, FilteredRows
from nopokedb.embedded.nearest import nearest_rows
from nopokedb.embedded.read_path import ReadPath
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.text_view import TextAt, TextView
from nopokedb.engine import Query
from nopokedb.errors import RecordNotFoundError
from nopokedb.filters import Filter, group_keys, nodes_at
from nopokedb.fusion import reciprocal_rank, weighted
from nopokedb.metadata_json import decode_metadata
from nopokedb.ranking import SIDE_FACTOR, SIDE_LENGTH, AnyRanking, GroupKey
from nopokedb.records import Hit, Id, Vectors, id_order
from nopokedb.text_query import TextQuery

_SPARE_TIES = 16
"""Matches asked for beyond the wanted ones, so that the ids decide most ties at the end of a list."""


@dataclass(slots=True)
class Candidate:
    """A record that may be an answer."""

    stored: Stored
    score: float
    distance: float | None = None
    sides: tuple[float | None, int | None, float | None, int | None] | None = None
    """Of a hybrid query: vector score and rank, text score and rank."""


@dataclass(slots=True)
class _Side:
    """What one side found, best first: labels, scores, and where a vector was asked for, distances."""

    labels: list[int]
    scores: list[float]
    distances: list[float] | None = None


class Ranking(AnyRanking[Candidate]):
    """Answers one query on one snapshot."""

    def __init__(
        self,
        reads: ReadPath,
        take_snapshot: Callable[[], Snapshot],
        view: Callable[[], TextView],
        query: Query,
        record: Recorder | None = None,
    ) -> None:
        super().__init__(query, reads.space)
        self._reads = reads
        self._record = record
        self._view: TextView | None = None
        self._text: TextAt | None = None
        if query.texts:
            # The text index says which snapshot it equals, so that both sides answer of one state.
            self._view = view()
            self.snapshot, self._text = self._view.at(take_snapshot)
            self.lap("text index")
        else:
            self.snapshot = take_snapshot()
        self._allowed: Allowed = reads.allowed(self.snapshot, query.where, record)
        self._left_out: set[int] = set()
        self.vectors = query.vectors if not query.like else self._from_examples()

    def lap(self, stage: str) -> None:
        """What passed since the last stage belongs to this one."""
        if self._record is not None:
            self._record.lap(stage)

    # --- candidates ----------------------------------------------------------------------------------------

    def _candidates(
        self, vector: Floats | None, text: TextQuery | None, length: int, where: Filter | None
    ) -> list[Candidate]:
        allowed = self._allowed
        if where is not self._query.where:
            allowed = self._reads.allowed(self.snapshot, where)
            self.lap("filter")
        wanted = length + len(self._left_out)
        if vector is not None and text is not None:
            found = self._fused(vector, text, wanted, allowed)
        else:
            if vector is not None:
                side = self._by_vector(vector, wanted, allowed)
            else:
                assert text is not None
                side = self._by_text(text, wanted, allowed)
            distances: list[float] | list[None] = side.distances or [None] * len(side.labels)
            found = [
                Candidate(item, score, distance)
                for item, score, distance in zip(self._versions(side.labels), side.scores, distances, strict=True)
            ]
        # Equal scores are ordered by id, whatever ordered them so far.
        found.sort(key=lambda candidate: (-candidate.score, id_order(candidate.stored.id)))
        if self._left_out:
            found = [candidate for candidate in found if candidate.stored.label not in self._left_out]
        return found[:length]

    def _by_vector(self, vector: Floats, length: int, allowed: Allowed) -> _Side:
        """The nearest, with all that tie with the last."""
        space, snapshot = self._space, self.snapshot
        query, record = self._query, self._record
        rows = nearest_rows(space, snapshot, allowed, vector[None, :], length, query.ef, query.recall, record).rows
        values = self._reads.order_values(snapshot, vector, rows)
        order = np.argsort(values, kind="stable")
        if len(order) > length:
            order = order[: int(np.searchsorted(values[order], values[order[length - 1]], side="right"))]
        scores, distances = scores_and_distances(space, values[order].tolist())
        if self._query.max_distance is not None:
            count = sum(distance <= self._query.max_distance for distance in distances)
            order, scores, distances = order[:count], scores[:count], distances[:count]
        self.lap("distances")
        return _Side(snapshot.labels_of(rows[order]), scores, distances)

    def _by_text(self, text: TextQuery, length: int, allowed: Allowed) -> _Side:
        assert self._text is not None
        length += _SPARE_TIES
        if isinstance(allowed, FilteredRows):
            labels, scores = self._text.search(text, length, allowed.passes, allowed.labels())
        else:
            labels, scores = self._text.search(text, length)
        self.lap("text")
        return _Side(labels.tolist(), scores.tolist())

    def _fused(self, vector: Floats, text: TextQuery, wanted: int, allowed: Allowed) -> list[Candidate]:
        """The best of both sides as one ranking; records are read only for those that may be among them."""
        length = max(SIDE_FACTOR * wanted, SIDE_LENGTH)
        near, matching = self._by_vector(vector, length, allowed), self._by_text(text, length, allowed)
        assert near.distances is not None
        vector_scores = dict(zip(near.labels, near.scores, strict=True))
        distances = dict(zip(near.labels, near.distances, strict=True))
        text_scores = dict(zip(matching.labels, matching.scores, strict=True))
        # Reciprocal ranks need no distances but those of the hits; the others have a use for all.
        needs_all = self._query.alpha is not None or self._query.max_distance is not None
        if needs_all:
            self._add_distances(vector, matching.labels, vector_scores, distances)
            self.lap("distances")
        if self._query.max_distance is not None:
            text_scores = {label: score for label, score in text_scores.items() if label in distances}
        if self._query.alpha is None:
            fused = reciprocal_rank([near.labels, list(text_scores)])
        else:
            minimum = -1.0 if self._space == "cosine" else None
            fused = weighted(vector_scores, text_scores, self._query.alpha, vector_minimum=minimum)
        best = list(fused.items())  # best first
        if len(best) > wanted:
            limit = best[wanted - 1][1]
            best = [entry for entry in best if entry[1] >= limit]
        vector_ranks = {label: rank for rank, label in enumerate(near.labels, 1)}
        text_ranks = {label: rank for rank, label in enumerate(text_scores, 1)}
        self.lap("fusion")
        if not needs_all:
            self._add_distances(vector, [label for label, _ in best], vector_scores, distances)
            self.lap("distances")
        return [
            Candidate(
                item,
                score,
                distances[label],
                (vector_scores[label], vector_ranks.get(label), text_scores.get(label), text_ranks.get(label)),
            )
            for item, (label, score) in zip(self._versions([label for label, _ in best]), best, strict=True)
        ]

    def _add_distances(
        self, vector: Floats, labels: list[int], scores: dict[int, float], distances: dict[int, float]
    ) -> None:
        """Exact distances of those that only the text found, but for what is too far."""
        labels = [label for label in labels if label not in distances]
        if not labels:
            return
        rows = self.snapshot.rows_of(labels)
        values = self._reads.order_values(self.snapshot, vector, rows)
        limit = self._query.max_distance
        for label, score, distance in zip(labels, *scores_and_distances(self._space, values.tolist()), strict=True):
            if limit is None or distance <= limit:
                scores[label], distances[label] = score, distance

    def _versions(self, labels: list[int]) -> list[Stored]:
        found = self._reads.versions(self.snapshot, labels)
        self.lap("metadata")
        return found

    # --- parts of records ------------------------------------------------------------------------------------------

    def _examples(self, ids: Sequence[Id]) -> Vectors:
        labels = self._reads.find(self.snapshot, ids)
        for id_, label in zip(ids, labels, strict=True):
            if label is None:
                raise RecordNotFoundError(f"expected a record with id {id_!r} as an example, found none")
        known = [label for label in labels if label is not None]
        self._left_out.update(known)
        return self.snapshot.verified_vectors(self.snapshot.rows_of(known))

    def _stored_vectors(self, candidates: Sequence[Candidate]) -> Vectors:
        return self.snapshot.verified_vectors(np.array([item.stored.row for item in candidates], np.int64))

    def _group_keys(self, candidates: Sequence[Candidate]) -> list[list[GroupKey]]:
        path = self._query.group_by
        return [
            group_keys([item.stored.id] if path is None else nodes_at(decode_metadata(item.stored.metadata), path))
            for item in candidates
        ]

    # --- hits ----------------------------------------------------------------------------------------------

    def _hits(self, candidates: Sequence[Candidate], text: TextQuery | None) -> list[Hit]:
        query = self._query
        include = query.include
        wanted = "text" in include or query.highlight
        stored = [candidate.stored for candidate in candidates]
        texts = self._reads.reader.texts(stored) if wanted else {}
        marked: list[str] = []
        if query.highlight and text is not None and self._view is not None:
            marked = self._view.highlight(text, [texts.get(item.label, "") for item in stored])
        vectors = None
        if "vector" in include and stored:
            vectors = self._stored_vectors(candidates)
        hits = []
        for at, candidate in enumerate(candidates):
            hit = Hit(id=candidate.stored.id)
            if "metadata" in include:
                hit["metadata"] = decode_metadata(candidate.stored.metadata)
            hit["score"], hit["distance"] = candidate.score, candidate.distance
            if candidate.sides is not None:
                hit["vector_score"], hit["vector_rank"], hit["text_score"], hit["text_rank"] = candidate.sides
            if "text" in include:
                hit["text"] = texts.get(candidate.stored.label)
            if "vector" in include and vectors is not None:
                hit["vector"] = vectors[at].tolist()
            if marked:
                hit["highlight"] = marked[at]
            hits.append(hit)
        self.lap("hits")
        return hits
