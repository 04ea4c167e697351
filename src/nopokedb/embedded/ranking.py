"""Queries that ask for more than the nearest vectors: by text, by examples, fused, varied, grouped.

Each question becomes a list of candidates, best first: by vector, by text, or both sides fused (fusion.py has the
formulas). Examples, diversity and groups only change which candidates are asked for and which of them are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nopokedb.embedded.allowed import Allowed, FilteredRows
from nopokedb.embedded.nearest import nearest_rows
from nopokedb.embedded.read_path import ReadPath
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.search.exact import Floats, prepare_queries, scores_and_distances
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.text_view import TextAt, TextView
from nopokedb.engine import Answer, Query
from nopokedb.errors import InvalidInputError, RecordNotFoundError
from nopokedb.filters import And, Test, elements_of, nodes_at, typed
from nopokedb.fusion import maximal_marginal_relevance, reciprocal_rank, weighted
from nopokedb.records import MAX_K, MIN_COSINE_NORM, Group, Hit, Id, decode_metadata, id_order
from nopokedb.text_query import TextQuery

_SIDE_LENGTH = 50
"""Candidates that each side of a hybrid query brings at least: rank 50 weighs 0.55 of rank 1 under reciprocal ranks."""
_SIDE_FACTOR = 4
_POOL_FACTOR = 5
"""Candidates per hit among which a varied answer is chosen; LangChain's default is the same ratio."""
_POOL_LENGTH = 50
_GROUP_LENGTH = 4_096
"""Groups that are not full after so many candidates are filled by a filter on their values."""


@dataclass(slots=True)
class Candidate:
    """A record that may be an answer."""

    stored: Stored
    score: float
    distance: float | None = None
    vector_score: float | None = None
    vector_rank: int | None = None
    text_score: float | None = None
    text_rank: int | None = None


class Ranking:
    """Answers one query on one snapshot."""

    def __init__(
        self,
        reads: ReadPath,
        take_snapshot: Callable[[], Snapshot],
        view: Callable[[], TextView],
        query: Query,
        record: Recorder | None = None,
    ) -> None:
        self._reads = reads
        self._record = record
        self._query = query
        self._view: TextView | None = None
        self._text: TextAt | None = None
        if query.texts:
            # The text index says which snapshot it equals, so that both sides answer of one state.
            self._view = view()
            self.snapshot, self._text = self._view.at(take_snapshot)
            self._lap("text index")
        else:
            self.snapshot = take_snapshot()
        self._allowed: Allowed = reads.allowed(self.snapshot, query.where, record)
        self._left_out: set[int] = set()
        self._vectors = query.vectors if not query.like else self._from_examples()

    def answers(self) -> list[Answer]:
        """One answer per question."""
        query = self._query
        texts: list[TextQuery | None] = [*query.texts] if query.texts else [None]
        count = len(texts) if self._vectors is None else len(self._vectors)
        texts = texts * count if len(texts) == 1 else texts
        vectors: list[Floats | None] = [None] * count if self._vectors is None else [*self._vectors]
        return [self._answer(vector, text) for vector, text in zip(vectors, texts, strict=True)]

    def _lap(self, stage: str) -> None:
        """What passed since the last stage belongs to this one."""
        if self._record is not None:
            self._record.lap(stage)

    def _answer(self, vector: Floats | None, text: TextQuery | None) -> Answer:
        query = self._query
        if query.group_size:
            return self._groups(vector, text)
        if query.diversity is not None:
            pool = self._candidates(vector, text, min(max(_POOL_FACTOR * query.k, _POOL_LENGTH), MAX_K))
            return self._hits(self._varied(pool), text)
        return self._hits(self._candidates(vector, text, query.k), text)

    # --- candidates ----------------------------------------------------------------------------------------

    def _candidates(
        self, vector: Floats | None, text: TextQuery | None, length: int, allowed: Allowed | None = None
    ) -> list[Candidate]:
        """The best `length` records, best first, examples left out."""
        allowed = allowed or self._allowed
        wanted = length + len(self._left_out)
        if vector is None:
            assert text is not None
            found = self._by_text(text, wanted, allowed)
        elif text is None:
            found = self._by_vector(vector, wanted, allowed)
        else:
            found = self._fused(vector, text, max(_SIDE_FACTOR * wanted, _SIDE_LENGTH), allowed)
        if self._left_out:
            found = [candidate for candidate in found if candidate.stored.label not in self._left_out]
        return found[:length]

    def _by_vector(self, vector: Floats, length: int, allowed: Allowed) -> list[Candidate]:
        space, snapshot = self._reads.space, self.snapshot
        query, record = self._query, self._record
        rows = nearest_rows(space, snapshot, allowed, vector[None, :], length, query.ef, query.recall, record)[0]
        stored, ordered, _, _ = self._reads.ordered(snapshot, vector, rows, length, record)
        scores, distances = scores_and_distances(space, ordered)
        return [
            Candidate(item, score, distance)
            for item, score, distance in zip(stored, scores, distances, strict=True)
            if self._query.max_distance is None or distance <= self._query.max_distance
        ]

    def _by_text(self, text: TextQuery, length: int, allowed: Allowed) -> list[Candidate]:
        assert self._text is not None
        if isinstance(allowed, FilteredRows):
            labels, scores = self._text.search(text, length, allowed.passes, allowed.labels())
        else:
            labels, scores = self._text.search(text, length)
        stored = self._reads.versions(labels.tolist())
        found = [Candidate(item, score) for item, score in zip(stored, scores.tolist(), strict=True)]
        found.sort(key=lambda candidate: (-candidate.score, id_order(candidate.stored.id)))
        self._lap("text")
        return found

    def _fused(self, vector: Floats, text: TextQuery, length: int, allowed: Allowed) -> list[Candidate]:
        """Both sides, each with its best `length`, as one ranking."""
        near, matching = self._by_vector(vector, length, allowed), self._by_text(text, length, allowed)
        found = {candidate.stored.label: candidate for candidate in near}
        for rank, candidate in enumerate(near, 1):
            candidate.vector_score, candidate.vector_rank = candidate.score, rank
        self._lap("fusion")
        matching = self._with_distances(vector, matching, found)
        self._lap("distances")
        for rank, candidate in enumerate(matching, 1):
            known = found.setdefault(candidate.stored.label, candidate)
            known.text_score, known.text_rank = candidate.text_score, rank
        if self._query.alpha is None:
            fused = reciprocal_rank(
                [[candidate.stored.label for candidate in near], [candidate.stored.label for candidate in matching]]
            )
        else:
            fused = weighted(
                {label: candidate.vector_score or 0.0 for label, candidate in found.items()},
                {candidate.stored.label: candidate.text_score or 0.0 for candidate in matching},
                self._query.alpha,
                vector_minimum=-1.0 if self._reads.space == "cosine" else None,
            )
        for label, candidate in found.items():
            candidate.score = fused[label]
        ranked = sorted(found.values(), key=lambda candidate: (-candidate.score, id_order(candidate.stored.id)))
        self._lap("fusion")
        return ranked

    def _with_distances(self, vector: Floats, matching: list[Candidate], near: dict[int, Candidate]) -> list[Candidate]:
        """What the text found, with exact distances, without what is too far."""
        for candidate in matching:
            candidate.text_score = candidate.score
        others = [candidate for candidate in matching if candidate.stored.label not in near]
        if others:
            rows = np.array([candidate.stored.row for candidate in others], np.int64)
            values = self._reads.order_values(self.snapshot, vector, rows)
            scores, distances = scores_and_distances(self._reads.space, values.tolist())
            for candidate, score, distance in zip(others, scores, distances, strict=True):
                candidate.vector_score, candidate.distance = score, distance
        limit = self._query.max_distance
        if limit is None:
            return matching
        return [
            candidate
            for candidate in matching
            if candidate.stored.label in near or (candidate.distance is not None and candidate.distance <= limit)
        ]

    # --- examples ------------------------------------------------------------------------------------------

    def _from_examples(self) -> Floats:
        """The mean of the vectors of `like`, moved away from the mean of those of `unlike` by their difference."""
        like, unlike = self._mean(self._query.like), None
        if self._query.unlike:
            unlike = self._mean(self._query.unlike)
        wide = like if unlike is None else 2.0 * like - unlike
        if self._reads.space == "cosine" and not np.linalg.norm(wide) > MIN_COSINE_NORM:
            raise InvalidInputError("expected examples that point somewhere, but their vectors cancel out")
        return wide.astype(np.float32)[None, :]

    def _mean(self, ids: Sequence[Id]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        labels = self._reads.find(self.snapshot, ids)
        for id_, label in zip(ids, labels, strict=True):
            if label is None:
                raise RecordNotFoundError(f"expected a record with id {id_!r} as an example, found none")
        known = [label for label in labels if label is not None]
        self._left_out.update(known)
        rows = np.array([item.row for item in self._reads.versions(known)], np.int64)
        vectors = self._reads.verified_vectors(self.snapshot, rows)
        mean: np.ndarray[tuple[int], np.dtype[np.float64]] = prepare_queries(self._reads.space, vectors).mean(
            axis=0, dtype=np.float64
        )
        return mean

    # --- variety and groups --------------------------------------------------------------------------------

    def _varied(self, pool: list[Candidate]) -> list[Candidate]:
        """k candidates by maximal marginal relevance, in the order in which they are chosen."""
        assert self._query.diversity is not None
        if not pool:
            return []
        rows = np.array([candidate.stored.row for candidate in pool], np.int64)
        vectors = self._reads.verified_vectors(self.snapshot, rows).astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0).astype(np.float32)
        relevance = np.array([candidate.score for candidate in pool])
        if self._reads.space != "cosine" or self._query.texts:
            width = relevance.max() - relevance.min()  # onto the scale of a cosine
            relevance = (relevance - relevance.min()) / width if width > 0 else np.ones(len(pool))
        chosen = maximal_marginal_relevance(relevance, unit, self._query.k, self._query.diversity)
        self._lap("diversity")
        return [pool[at] for at in chosen]

    def _groups(self, vector: Floats | None, text: TextQuery | None) -> list[Group]:
        """The k best groups, each with its best hits."""
        query = self._query
        length = min(4 * query.k * query.group_size, MAX_K)
        while True:
            found = self._candidates(vector, text, length)
            groups: dict[tuple[str, object], list[Candidate]] = {}
            for candidate in found:
                for key in self._group_keys(candidate.stored):
                    members = groups.setdefault(key, [])
                    if len(members) < query.group_size:
                        members.append(candidate)
            best = list(groups)[: query.k]  # in the order of their best hits
            full = len(best) == query.k and all(len(groups[key]) == query.group_size for key in best)
            if full or len(found) < length or length == MAX_K:
                break
            if len(best) == query.k and length >= _GROUP_LENGTH:
                self._fill(vector, text, {key: groups[key] for key in best})
                break
            length = min(4 * length, MAX_K)
        self._lap("groups")
        return [Group(key[1], self._hits(groups[key], text)) for key in best]  # type: ignore[arg-type]

    def _fill(
        self, vector: Floats | None, text: TextQuery | None, groups: dict[tuple[str, object], list[Candidate]]
    ) -> None:
        """Complete groups whose further members are far behind, each by a query of its own."""
        query = self._query
        for key, members in groups.items():
            if len(members) == query.group_size:
                continue
            test = Test(query.group_by, "any_of", (key[1],))
            where = test if query.where is None else And((query.where, test))
            allowed = self._reads.allowed(self.snapshot, where)
            self._lap("filter")
            members[:] = self._candidates(vector, text, query.group_size, allowed)

    def _group_keys(self, stored: Stored) -> list[tuple[str, object]]:
        """The values of the field in this record; null where it has none, nothing where there are only objects."""
        path = self._query.group_by
        nodes = [stored.id] if path is None else nodes_at(decode_metadata(stored.metadata), path)
        if not nodes:
            return [("null", None)]
        return list(dict.fromkeys(found for element in elements_of(nodes) if (found := typed(element)) is not None))

    # --- hits ----------------------------------------------------------------------------------------------

    def _hits(self, candidates: list[Candidate], text: TextQuery | None) -> list[Hit]:
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
            rows = np.array([item.row for item in stored], np.int64)
            vectors = self._reads.verified_vectors(self.snapshot, rows)
        hits = []
        for at, candidate in enumerate(candidates):
            hit = Hit(id=candidate.stored.id)
            if "metadata" in include:
                hit["metadata"] = decode_metadata(candidate.stored.metadata)
            hit["score"], hit["distance"] = candidate.score, candidate.distance
            if text is not None and candidate.distance is not None:
                hit["vector_score"], hit["vector_rank"] = candidate.vector_score, candidate.vector_rank
                hit["text_score"], hit["text_rank"] = candidate.text_score, candidate.text_rank
            if "text" in include:
                hit["text"] = texts.get(candidate.stored.label)
            if "vector" in include and vectors is not None:
                hit["vector"] = vectors[at].tolist()
            if marked:
                hit["highlight"] = marked[at]
            hits.append(hit)
        self._lap("hits")
        return hits
