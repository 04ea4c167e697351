"""Answers to queries: the nearest vectors, the best texts, both fused, varied or grouped.

The formulas are those of fusion.py; what the two sides bring is as long as with the embedded engine, so both give the
same answers. All statements of a question run in one transaction and see one state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from nopokedb.distances import Floats, scores_and_distances
from nopokedb.embedded.search.highlight import Highlighter
from nopokedb.engine import Query
from nopokedb.errors import RecordNotFoundError
from nopokedb.filters import Filter, group_keys, nodes_at
from nopokedb.fusion import reciprocal_rank, weighted
from nopokedb.metadata_json import decode_metadata
from nopokedb.postgres import text as text_search
from nopokedb.postgres.codec import id_of, key_of, unescape, vectors_of
from nopokedb.postgres.connections import Connection
from nopokedb.postgres.filter_sql import condition_of
from nopokedb.postgres.nearest import Nearest
from nopokedb.postgres.reading import PART_COLUMNS
from nopokedb.postgres.schema import Collection
from nopokedb.ranking import SIDE_FACTOR, SIDE_LENGTH, AnyRanking, GroupKey
from nopokedb.records import Hit, Id, Vectors
from nopokedb.text_query import TextQuery


@dataclass(slots=True)
class Candidate:
    """A record that may be an answer."""

    key: bytes
    score: float
    distance: float | None = None
    sides: tuple[float | None, int | None, float | None, int | None] | None = None
    """Of a hybrid query: vector score and rank, text score and rank."""
    parts: dict[str, Any] = field(default_factory=dict)
    """Columns that are read already."""


@dataclass(slots=True)
class _Side:
    """What one side found, best first."""

    keys: list[bytes]
    scores: list[float]
    distances: list[float] | None = None


class Ranking(AnyRanking[Candidate]):
    """Answers one query on one connection, which is in a transaction where there is more than one statement."""

    def __init__(
        self,
        connection: Connection,
        collection: Collection,
        nearest: Nearest,
        indexer: Callable[[], text_search.Indexer],
        query: Query,
    ) -> None:
        super().__init__(query, collection.settings.space)
        self._connection = connection
        self.collection = collection
        self._nearest = nearest
        self._indexer = indexer
        self.stages: dict[str, float] = {}
        self.lengths: list[int] = []
        """Of the vector searches so far."""
        self._last = time.perf_counter()
        columns = {PART_COLUMNS[part] for part in query.include} - {"vector"}
        if query.highlight:
            columns.add("document")
        if query.group_size:
            columns.add("metadata")
        self._columns = sorted(columns)
        self._left_out: set[bytes] = set()
        self.vectors = query.vectors if not query.like else self._from_examples()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    # --- candidates ----------------------------------------------------------------------------------------

    def _candidates(
        self, vector: Floats | None, text: TextQuery | None, length: int, where: Filter | None
    ) -> list[Candidate]:
        wanted = length + len(self._left_out)
        if vector is not None and text is not None:
            found = self._fused(vector, text, wanted, where)
        elif vector is not None:
            found = self._by_vector(vector, wanted, where, self._columns)
        else:
            assert text is not None
            side = self._by_text(text, wanted, where)
            found = [Candidate(key, score) for key, score in zip(side.keys, side.scores, strict=True)]
        found.sort(key=lambda candidate: (-candidate.score, candidate.key))
        if self._left_out:
            found = [candidate for candidate in found if candidate.key not in self._left_out]
        return found[:length]

    def _by_vector(
        self, vector: Floats, length: int, where: Filter | None, columns: Sequence[str] = ()
    ) -> list[Candidate]:
        query = self._query
        more = sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(name)) for name in columns)
        self.lengths.append(length)
        near = self._nearest.find(self._connection, vector, length, query.ef, query.recall, where, more)
        scores, distances = scores_and_distances(self._space, near.order.tolist())
        found = [
            Candidate(row[0], score, distance, None, {"vector": row[1], **dict(zip(columns, row[2:], strict=False))})
            for row, score, distance in zip(near.rows, scores, distances, strict=True)
            if query.max_distance is None or distance <= query.max_distance
        ]
        self.lap("vector search")
        return found

    def _by_text(self, text: TextQuery, length: int, where: Filter | None) -> _Side:
        parser = text_search.Parser(self._indexer().analyzer)
        scoring = text_search.scoring(self._connection, self.collection, parser.parts(text))
        rows: list[Any] = []
        if scoring is not None:
            condition = condition_of(where)
            statement = sql.SQL(
                "SELECT id, ({})::float8 AS score FROM {} WHERE ({}) AND ({}) ORDER BY score DESC, id LIMIT {}"
            ).format(
                scoring.score.sql,
                self.collection.records,
                scoring.matches.sql,
                condition.sql,
                sql.Literal(length),
            )
            values = [*scoring.score.values, *scoring.matches.values, *condition.values]
            rows = self._connection.execute(statement, values, binary=True).fetchall()
        self.lap("text")
        return _Side([key for key, _ in rows], [score for _, score in rows])

    def _fused(self, vector: Floats, text: TextQuery, wanted: int, where: Filter | None) -> list[Candidate]:
        """The best of both sides as one ranking."""
        query = self._query
        length = max(SIDE_FACTOR * wanted, SIDE_LENGTH)
        near, matching = self._by_vector(vector, length, where), self._by_text(text, length, where)
        scores = {candidate.key: candidate.score for candidate in near}
        distances = {candidate.key: candidate.distance for candidate in near}
        text_scores = dict(zip(matching.keys, matching.scores, strict=True))
        self._add_distances(vector, [key for key in text_scores if key not in distances], scores, distances)
        if query.max_distance is not None:
            text_scores = {key: score for key, score in text_scores.items() if key in distances}
        vector_ranks = {candidate.key: rank for rank, candidate in enumerate(near, 1)}
        text_ranks = {key: rank for rank, key in enumerate(text_scores, 1)}
        # fusion.py speaks of labels: these are places in a list of all keys.
        keys = list(dict.fromkeys([*vector_ranks, *text_ranks]))
        label = {key: at for at, key in enumerate(keys)}
        if query.alpha is None:
            fused = reciprocal_rank([[label[key] for key in vector_ranks], [label[key] for key in text_ranks]])
        else:
            fused = weighted(
                {label[key]: score for key, score in scores.items()},
                {label[key]: score for key, score in text_scores.items()},
                query.alpha,
                vector_minimum=-1.0 if self._space == "cosine" else None,
            )
        self.lap("fusion")
        found = []
        for at, score in fused.items():
            key = keys[at]
            sides = (scores[key], vector_ranks.get(key), text_scores.get(key), text_ranks.get(key))
            found.append(Candidate(key, score, distances[key], sides))
        return found

    def _add_distances(
        self, vector: Floats, keys: list[bytes], scores: dict[bytes, float], distances: dict[bytes, float | None]
    ) -> None:
        """Exact distances of those that only the text found, but for what is too far."""
        found = self._read(keys, ["vector"])
        keys = [key for key in keys if key in found]
        if not keys:
            return
        vectors = vectors_of([found[key]["vector"] for key in keys], self.collection.settings.dim)
        order = self._nearest.order(vector, vectors).tolist()
        limit = self._query.max_distance
        for key, score, distance in zip(keys, *scores_and_distances(self._space, order), strict=True):
            if limit is None or distance <= limit:
                scores[key], distances[key] = score, distance
        self.lap("distances")

    def _read(self, keys: Sequence[bytes], columns: Sequence[str]) -> dict[bytes, dict[str, Any]]:
        """These columns of these records."""
        if not keys or not columns:
            return {}
        statement = sql.SQL("SELECT id, {} FROM {} WHERE id = ANY(%s)").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), self.collection.records
        )
        rows = self._connection.execute(statement, (list(keys),), binary=True).fetchall()
        return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows}

    def _complete(self, candidates: Sequence[Candidate], columns: Sequence[str]) -> None:
        """Read what is missing of the columns."""
        lacking = [item for item in candidates if any(name not in item.parts for name in columns)]
        found = self._read([item.key for item in lacking], columns)
        for item in lacking:
            item.parts.update(found[item.key])

    def _examples(self, ids: Sequence[Id]) -> Vectors:
        keys = [key_of(id_) for id_ in ids]
        found = self._read(keys, ["vector"])
        for id_, key in zip(ids, keys, strict=True):
            if key not in found:
                raise RecordNotFoundError(f"expected a record with id {id_!r} as an example, found none")
        self._left_out.update(keys)
        return vectors_of([found[key]["vector"] for key in keys], self.collection.settings.dim)

    def _stored_vectors(self, candidates: Sequence[Candidate]) -> Vectors:
        self._complete(candidates, ["vector"])
        return vectors_of([item.parts["vector"] for item in candidates], self.collection.settings.dim)

    def _group_keys(self, candidates: Sequence[Candidate]) -> list[list[GroupKey]]:
        path = self._query.group_by
        if path is None:
            return [group_keys([id_of(item.key)]) for item in candidates]
        self._complete(candidates, ["metadata"])
        return [group_keys(nodes_at(decode_metadata(item.parts["metadata"]), path)) for item in candidates]

    # --- hits ----------------------------------------------------------------------------------------------

    def _hits(self, candidates: Sequence[Candidate], text: TextQuery | None) -> list[Hit]:
        query = self._query
        wanted = [*self._columns, *(["vector"] if "vector" in query.include else [])]
        self._complete(candidates, wanted)
        highlighter = None
        if query.highlight and text is not None:
            highlighter = Highlighter(text, self._indexer().analyzer)
        hits = []
        for candidate in candidates:
            parts = candidate.parts
            document = parts.get("document")
            if document is not None:
                document = unescape(document)
            hit = Hit(id=id_of(candidate.key))
            if "metadata" in query.include:
                hit["metadata"] = decode_metadata(parts["metadata"])
            hit["score"], hit["distance"] = candidate.score, candidate.distance
            if candidate.sides is not None:
                hit["vector_score"], hit["vector_rank"], hit["text_score"], hit["text_rank"] = candidate.sides
            if "text" in query.include:
                hit["text"] = document
            if "vector" in query.include:
                hit["vector"] = vectors_of([parts["vector"]], self.collection.settings.dim)[0].tolist()
            if highlighter is not None:
                hit["highlight"] = highlighter.highlight(document or "")
            hits.append(hit)
        self.lap("hits")
        return hits
