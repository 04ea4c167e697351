"""The read path: a snapshot in, records or hits out.

query -> snapshot -> filter -> allowed rows (allowed.py)
      -> per segment and tail the cheapest way that reaches the recall (nearest.py)
      -> the k best and all that float32 cannot tell from them
      -> verify their bytes -> final float64 distances, ordered by (distance, id)
      -> metadata of the final k (JSON bytes cached by label) -> hits

Texts, groups, examples and diversity are put together in ranking.py from the pieces here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nopokedb.distances import Doubles, Floats, final_order, scores_and_distances
from nopokedb.embedded.allowed import Allowed, FilterCache, FilteredRows, LiveRows
from nopokedb.embedded.nearest import nearest_rows
from nopokedb.embedded.recorder import Recorder
from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.metadata import MetadataReader, Stored
from nopokedb.embedded.store import Store
from nopokedb.engine import Query
from nopokedb.errors import CorruptionError
from nopokedb.filters import Filter
from nopokedb.records import Hit, Id, Part, Record, id_order
from nopokedb.records import decode_metadata as decode

Position: TypeAlias = tuple[Id, int]
"""A place in the order of ids and, within one id, of labels."""


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
        allowed = self.allowed(snapshot, query.where, record)
        found = nearest_rows(
            self.space,
            snapshot,
            allowed,
            query.vectors,
            query.k,
            query.ef,
            query.recall,
            record,
            all_cores=query.all_cores,
        )
        return [
            self._hits(snapshot, vector, rows, query, record) for vector, rows in zip(query.vectors, found, strict=True)
        ]

    def ordered(
        self, snapshot: Snapshot, vector: Floats, rows: Rows, k: int, record: Recorder | None = None
    ) -> tuple[list[Stored], list[float], Rows, Floats]:
        """The best k of these rows by (distance, id), and what ties with them: the stored versions, what they are
        ordered by, and for each its place in the vectors (n, dim) that come last."""
        vectors = snapshot.verified_vectors(rows)
        values = final_order(self.space, vector, vectors)
        order = np.argsort(values, kind="stable")
        if len(order) > k:
            # Keep all that tie with the k-th: the smaller id decides, not the place in the file.
            order = order[: int(np.searchsorted(values[order], values[order[k - 1]], side="right"))]
        ordered = values[order].tolist()
        if record is not None:
            record.lap("distances")
        stored = self.stored(snapshot, rows[order])
        if len(set(ordered)) != len(ordered):
            places = sorted(range(len(ordered)), key=lambda at: (ordered[at], id_order(stored[at].id)))
            ordered = [ordered[at] for at in places]
            stored = [stored[at] for at in places]
            order = order[places]
        if record is not None:
            record.lap("metadata")
        return stored, ordered, order, vectors

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

    def _hits(self, snapshot: Snapshot, vector: Floats, rows: Rows, query: Query, record: Recorder | None) -> list[Hit]:
        """The k best of the candidate rows as hits."""
        stored, ordered, order, vectors = self.ordered(snapshot, vector, rows, query.k, record)
        count = min(query.k, len(ordered))
        scores, ranges = scores_and_distances(self.space, ordered[:count])
        if query.max_distance is not None:
            limit = query.max_distance
            count = sum(distance <= limit for distance in ranges)
        if query.include == ("metadata",):  # nearly every call; the loop below costs twice as much
            hits = [
                Hit(id=item.id, metadata=decode(item.metadata), score=score, distance=distance)
                for item, score, distance in zip(stored[:count], scores, ranges, strict=False)
            ]
            if record is not None:
                record.lap("hits")
            return hits
        texts = self.reader.texts(stored[:count]) if "text" in query.include else {}
        hits = []
        for at in range(count):
            item = stored[at]
            hit = Hit(id=item.id)
            if "metadata" in query.include:
                hit["metadata"] = decode(item.metadata)
            hit["score"], hit["distance"] = scores[at], ranges[at]
            if "text" in query.include:
                hit["text"] = texts.get(item.label)
            if "vector" in query.include:
                hit["vector"] = vectors[order[at]].tolist()
            hits.append(hit)
        if record is not None:
            record.lap("hits")
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
