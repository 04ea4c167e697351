"""What an engine must do. `database.NoPokeDB` checks every argument and then calls one of these.

Engines get canonical arguments only (records.py), so they all accept and refuse alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from nopokedb.backups import Backup
from nopokedb.embedding.embedder import Embedder
from nopokedb.filters import Filter, Scalar
from nopokedb.filters import Path as FieldPath
from nopokedb.plan import Plan
from nopokedb.problems import Problem
from nopokedb.records import Group, Hit, Id, Part, Record, Vectors
from nopokedb.text_query import TextQuery

if TYPE_CHECKING:
    from nopokedb.recall import Recall

DEFAULT_RECALL = 0.99
"""What a query reaches when nothing is said."""


@dataclass(frozen=True, slots=True)
class Write:
    """One part of an atomic batch, in columns. A column that is None was not given."""

    kind: Literal["add", "upsert", "update", "delete"]
    ids: Sequence[Id] | None
    """None with "add": automatic ids. None with "update" and "delete": the records that pass `where`."""
    count: int
    vectors: Vectors | None = None
    """Shape (count, dim)."""
    metadatas: Sequence[bytes | None] | None = None
    """JSON bytes per record; None keeps what is there ("upsert")."""
    texts: Sequence[str | None] | None = None
    """Text per record; None keeps what is there ("upsert")."""
    merge: bool = False
    """Metadata are merge patches."""
    computed: Sequence[bool] | None = None
    """The vectors were computed from the texts, where True; where False there is none. Such a vector never replaces
    one that was given by hand."""
    where: Filter | None = None
    """Which records, with "update" and "delete"; then this is the only part of its batch."""


@dataclass(slots=True)
class Query:
    """What is asked, checked. Each line of `vectors` is a question of its own; without vectors there is one."""

    vectors: Vectors | None
    """Shape (n, dim)."""
    k: int
    ef: int | None
    include: Sequence[Part]
    recall: float = DEFAULT_RECALL
    """To reach where `ef` is None; 1: exactly."""
    where: Filter | None = None
    texts: Sequence[TextQuery] | None = None
    """One per vector, or one."""
    max_distance: float | None = None
    like: Sequence[Id] = ()
    """Records whose vectors take the place of `vectors`; they are no answers themselves."""
    unlike: Sequence[Id] = ()
    alpha: float | None = None
    """Weight of the vector side, None: fusion by reciprocal ranks."""
    diversity: float | None = None
    group_by: FieldPath | None = None
    group_size: int = 0
    """0: hits are not grouped."""
    highlight: bool = False
    all_cores: bool = True
    """Several vectors are searched on all cores; False: on the calling thread, since others use the cores."""

    @property
    def plain(self) -> bool:
        """Vectors, a filter and a distance, and nothing else."""
        return not (self.texts or self.like or self.diversity is not None or self.group_size)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a scan by a field; records without it come last, ties are in id order."""

    path: FieldPath
    descending: bool = False


Answer: TypeAlias = list[Hit] | list[Group]


@dataclass(frozen=True, slots=True)
class SegmentStats:
    """One index over a range of rows."""

    kind: str
    """"scan" or "hnsw". Rows for which no index reached the recall goal are in none: they are searched exactly."""
    row_count: int
    live_count: int
    size_bytes: int
    """Memory it holds beyond the mapped vectors; of a graph with that of the scan that it keeps for filters."""
    ef_at_10: int
    """Candidates it examines for k = 10 unless told otherwise."""
    recall: float
    """Recall@10 measured when it was sealed."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A moment of a collection. Sizes are in bytes."""

    path: str
    dim: int
    space: str
    index: str
    count: int
    """Live records."""
    label_count: int
    """Record versions ever written in this generation."""
    row_count: int
    """Vectors in the vectors file, retired ones included."""
    tail_count: int
    """Rows that no segment covers; they are searched exactly."""
    segments: tuple[SegmentStats, ...]
    sealing: bool
    """Background sealing is running or due."""
    lsn: int
    checkpoint_lsn: int
    log_bytes: int
    disk_bytes: int
    index_bytes: int
    """Part of `disk_bytes` that is derived and may be deleted."""
    cache_bytes: int
    """Records and filters kept in memory."""
    generation: int
    """1, and one more for each compaction."""
    reclaimable_bytes: int
    """What a compaction would give back on disk, estimated."""
    indexed_fields: tuple[str, ...]
    """Fields with an index, as paths; those that were indexed because filters use them often included."""
    read_only: bool
    notes: tuple[str, ...]
    """What opening repaired or dropped, and indexes that were refused, in words."""
    snapshots: tuple[str, ...] = ()
    """Names of the snapshots that are kept."""
    scrub_progress: float = 0.0
    """Share of the vectors that the running pass of the background scrub has compared with their checksums; 1.0
    between two passes. Read-only handles do not scrub."""
    scrub_passes: int = 0
    """Passes over all vectors since this handle was opened."""
    damaged_count: int = 0
    """Damaged vectors that the scrub knows of; queries raise `CorruptionError` while a record uses one."""
    retired_count: int = 0
    """Record versions that are current no more: replaced, deleted, or needed by named snapshots only."""
    vectors_bytes: int = 0
    """Part of `disk_bytes`: vectors, their checksums and the table of versions, with the room ahead of them."""
    metadata_bytes: int = 0
    """Part of `disk_bytes`: ids, metadata, texts and indexes on fields, in SQLite's files."""
    index_memory_bytes: int = 0
    """Search indexes in memory."""
    tables_memory_bytes: int = 0
    """Live sets, and the newest version of each row, in memory. (Vectors are mapped: the system decides.)"""
    checkpoint_age_s: float | None = None
    """Seconds since the last checkpoint; None before the first."""
    lock_holder: int | None = None
    """Process id of the writer, None where nobody has the folder open for writing."""
    sync_count: int = 0
    """Syncs of the operation log since this handle was opened. A group of batches shares one."""
    sync_seconds: float = 0.0
    """Seconds that these took."""
    cache_hits: int = 0
    """Records of answers that were in memory, approximately; since the last compaction."""
    cache_misses: int = 0
    """Those that had to be read."""


@dataclass(frozen=True, slots=True)
class NamedSnapshot:
    """A moment of a collection that was given a name."""

    name: str
    lsn: int
    count: int
    """Records it has."""
    created_at: datetime
    """In UTC."""


class Moment(Protocol):
    """Reads of one state: the current one of an engine, or that of a named snapshot."""

    dim: int
    space: str
    embed_name: str
    """The model that its vectors are of, "" for none."""
    embed_fingerprint: tuple[float, ...]

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]: ...
    def exists(self, id_: Id) -> bool: ...
    def count(self, where: Filter | None) -> int: ...

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        """Records of one snapshot in id order, from behind the id `after`; with `order_by` in the order of a field,
        from behind a cursor."""
        ...

    def facet(self, path: FieldPath, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]: ...

    def query(self, query: Query) -> list[Answer]:
        """The answer to each question."""
        ...


class Reembedding(Protocol):
    """A collection gets another model. A context: leaving it without a switch leaves everything as it was."""

    def __enter__(self) -> Reembedding: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def fill(self, report: Callable[[int], object]) -> None:
        """Make the new vectors while writing and reading go on; `report` is told of records that are done."""
        ...

    def switch(self) -> tuple[Engine, NamedSnapshot | BaseException]:
        """The engine that goes on in place of this one, and the snapshot of the old state; or what went wrong, with an
        engine that has the old model."""
        ...


class Engine(Moment, Protocol):
    """The operations behind `NoPokeDB`."""

    def settings_given(self) -> dict[str, Any]:
        """Arguments of `NoPokeDB` that make a collection like this one: dim, space, index, M, ef_construction,
        text_language, indexed_fields."""
        ...

    def write(self, writes: Sequence[Write]) -> list[list[Id] | int]:
        """Write one atomic batch; per part the ids ("add", "upsert") or the number of records ("update", "delete").
        Durable and visible to every later read when this returns."""
        ...

    def reserve_ids(self, count: int, above: int) -> list[int]:
        """Automatic ids, larger than `above`, that no other call of this handle gets."""
        ...

    def explain(self, query: Query) -> Plan:
        """Answer one question, and say how."""
        ...

    def sample(self, count: int, where: Filter | None) -> tuple[list[Id], Vectors]:
        """Ids and vectors (n, dim) of up to `count` records that pass the filter, chosen by chance."""
        ...

    def measure_recall(self, query: Query, sample: int) -> Recall:
        """The recall of this query's settings: on its vectors, or where it has none on a sample of what is stored."""
        ...

    def create_index(self, path: tuple[str, ...]) -> None: ...
    def drop_index(self, path: tuple[str, ...]) -> bool: ...

    def compact(self) -> int:
        """Give back what replaced and deleted records hold on disk; how many bytes that is."""
        ...

    def optimize(self, report: Callable[[int, int], object]) -> None:
        """Index and merge everything now; `report` is told how many records are done, of how many."""
        ...

    def reembedding(self, model: Embedder, snapshot: str | None) -> Reembedding:
        """Begin to give the collection another model; the old state is kept as a named snapshot."""
        ...

    def save(self) -> None: ...
    def undo(self) -> int: ...
    def check(self, deep: bool) -> list[Problem]: ...
    def backup(self, target: Path, since: int | Path | None) -> Backup: ...
    def snapshot_create(self, name: str) -> NamedSnapshot: ...
    def snapshots(self) -> list[NamedSnapshot]: ...
    def at(self, name: str) -> tuple[Moment, NamedSnapshot]: ...
    def rollback(self, name: str) -> int: ...
    def drop_snapshot(self, name: str) -> None: ...
    def refresh(self) -> None: ...
    def stats(self) -> Stats: ...
    def close(self) -> None: ...
