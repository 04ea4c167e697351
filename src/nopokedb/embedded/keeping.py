"""`Keeping`: the part of the engine that looks after a folder: undo, named snapshots, backup, check.

A base of `EmbeddedEngine` in a file of its own. It adds no state: each method takes the handle's parts, which are
declared here, and calls the module that knows how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nopokedb.backups import Backup
from nopokedb.embedded import named
from nopokedb.embedded.backup import Source, write_backup
from nopokedb.embedded.check import check_reading, check_writing
from nopokedb.embedded.compensation import frame_of, rollback_frame, undo_last
from nopokedb.embedded.follower import Follower
from nopokedb.embedded.read_path import ReadPath
from nopokedb.embedded.resolve import Position
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.store import Store
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.embedded.write_path import Drafted, WritePath
from nopokedb.problems import Problem
from nopokedb.records import Hit, Id, Part, Record, Vectors
from nopokedb.views import Moment, NamedSnapshot

T = TypeVar("T")


class Keeping:
    """Undo, named snapshots, backup and check of one open folder."""

    folder: Path
    dim: int
    space: str
    _durable: bool
    _follower: Follower | None
    _upkeep: Upkeep
    _writer_store: Store
    _writes: WritePath

    def snapshot(self) -> Snapshot:
        raise NotImplementedError

    def _check_writable(self) -> None:
        raise NotImplementedError

    def _read(self, read: Callable[[ReadPath], T]) -> T:
        raise NotImplementedError

    def _scan(
        self, snapshot: Snapshot, after: Id | None, limit: int | None, include: Sequence[Part]
    ) -> Iterator[Record]:
        raise NotImplementedError

    def undo(self) -> int:
        self._check_writable()
        with self._upkeep.steady():
            return undo_last(self._writes, self._writer_store)

    def exchange_versions(self, retire: Sequence[int], versions: Sequence[tuple[Stored, str | None]]) -> None:
        """One batch that retires labels and writes these versions on the rows that they name; for repair."""
        self._check_writable()
        generation = self._writer_store.generation
        self._writes.write_drafted(lambda *now: (frame_of(retire, versions, *now, generation=generation), []))

    def backup(self, target: Path, since: int | Path | None) -> Backup:
        snapshot = self.snapshot()
        if self._follower is None and isinstance(since, int):
            with self._upkeep.steady() as manifest:
                snapshot, log = self._writes.held_log(manifest.checkpoint_lsn, manifest.first_log)
            return write_backup(Source(self.folder, manifest, snapshot, self._read, log), target, since)
        return write_backup(Source(self.folder, self._manifest(), snapshot, self._read), target, since)

    def snapshot_create(self, name: str) -> NamedSnapshot:
        self._check_writable()
        self._writes.check_usable()
        if not self._durable:
            self._upkeep.checkpoint()  # what the name stands for must not be less durable than the name
        with self._upkeep.steady() as manifest:
            return named.create(self.folder, name, manifest, self.snapshot())

    def snapshots(self) -> list[NamedSnapshot]:
        self.snapshot()
        manifest = self._manifest()
        return [named.load(self.folder, name, manifest).named for name in named.names(self.folder)]

    def at(self, name: str) -> tuple[Moment, NamedSnapshot]:
        now = self.snapshot()
        stored = named.load(self.folder, name, self._manifest())
        state = named.as_snapshot(stored, now, named.path_of(self.folder, name))
        return _MomentOf(self, state), stored.named

    def rollback(self, name: str) -> int:
        self._check_writable()
        changed = 0
        stored = named.load(self.folder, name, self._manifest())

        def draft(position: Position, snapshot: Snapshot) -> Drafted | None:
            nonlocal changed
            store = self._writer_store
            drafted, changed = rollback_frame(
                stored.live, store.reader, position, snapshot, generation=store.generation
            )
            return drafted

        self._writes.write_drafted(draft)
        return changed

    def drop_snapshot(self, name: str) -> None:
        self._check_writable()
        named.drop(self.folder, name)

    def _manifest(self) -> Manifest:
        return self._follower.manifest if self._follower is not None else self._upkeep.manifest

    def raise_auto_ids(self, next_auto_id: int) -> None:
        """No automatic id below this from now on, durably; for restoring."""
        self._check_writable()
        generation = self._writer_store.generation

        def draft(position: Position, snapshot: Snapshot) -> Drafted:
            ahead = replace(position, next_auto_id=max(position.next_auto_id, next_auto_id))
            return frame_of([], [], ahead, snapshot, generation=generation), []

        self._writes.write_drafted(draft)

    def check(self, deep: bool) -> list[Problem]:
        self.snapshot()  # raises where the handle is closed or of the parent process
        if self._follower is not None:
            return check_reading(self.folder, deep=deep)
        with self._upkeep.steady() as manifest:
            return check_writing(self.folder, manifest, self._writes, deep=deep)


class _MomentOf:
    """The read methods of an engine, bound to one state."""

    def __init__(self, engine: Keeping, state: Snapshot) -> None:
        self._engine, self._state = engine, state
        self.dim, self.space = engine.dim, engine.space

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        return self._read(lambda reads: reads.get(self._state, ids, include))

    def count(self) -> int:
        return self._state.live.count

    def scan(self, after: Id | None, limit: int | None, include: Sequence[Part]) -> Iterator[Record]:
        return self._engine._scan(self._state, after, limit, include)

    def query(
        self, queries: Vectors, k: int, ef: int | None, max_distance: float | None, include: Sequence[Part]
    ) -> list[list[Hit]]:
        return self._read(lambda reads: reads.query(self._state, queries, k, ef, max_distance, include))

    def _read(self, read: Callable[[ReadPath], T]) -> T:
        self._engine.snapshot()  # raises where the handle is closed or of the parent process
        return self._engine._read(read)
