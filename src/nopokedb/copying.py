"""From one engine to another: copy a collection, and compare how both answer. Folders, PostgreSQL, servers.

Records are read in the order of their ids from one state of the source and written in atomic batches, so what a copy
that was killed leaves is the beginning of the source: `resume` goes on behind the last id. Not copied: snapshots,
the log, which vectors were computed from texts, and automatic ids that were used and deleted since.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from nopokedb.database import NoPokeDB, engine_of
from nopokedb.embedding.names import MODELS
from nopokedb.errors import CollectionNotFoundError, InvalidInputError, NotSupportedError
from nopokedb.postgres.address import is_postgres
from nopokedb.records import Id, Part, Record, Vectors

Advance = Callable[[int, float | None], object]
_EVERYTHING: tuple[Part, ...] = ("metadata", "vector", "text")
_BATCH_BYTES = 32 * 2**20
_BATCH_RECORDS = 5_000
_RECALL_QUERIES = 100
_K = 10


@dataclass(frozen=True, slots=True)
class Side:
    """What one side holds."""

    path: str
    count: int
    checksum: str
    """SHA-256 over ids, vectors, metadata and texts in the order of ids."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did."""

    source: str
    target: str
    copied: int
    count: int
    """Records in the target."""
    resumed_behind: Id | None
    left_out: tuple[str, ...]
    """What the target cannot hold or be told, in words."""
    source_side: Side | None = None
    target_side: Side | None = None
    recall: float | None = None
    """Of sampled default queries of the target against exact search in it."""

    @property
    def same(self) -> bool | None:
        """Whether both sides hold the same; None if that was not looked at."""
        if self.source_side is None or self.target_side is None:
            return None
        return (self.source_side.count, self.source_side.checksum) == (
            self.target_side.count,
            self.target_side.checksum,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one kind of query is answered by both."""

    kind: str
    query_count: int
    overlap: float
    """Mean share of the ids among the best ten that both name."""
    source_ms: float
    target_ms: float
    """Medians."""


@dataclass(slots=True)
class _Copied:
    count: int = 0
    left_out: list[str] = field(default_factory=list)


def copy(
    source: str,
    target: str,
    *,
    verify: bool = False,
    resume: bool = False,
    advance: Advance = lambda count, share: None,
) -> CopyReport:
    """Copy the collection at `source` to `target`, which must have no records unless `resume` is set.

    An address names the collection at its end: `postgresql://user@host/database#collection`,
    `http://host:port/collection`. The source
    may have a writer; what that writes meanwhile is not copied.
    """
    with ExitStack() as opened:
        origin = opened.enter_context(NoPokeDB(path=source, read_only=True))
        made = _Copied()
        goal = opened.enter_context(_opened_target(origin, target, made))
        if not resume and len(goal):
            raise InvalidInputError(
                f"expected no records in the target, got {len(goal)} in {goal.path}; --resume goes on with a copy"
            )
        last = _last_id(goal, origin)
        total, already = len(origin), len(goal)
        for batch in batches(origin.scan(after=last, include=_EVERYTHING)):
            write_batch(goal, batch)
            made.count += len(batch)
            advance(already + made.count, (already + made.count) / total if total else None)
        if is_postgres(target):
            goal.compact()  # the index is built after the load
        sides: tuple[Side | None, Side | None] = (None, None)
        recall = None
        if verify:
            sides = side(origin.path, origin.scan(include=_EVERYTHING)), side(goal.path, goal.scan(include=_EVERYTHING))
            recall = goal.measure_recall(_RECALL_QUERIES, _K).recall if len(goal) else None
        return CopyReport(
            origin.path, goal.path, made.count, len(goal), last, tuple(made.left_out), *sides, recall=recall
        )


def compare(source: str, target: str, queries: int) -> list[Comparison]:
    """Ask both the same: sampled vectors, words of stored texts, and both together."""
    with ExitStack() as opened:
        one = opened.enter_context(NoPokeDB(path=source, read_only=True))
        two = opened.enter_context(NoPokeDB(path=target, read_only=True))
        ids, vectors = engine_of(one).sample(queries, None)
        if not ids:
            return []
        points = between(vectors)
        texts = [record.text for record in one.get_many(ids, include=("text",)) if record is not None and record.text]
        words = [" ".join(text.split()[:3]) for text in texts]
        asked: dict[str, list[dict[str, Any]]] = {"vector": [{"vector": point} for point in points]}
        if words:
            asked["text"] = [{"text": text} for text in words]
            asked["hybrid"] = [{"vector": p, "text": t} for p, t in zip(points, itertools.cycle(words), strict=False)]
        return [_compared(kind, one, two, questions) for kind, questions in asked.items()]


def differences(source: str) -> list[str]:
    """What the user of a folder would miss on PostgreSQL, of what this collection uses."""
    with NoPokeDB(path=source, read_only=True) as db:
        found = []
        if not is_postgres(source):
            if names := [snapshot.name for snapshot in db.snapshots()]:
                found.append(f"snapshots ({', '.join(names)}): not supported; use backups of the server")
            found.append("undo, backup, restore, snapshots and rollback: the server's own tools take their place")
            found.append("max_memory and durability: settings of the server take their place")
        if engine_of(db).settings_given()["index"] == "scan":
            found.append("index='scan': 'auto' takes its place")
        return found


# --- inside -------------------------------------------------------------------------------------------------


def _opened_target(origin: NoPokeDB, target: str, made: _Copied) -> NoPokeDB:
    """The target, created like the source where it is missing."""
    try:
        return NoPokeDB(path=target)
    except CollectionNotFoundError:
        settings = engine_of(origin).settings_given()
    name = engine_of(origin).embed_name
    if name in MODELS:
        settings["embed"] = name
    elif name:
        made.left_out.append(f"the model {name!r}: hand it in as embed= where texts are to become vectors")
    try:
        return NoPokeDB(path=target, **settings)
    except NotSupportedError as error:
        made.left_out.append(f"index={settings['index']!r}, M and ef_construction: {error}")
        return NoPokeDB(path=target, **{**settings, "index": "auto", "M": 16, "ef_construction": 200})


def _last_id(goal: NoPokeDB, origin: NoPokeDB) -> Id | None:
    """The last id that was copied. Raises if the target is not a beginning of the source."""
    last = last_record(goal)
    if last is None:
        return None
    up_to: dict[str, Any] = {"$id": {"$lte": last.id}}
    if isinstance(last.id, str):  # ints come before
        up_to = {"$or": [up_to, {"$id": {"$gte": -(2**63)}}]}
    if origin.count(up_to) != len(goal):
        raise InvalidInputError(
            f"expected the beginning of {origin.path} in the target, got {len(goal)} records up to {last.id!r} where "
            f"the source has {origin.count(up_to)}; copy into an empty collection"
        )
    return last.id


def batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Batches of bounded size."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += (0 if record.vector is None else record.vector.nbytes) + len(record.text or "")
        size += len(orjson.dumps(record.metadata))
        if len(batch) >= _BATCH_RECORDS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_batch(goal: NoPokeDB, batch: list[Record]) -> None:
    """Whole records as one atomic batch."""
    goal.add_many(
        np.stack([record.vector for record in batch if record.vector is not None]),
        [record.metadata for record in batch],
        ids=[record.id for record in batch],
        texts=[record.text for record in batch],
    )


def last_record(goal: NoPokeDB) -> Record | None:
    """The last one in id order: where a copy stands."""
    return next(goal.scan(order_by="-$id", limit=1, include=()), None)


def side(path: str, records: Iterator[Record]) -> Side:
    """The checksum of whole records in id order."""
    digest = hashlib.sha256()
    count = 0
    for record in records:
        assert record.vector is not None
        digest.update(orjson.dumps([record.id, record.metadata, record.text], option=orjson.OPT_SORT_KEYS))
        digest.update(record.vector.tobytes())
        count += 1
    return Side(path, count, digest.hexdigest())


def between(vectors: Vectors) -> Vectors:
    """Questions: points between vectors that are stored, nearer to the first."""
    points: Vectors = (vectors * np.float32(0.7) + np.roll(vectors, 1, axis=0) * np.float32(0.3)).astype(np.float32)
    points[~points.any(axis=1)] = vectors[~points.any(axis=1)]
    return points


def _compared(kind: str, one: NoPokeDB, two: NoPokeDB, questions: list[dict[str, Any]]) -> Comparison:
    overlaps, times = [], ([], [])  # type: tuple[list[float], tuple[list[float], list[float]]]
    for question in questions:
        found = []
        for db, spent in zip((one, two), times, strict=True):
            start = time.perf_counter()
            found.append({hit.id for hit in db.query(k=_K, **question)})
            spent.append((time.perf_counter() - start) * 1e3)
        largest = max(map(len, found))
        overlaps.append(len(found[0] & found[1]) / largest if largest else 1.0)
    return Comparison(kind, len(questions), float(np.mean(overlaps)), *(float(np.median(spent)) for spent in times))
