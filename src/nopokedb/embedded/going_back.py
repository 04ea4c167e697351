"""`GoingBack`: what the embedded engine does to keep a moment or bring one back: undo, named snapshots, backup.

A part of that class in a file of its own. What it writes is one drafted batch (compensation.py), which goes through the
write path like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nopokedb.backups import Backup
from nopokedb.embedded import earlier, named
from nopokedb.embedded.backup import Source, write_backup
from nopokedb.embedded.compaction import Compaction
from nopokedb.embedded.compensation import frame_of, rollback_frame, undo_last
from nopokedb.embedded.follower import Follower
from nopokedb.embedded.moments import MomentReads
from nopokedb.embedded.read_path import ReadPath
from nopokedb.embedded.reembedding import Reembedding
from nopokedb.embedded.resolve import Position
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.manifest import Manifest, Settings
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.embedded.write_path import Drafted, WritePath
from nopokedb.embedding.embedder import Embedder
from nopokedb.engine import Moment, NamedSnapshot
from nopokedb.errors import InvalidInputError

T = TypeVar("T")


class GoingBack:
    """See the top of this module."""

    folder: Path
    dim: int
    space: str
    settings: Settings
    _durable: bool
    _follower: Follower | None
    _writes: WritePath
    _upkeep: Upkeep
    _compaction: Compaction
    _closing: threading.Lock
    _earlier: dict[Path, GoingBack]
    """Engines of earlier collections that were asked for, by folder."""

    if TYPE_CHECKING:  # what the engine brings

        def snapshot(self) -> Snapshot: ...
        def close(self) -> None: ...
        def _check_writable(self) -> None: ...
        def _manifest(self) -> Manifest: ...
        def _reads_of(self, snapshot: Snapshot) -> ReadPath: ...
        def _read_open(self, reads: ReadPath, read: Callable[[ReadPath], T]) -> T: ...

    def undo(self) -> int:
        self._check_writable()
        with self._upkeep.steady():
            return undo_last(self._writes, self._writes.snapshot.store)

    def exchange_versions(self, retire: Sequence[int], versions: Sequence[tuple[Stored, str | None]]) -> None:
        """One batch that retires labels and writes these versions on the rows that they name; for repair."""
        self._check_writable()
        self._writes.write_drafted(lambda position, now: (frame_of(retire, versions, position, now), []))

    def backup(self, target: Path, since: int | Path | None) -> Backup:
        if self._follower is None and isinstance(since, int):
            with self._upkeep.steady() as manifest:
                snapshot, log = self._writes.held_log(manifest.checkpoint_lsn, manifest.first_log)
            source = Source(self.folder, manifest, snapshot, self._reader_of(snapshot), log)
        else:
            manifest, snapshot = self._manifest_and_snapshot()
            source = Source(self.folder, manifest, snapshot, self._reader_of(snapshot))
        return write_backup(source, target, since)

    def snapshot_create(self, name: str) -> NamedSnapshot:
        self._check_writable()
        self._writes.check_usable()
        if not self._durable:
            self._upkeep.checkpoint()  # what the name stands for must not be less durable than the name
        with self._compaction.held(), self._upkeep.steady() as manifest:
            self._check_writable()  # again: another model may have come
            if earlier.find(self.folder, name, manifest) is not None:
                raise InvalidInputError(f"expected the name of a new snapshot, but {name!r} exists; drop it first")
            return named.create(self.folder, name, manifest, self.snapshot())

    def snapshots(self) -> list[NamedSnapshot]:
        self.snapshot()
        manifest = self._manifest()
        found = named.listed(self.folder, manifest) + earlier.listed(self.folder, manifest)
        return sorted(found, key=lambda item: item.name)

    def at(self, name: str) -> tuple[Moment, NamedSnapshot]:
        manifest, now = self._manifest_and_snapshot()
        if (kept := self._kept_in(name, manifest)) is not None:
            return self._earlier_engine(kept, manifest).at(name)
        stored = named.load(self.folder, name, manifest)
        state = named.as_snapshot(stored, now, named.path_of(self.folder, name, manifest))
        read = self._reader_of(now)
        return MomentReads(self.settings, read, state), stored.named

    def _kept_in(self, name: str, manifest: Manifest) -> Path | None:
        """The earlier collection that has this snapshot, None if the present one has it or nobody does."""
        own = name in named.names(self.folder, manifest)
        return None if own else earlier.find(self.folder, name, manifest)

    def _earlier_engine(self, folder: Path, manifest: Manifest) -> GoingBack:
        """A handle on an earlier collection, as long as this one is open."""
        with self._closing:
            self.snapshot()
            if folder not in self._earlier:
                earlier.require_readable(folder, manifest)
                self._earlier[folder] = type(self)(  # type: ignore[call-arg]  # of which this is a part
                    folder, settings=None, durability="full", read_only=True, max_memory=None
                )
            return self._earlier[folder]

    def reembedding(self, model: Embedder, snapshot: str | None) -> Reembedding:
        """See `nopokedb.engine.Engine.reembedding`."""
        self._check_writable()
        return Reembedding(self, model, snapshot)  # type: ignore[arg-type]  # of which this is a part

    def rollback(self, name: str) -> int:
        self._check_writable()
        changed = 0
        with self._upkeep.steady() as manifest:
            if (kept := self._kept_in(name, manifest)) is not None:
                raise InvalidInputError(
                    f"expected a snapshot of the present model, got {name!r}, whose vectors are of the one before; "
                    f"read it with at({name!r}), or open a copy of {kept}"
                )
            stored = named.load(self.folder, name, manifest)

            def draft(position: Position, snapshot: Snapshot) -> Drafted | None:
                nonlocal changed
                drafted, changed = rollback_frame(stored.live, position, snapshot)
                return drafted

            self._writes.write_drafted(draft)
        return changed

    def drop_snapshot(self, name: str) -> None:
        self._check_writable()
        with self._compaction.held(), self._upkeep.steady() as manifest:
            self._check_writable()  # again: another model may have come
            if (kept := self._kept_in(name, manifest)) is not None:
                if earlier.is_last(kept, name, manifest) and (opened := self._earlier.pop(kept, None)) is not None:
                    opened.close()
                earlier.drop(kept, name, manifest)
                return
            named.drop(self.folder, name, manifest)

    def _manifest_and_snapshot(self) -> tuple[Manifest, Snapshot]:
        """Both of one generation."""
        while True:
            snapshot = self.snapshot()
            manifest = self._manifest()
            if manifest.generation == snapshot.store.generation:
                return manifest, snapshot

    def _reader_of(self, snapshot: Snapshot) -> Callable[[Callable[[ReadPath], T]], T]:
        """What runs reads on the stores of this snapshot, also after a new generation has come."""
        reads = self._reads_of(snapshot)
        return lambda read: self._read_open(reads, read)

    def raise_auto_ids(self, next_auto_id: int) -> None:
        """No automatic id below this from now on, durably; for restoring."""
        self._check_writable()

        def draft(position: Position, snapshot: Snapshot) -> Drafted:
            ahead = replace(position, next_auto_id=max(position.next_auto_id, next_auto_id))
            return frame_of([], [], ahead, snapshot), []

        self._writes.write_drafted(draft)
