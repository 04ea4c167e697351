"""The read path: a snapshot in, records or hits out.

query -> snapshot -> filter -> allowed rows (allowed.py)
      -> per segment and tail the cheapest way that reaches the recall (nearest.py)
      -> the k best and all that float32 cannot tell from them
      -> verify their bytes -> final float64 distances, ordered by (distance, id)
      -> metadata of the final k (JSON bytes cached by label) -> hits

Texts, groups, examples and diversity are put together in ranking.py from the pieces here.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, Floats, final_order, scores_and_distances
from nopokedb.embedded.allowed import Allowed, FilterCache, FilteredRows, LiveRows
from nopokedb.embedded.nearest import Nearest, nearest_rows
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.metadata import MetadataReader, Stored
from nopokedb.embedded.store import Store
from nopokedb.engine import Query
from nopokedb.errors import CorruptionError
from nopokedb.filters import Filter
from nopokedb.metadata_json import decode_metadata as decode
from nopokedb.records import Hit, Id, Part, Record, Vectors, id_order

Position: TypeAlias = tuple[Id, int]
"""A place in the order of ids and, within one id, of labels."""

_AT_ONCE_NUMBERS = 1 << 21
"""Candidates of several queries are put in order together, up to so many numbers: 16 MiB in float64."""


class RecordCache:
    """Stored versions by label, up to a number of bytes. A label never changes its meaning: nothing to invalidate."""

    _OVERHEAD = 200

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._stored: dict[int, Stored] = {}
        self._lock = threading.Lock()
        self.size_bytes = 0
        self.hits = self.misses = 0
        """Versions that were found here, and that were not. Not exact: threads may lose a count."""

    def fetch(self, labels: list[int], reader: MetadataReader) -> list[Stored]:
        """The versions with these labels, in order."""
        stored = self._stored
        found = [stored.get(label) for label in labels]
        if None in found:
            missing = [label for label, item in zip(labels, found, strict=True) if item is None]
            self.misses += len(missing)
            self.hits += len(labels) - len(missing)
            fetched = reader.fetch_all(missing)
            self._keep(fetched)
            rest = iter(fetched)
            return [item or next(rest) for item in found]
        self.hits += len(labels)
        return found  # type: ignore[return-value]

    def _keep(self, fetched: list[Stored]) -> None:
        with self._lock:
            for item in fetched:
                if item.label not in self._stored:
                    self.size_bytes += len(item.metadata) + self._OVERHEAD
                    self._stored[item.label] = item
            while self.size_bytes > self._limit:  # the oldest first
                item = self._stored.pop(next(iter(self._stored)))
                self.size_bytes -= len(item.metadata) + self._OVERHEAD


class ReadPath:
    """Answers from snapshots. Holds no state but its caches; any number of threads may use it."""

    def __init__(self, space: str, store: Store, cache: RecordCache, filters: FilterCache) -> None:
        self.space = space
        self.store = store
        """Answers are right for snapshots of this store's generation."""
        self.cache = cache
        self.filters = filters

    @property
    def reader(self) -> MetadataReader:
        return self.store.reader

    # --- nearest neighbours --------------------------------------------------------------------------------

    def allowed(self, snapshot: Snapshot, where: Filter | None, record: Recorder | None = None) -> Allowed:
        """The rows that may be an answer."""
        return LiveRows(snapshot) if where is None else self.filters.rows(where, snapshot, self.reader, record)

    def passing(self, snapshot: Snapshot, where: Filter) -> FilteredRows:
        """The live labels and rows that pass a filter."""
        return self.filters.rows(where, snapshot, self.reader)

    def query(self, snapshot: Snapshot, query: Query, record: Recorder | None = None) -> list[list[Hit]]:
        """Hits of each vector, best first, of a query that asks for nothing else."""
        assert query.vectors is not None
        found = nearest_rows(
            self.space,
            snapshot,
            self.allowed(snapshot, query.where, record),
            query.vectors,
            query.k,
            query.ef,
            query.recall,
            record,
            all_cores=query.all_cores,
        )
        questions, dim = query.vectors, query.vectors.shape[1]
        if len(questions) == 1 or len(found.rows) * dim <= _AT_ONCE_NUMBERS:
            return self._hits(snapshot, query, questions, found, record)
        answers: list[list[Hit]] = []
        ends = list(itertools.accumulate(found.counts))
        step = max(1, _AT_ONCE_NUMBERS * len(ends) // (ends[-1] * dim))
        for at in range(0, len(ends), step):
            counts = found.counts[at : at + step]
            some = Nearest(found.rows[ends[at] - counts[0] : ends[at + len(counts) - 1]], counts)
            answers += self._hits(snapshot, query, questions[at : at + step], some, record)
        return answers

    def stored(self, snapshot: Snapshot, rows: Rows) -> list[Stored]:
        """The versions that own these live rows."""
        return self._in_rows(snapshot, snapshot.labels_of(rows), rows)

    def versions(self, snapshot: Snapshot, labels: list[int]) -> list[Stored]:
        """The stored versions with these live labels."""
        return self._in_rows(snapshot, labels, snapshot.rows_of(labels))

    def _in_rows(self, snapshot: Snapshot, labels: list[int], rows: Rows) -> list[Stored]:
        stored = self.cache.fetch(labels, self.reader)
        snapshot.require_rows(stored, rows)
        return stored

    def order_values(self, snapshot: Snapshot, vector: Floats, rows: Rows) -> Doubles:
        """What answers are ordered by, for these rows."""
        return final_order(self.space, vector, snapshot.verified_vectors(rows))

    def _hits(
        self, snapshot: Snapshot, query: Query, questions: Floats, found: Nearest, record: Recorder | None
    ) -> list[list[Hit]]:
        """The k best of the rows of each question as hits."""
        vectors = snapshot.vectors[found.rows]
        places, values, counts = self._best(questions, vectors, found.counts, query.k)
        rows, vectors = found.rows[places], vectors[places]
        snapshot.verify(rows, vectors)
        if record is not None:
            record.lap("distances")
        stored = self.stored(snapshot, rows)
        if record is not None:
            record.lap("metadata")
        hits = self._made(query, stored, values, vectors)
        answers = []
        start = 0
        for count in counts:
            answers.append(_cut(hits[start : start + count], query))
            start += count
        if record is not None:
            record.lap("hits")
        return answers

    def _best(
        self, questions: Floats, vectors: Vectors, counts: list[int], k: int
    ) -> tuple[npt.NDArray[np.intp], list[float], list[int]]:
        """Of the vectors of each question the places of the k best, best first, and of all that tie with the last; what
        they are ordered by; and how many each question has."""
        several = len(counts) > 1
        # Bytes of a damaged row may have no distance: that is nobody's best.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            values = final_order(
                self.space, questions if several else questions[0], vectors, counts if several else None
            )
        if several:
            order = np.lexsort((values, np.repeat(np.arange(len(counts)), counts)))
        else:
            order = values.argsort(kind="stable")
        ordered: list[float] = values[order].tolist()
        spans = []
        start = 0
        for count in counts:
            end = start + count
            stop = min(start + k, end)
            # The smaller id decides between equals, not the place in the file.
            while start < stop < end and ordered[stop] == ordered[stop - 1]:
                stop += 1
            spans.append(slice(start, stop))
            start = end
        if not several:
            return order[spans[0]], ordered[spans[0]], [spans[0].stop]
        best = np.concatenate([order[span] for span in spans])
        return best, [value for span in spans for value in ordered[span]], [span.stop - span.start for span in spans]

    def _made(self, query: Query, stored: list[Stored], values: list[float], vectors: Vectors) -> list[Hit]:
        """Hits of these versions, which are ordered by these values and have these vectors."""
        scores, distances = scores_and_distances(self.space, values)
        if query.include == ("metadata",):  # nearly every call; the loop below costs twice as much
            return [
                Hit(id=item.id, metadata=decode(item.metadata), score=score, distance=distance)
                for item, score, distance in zip(stored, scores, distances, strict=True)
            ]
        texts = self.reader.texts(stored) if "text" in query.include else {}
        hits = []
        for at, item in enumerate(stored):
            hit = Hit(id=item.id)
            if "metadata" in query.include:
                hit["metadata"] = decode(item.metadata)
            hit["score"], hit["distance"] = scores[at], distances[at]
            if "text" in query.include:
                hit["text"] = texts.get(item.label)
            if "vector" in query.include:
                hit["vector"] = vectors[at].tolist()
            hits.append(hit)
        return hits

    # --- records -------------------------------------------------------------------------------------------

    def find(self, snapshot: Snapshot, ids: Sequence[Id]) -> list[int | None]:
        """The live label of each id, None where there is none."""
        newest = self.reader.newest(ids, snapshot.label_count)
        return [label if label is not None and label in snapshot.live else None for label in newest]

    def get(self, snapshot: Snapshot, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        """The records of these ids, None where there is none."""
        labels = self.find(snapshot, ids)
        records = iter(self.records(snapshot, [label for label in labels if label is not None], include))
        found = [None if label is None else next(records) for label in labels]
        for id_, record in zip(ids, found, strict=True):
            if record is not None and (record.id != id_ or type(record.id) is not type(id_)):
                raise CorruptionError(f"the index on ids is damaged: {self.reader.path}", file=str(self.reader.path))
        return found

    def scan_page(
        self,
        snapshot: Snapshot,
        where: Filter | None,
        position: Position | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> tuple[list[Record], Position | None]:
        """Some live records that pass, in id order from behind `position`, and where to go on (None: that was all)."""
        page = self.reader.page(position, snapshot.label_count)
        if not page:
            return [], None
        if where is None:
            labels = [item.label for item in page if item.label in snapshot.live]
        else:
            at = np.array([item.label for item in page], np.int64)
            labels = at[self.passing(snapshot, where).passes(at)].tolist()
        return self.records(snapshot, labels[:limit], include), (page[-1].id, page[-1].label)

    def records(self, snapshot: Snapshot, labels: list[int], include: Sequence[Part]) -> list[Record]:
        if not labels:
            return []
        stored = self.cache.fetch(labels, self.reader)
        texts = self.reader.texts(stored) if "text" in include else {}
        vectors: npt.NDArray[np.float32] | None = None
        if "vector" in include:
            vectors = snapshot.verified_vectors(np.array([item.row for item in stored], np.int64))
        return [
            Record(
                item.id,
                decode(item.metadata) if "metadata" in include else None,
                None if vectors is None else vectors[at],
                texts.get(item.label),
            )
            for at, item in enumerate(stored)
        ]


def _cut(hits: list[Hit], query: Query) -> list[Hit]:
    """The k best of these hits, without those that are too far away; ties by id."""
    scores = [hit["score"] for hit in hits]
    if len(set(scores)) != len(scores):
        hits.sort(key=lambda hit: (-hit["score"], id_order(hit["id"])))
    limit = query.max_distance
    if limit is not None:
        return [hit for hit in hits[: query.k] if hit["distance"] <= limit]
    return hits[: query.k] if len(hits) > query.k else hits
