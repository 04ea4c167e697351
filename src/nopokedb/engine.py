"""What an engine must do. `database.NoPokeDB` checks every argument and then calls one of these.

Engines get canonical arguments only (records.py), so they all accept and refuse alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from nopokedb.backups import Backup
from nopokedb.problems import Problem
from nopokedb.records import Hit, Id, Part, Record, Vectors
from nopokedb.views import Moment, NamedSnapshot


@dataclass(frozen=True, slots=True)
class Write:
    """One part of an atomic batch, in columns. A column that is None was not given."""

    kind: Literal["add", "upsert", "update", "delete"]
    ids: Sequence[Id] | None
    """None with "add": automatic ids."""
    count: int
    vectors: Vectors | None = None
    """Shape (count, dim)."""
    metadatas: Sequence[bytes | None] | None = None
    """JSON bytes per record; None keeps what is there ("upsert")."""
    texts: Sequence[str | None] | None = None
    """Text per record; None keeps what is there ("upsert")."""
    merge: bool = False
    """Metadata are merge patches."""


@dataclass(frozen=True, slots=True)
class SegmentStats:
    """One index over a range of rows."""

    kind: str
    """"scan" or "hnsw". Rows for which no index reached the recall goal are in none: they are searched exactly."""
    row_count: int
    live_count: int
    size_bytes: int
    """Memory it holds beyond the mapped vectors."""
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


class Engine(Protocol):
    """The operations behind `NoPokeDB`."""

    dim: int
    space: str

    def write(self, writes: Sequence[Write]) -> list[list[Id] | int]:
        """Write one atomic batch; per part the ids ("add", "upsert") or the number of records ("update", "delete").
        Durable and visible to every later read when this returns."""
        ...

    def reserve_ids(self, count: int, above: int) -> list[int]:
        """Automatic ids, larger than `above`, that no other call of this handle gets."""
        ...

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]: ...
    def exists(self, id_: Id) -> bool: ...
    def count(self) -> int: ...
    def scan(self, after: Id | None, limit: int | None, include: Sequence[Part]) -> Iterator[Record]: ...

    def query(
        self, queries: Vectors, k: int, ef: int | None, max_distance: float | None, include: Sequence[Part]
    ) -> list[list[Hit]]: ...

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
