"""The read path: a snapshot in, records or hits out.

query -> snapshot -> per segment and tail the cheapest way that reaches the recall: exact or index
      -> candidates with exact float32 keys -> the k best and all that float32 cannot tell from them
      -> verify their bytes -> final float64 distances, ordered by (distance, id)
      -> metadata of the final k (JSON bytes cached by label) -> hits
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import faiss
import google_crc32c
import numpy as np
import numpy.typing as npt

from nopokedb.embedded.search.exact import (
    Floats,
    Rows,
    final_order,
    keys_by_rows,
    keys_of_range,
    nearest,
    prepare_queries,
    rounding_slack,
    scores_and_distances,
)
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.metadata import MetadataReader, Stored
from nopokedb.errors import CorruptionError
from nopokedb.records import Hit, Id, Part, Record, id_order
from nopokedb.records import decode_metadata as decode

_EXACT_ROWS = 2_048
"""As few live rows as this are compared exactly in less time than an index takes (0.05 ms)."""
_SCAN_ROW_COST = 1 / 16
"""A scanned code costs about a sixteenth of an exact comparison."""
_GRAPH_MIN_LIVE = 0.5
"""A graph in which less than this share of the rows is live walks mostly through the dead: exact then."""
_CPU_COUNT = os.cpu_count() or 1


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

    def fetch(self, labels: list[int], reader: MetadataReader) -> list[Stored]:
        """The versions with these labels, in order."""
        stored = self._stored
        found = [stored.get(label) for label in labels]
        if None in found:
            missing = [label for label, item in zip(labels, found, strict=True) if item is None]
            fetched = reader.fetch(missing)
            self._keep(fetched)
            try:
                return [item or fetched[label] for label, item in zip(labels, found, strict=True)]
            except KeyError as error:
                raise CorruptionError(f"label {error} has no record", file=str(reader.path)) from None
        return found  # type: ignore[return-value]

    def _keep(self, fetched: dict[int, Stored]) -> None:
        with self._lock:
            for label, item in fetched.items():
                if label not in self._stored:
                    self.size_bytes += len(item.metadata) + self._OVERHEAD
                    self._stored[label] = item
            while self.size_bytes > self._limit:  # the oldest first
                item = self._stored.pop(next(iter(self._stored)))
                self.size_bytes -= len(item.metadata) + self._OVERHEAD


class ReadPath:
    """Answers from snapshots. Holds no state but the record cache; any number of threads may use it."""

    def __init__(
        self, space: str, reader: MetadataReader, vectors_file: str, labels_file: str, cache: RecordCache
    ) -> None:
        self._space = space
        self.reader = reader
        self._vectors_file = vectors_file
        self._labels_file = labels_file
        self._cache = cache

    # --- nearest neighbours --------------------------------------------------------------------------------

    def query(
        self,
        snapshot: Snapshot,
        queries: Floats,
        k: int,
        ef: int | None,
        max_distance: float | None,
        include: Sequence[Part],
    ) -> list[list[Hit]]:
        """Hits of each query (n, dim), best first."""
        return [
            self._hits(snapshot, query, rows, k, max_distance, include)
            for query, rows in zip(queries, self.candidates(snapshot, queries, k, ef), strict=True)
        ]

    def candidates(self, snapshot: Snapshot, queries: Floats, k: int, ef: int | None) -> list[Rows]:
        """Per query the rows of the k nearest by float32 keys, with those that tie."""
        space = self._space
        prepared = prepare_queries(space, queries)
        keys: list[list[Floats]] = [[] for _ in queries]
        rows: list[list[Rows]] = [[] for _ in queries]
        threads = faiss.omp_get_max_threads()
        wanted = 1 if len(queries) == 1 else _CPU_COUNT
        if threads != wanted:
            faiss.omp_set_num_threads(wanted)
        try:
            for segment in snapshot.segments:
                self._search_segment(snapshot, segment, prepared, k, ef, keys, rows)
            self._search_exact(snapshot, prepared, snapshot.tail_start, snapshot.row_count, keys, rows)
        finally:
            if threads != wanted:  # the setting belongs to the calling thread, which is the user's
                faiss.omp_set_num_threads(threads)
        found = []
        for at, query in enumerate(prepared):
            line_keys, line = _joined(keys[at]), _joined(rows[at])
            # Only a dot product's rounding depends on the lengths of the rows.
            longest = float(snapshot.rows["norm"][line].max()) if space == "ip" and len(line) else 1.0
            found.append(nearest(line_keys, line, k, rounding_slack(space, query, longest)))
        return found

    def _search_segment(
        self,
        snapshot: Snapshot,
        segment: Segment,
        prepared: Floats,
        k: int,
        ef: int | None,
        keys: list[list[Floats]],
        rows: list[list[Rows]],
    ) -> None:
        """Add the segment's candidates of each query."""
        live = snapshot.live_count(segment.start, segment.stop)
        if not live:
            return
        length = max(k, segment.ef_for(k) if ef is None else ef)
        length = min(length, live)
        bits = snapshot.live_bits(segment.start, segment.stop)
        graph = segment.kind != "scan"
        if ef is None:
            cost = length + (0 if graph else segment.row_count * _SCAN_ROW_COST)
            if live <= max(_EXACT_ROWS, cost) or (graph and live < _GRAPH_MIN_LIVE * segment.row_count):
                self._search_exact(snapshot, prepared, segment.start, segment.stop, keys, rows)
                return
        norms = snapshot.rows["norm"]
        while True:
            found = segment.search(prepared, length, bits)
            found_keys = keys_by_rows(self._space, prepared, snapshot.vectors, norms, found)
            # A graph walked around dead rows may stop early: its list is doubled until the answer stays.
            if ef is not None or bits is None or not graph or length >= live:
                break
            longer = segment.search(prepared, min(2 * length, live), bits)
            longer_keys = keys_by_rows(self._space, prepared, snapshot.vectors, norms, longer)
            if np.array_equal(np.sort(found_keys, axis=1)[:, :k], np.sort(longer_keys, axis=1)[:, :k]):
                break
            length = min(2 * length, live)
        short = min(k, live)
        whole = math.isfinite(found_keys.max())  # a missing row has the key +Inf
        for at in range(len(prepared)):
            if whole:
                keys[at].append(found_keys[at])
                rows[at].append(found[at])
                continue
            there = found[at] >= 0
            if np.count_nonzero(there) < short:  # never fewer than there are
                self._search_exact(
                    snapshot,
                    prepared[at : at + 1],
                    segment.start,
                    segment.stop,
                    keys[at : at + 1],
                    rows[at : at + 1],
                )
            else:
                keys[at].append(found_keys[at][there])
                rows[at].append(found[at][there])

    def _search_exact(
        self,
        snapshot: Snapshot,
        prepared: Floats,
        start: int,
        stop: int,
        keys: list[list[Floats]],
        rows: list[list[Rows]],
    ) -> None:
        """Add all live rows of [start, stop) as candidates of each query."""
        if start >= stop:
            return
        vectors, norms = snapshot.vectors, snapshot.rows["norm"]
        live = snapshot.live_count(start, stop)
        if 2 * live < stop - start:
            chosen = snapshot.live_rows.members(start, stop)
            for at in range(len(prepared)):
                line = chosen[None, :]
                keys[at].append(keys_by_rows(self._space, prepared[at : at + 1], vectors, norms, line)[0])
                rows[at].append(chosen)
            return
        chosen = np.arange(start, stop)
        dead = None
        if live < stop - start:
            bits = snapshot.live_bits(start, stop)
            assert bits is not None
            dead = np.unpackbits(bits, bitorder="little", count=stop - start) == 0
        for at in range(len(prepared)):
            line_keys = keys_of_range(self._space, prepared[at], vectors, norms, start, stop)
            if dead is not None:
                line_keys = line_keys[~dead]
            keys[at].append(line_keys)
            rows[at].append(chosen if dead is None else chosen[~dead])

    def _hits(
        self,
        snapshot: Snapshot,
        query: Floats,
        rows: Rows,
        k: int,
        max_distance: float | None,
        include: Sequence[Part],
    ) -> list[Hit]:
        """The k best of the candidate rows as hits."""
        vectors = self._verified_vectors(snapshot, rows)
        space = self._space
        values = final_order(space, query, vectors)
        order = np.argsort(values, kind="stable")
        if len(order) > k:
            # Keep all that tie with the k-th: the smaller id decides, not the place in the file.
            order = order[: int(np.searchsorted(values[order], values[order[k - 1]], side="right"))]
        ordered = values[order].tolist()
        labels = snapshot.labels_of(rows[order])
        stored = self._cache.fetch(labels, self.reader)
        if len(set(ordered)) != len(ordered):
            places = sorted(range(len(ordered)), key=lambda at: (ordered[at], id_order(stored[at].id)))
            ordered = [ordered[at] for at in places]
            labels = [labels[at] for at in places]
            stored = [stored[at] for at in places]
            order = order[places]
        count = min(k, len(ordered))
        if max_distance is not None:
            _, ranges = scores_and_distances(space, ordered[:count])
            count = sum(distance <= max_distance for distance in ranges)
        if [item.row for item in stored] != rows[order].tolist():
            raise CorruptionError(f"a label names another row: {self._labels_file}", file=self._labels_file)
        scores, ranges = scores_and_distances(space, ordered[:count])
        if include == ("metadata",):  # nearly every call; the loop below costs twice as much
            return [
                Hit(id=item.id, metadata=decode(item.metadata), score=score, distance=distance)
                for item, score, distance in zip(stored, scores, ranges, strict=False)
            ]
        texts = self.reader.texts(stored[:count]) if "text" in include else {}
        hits = []
        for at in range(count):
            item = stored[at]
            hit = Hit(id=item.id)
            if "metadata" in include:
                hit["metadata"] = decode(item.metadata)
            hit["score"], hit["distance"] = scores[at], ranges[at]
            if "text" in include:
                hit["text"] = texts.get(item.label)
            if "vector" in include:
                hit["vector"] = vectors[order[at]].tolist()
            hits.append(hit)
        return hits

    def _verified_vectors(self, snapshot: Snapshot, rows: Rows) -> Floats:
        """The vectors of these rows, compared with their stored CRC."""
        vectors = snapshot.vectors[rows]
        checksum = google_crc32c.value
        for row, vector, crc in zip(rows.tolist(), vectors, snapshot.rows["crc"][rows].tolist(), strict=True):
            if checksum(vector) != crc:
                width = vectors.shape[1] * 4
                raise CorruptionError(
                    f"the vector in row {row} is damaged: {self._vectors_file} at byte {row * width}",
                    file=self._vectors_file,
                    offset=row * width,
                )
        return vectors

    def vectors_of(self, snapshot: Snapshot, rows: Rows) -> Floats:
        """The vectors of these rows, verified; for backups."""
        return self._verified_vectors(snapshot, rows)

    # --- records -------------------------------------------------------------------------------------------

    def find(self, snapshot: Snapshot, ids: Sequence[Id]) -> list[int | None]:
        """The live label of each id, None where there is none."""
        newest = self.reader.newest(ids, snapshot.label_count)
        return [label if label is not None and label in snapshot.live else None for label in newest]

    def get(self, snapshot: Snapshot, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        """The records of these ids, None where there is none."""
        labels = self.find(snapshot, ids)
        records = iter(self._records(snapshot, [label for label in labels if label is not None], include))
        found = [None if label is None else next(records) for label in labels]
        for id_, record in zip(ids, found, strict=True):
            if record is not None and (record.id != id_ or type(record.id) is not type(id_)):
                raise CorruptionError(f"the index on ids is damaged: {self.reader.path}", file=str(self.reader.path))
        return found

    def scan_page(
        self, snapshot: Snapshot, position: Position | None, limit: int | None, include: Sequence[Part]
    ) -> tuple[list[Record], Position | None]:
        """Some live records in id order from behind `position`, and where to go on (None: that was all)."""
        page = self.reader.page(position, snapshot.label_count)
        if not page:
            return [], None
        labels = [item.label for item in page if item.label in snapshot.live]
        return self._records(snapshot, labels[:limit], include), (page[-1].id, page[-1].label)

    def _records(self, snapshot: Snapshot, labels: list[int], include: Sequence[Part]) -> list[Record]:
        if not labels:
            return []
        stored = self._cache.fetch(labels, self.reader)
        texts = self.reader.texts(stored) if "text" in include else {}
        vectors: npt.NDArray[np.float32] | None = None
        if "vector" in include:
            vectors = self._verified_vectors(snapshot, np.array([item.row for item in stored], np.int64))
        return [
            Record(
                item.id,
                decode(item.metadata) if "metadata" in include else None,
                None if vectors is None else vectors[at],
                texts.get(item.label),
            )
            for at, item in enumerate(stored)
        ]


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
