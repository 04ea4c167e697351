"""The embedded engine: joins storage, search, both paths and the upkeep for one folder.

The only module that knows all the parts. Writing handles own a `WritePath` and an `Upkeep`, read-only ones a
`Follower`; reads are the same for both.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nopokedb.embedded import recovery
from nopokedb.embedded.follower import Follower
from nopokedb.embedded.read_path import ReadPath, RecordCache
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.lock import WriterLock
from nopokedb.embedded.storage.manifest import Manifest, Settings
from nopokedb.embedded.store import Store
from nopokedb.embedded.upkeep import Upkeep, load_segments
from nopokedb.embedded.write_path import WritePath
from nopokedb.engine import SegmentStats, Stats, Write
from nopokedb.errors import ClosedError, ForkedHandleError, ReadOnlyError, SettingsMismatchError
from nopokedb.records import Hit, Id, Part, Record, Vectors

_CACHE_BYTES = 64 * 2**20
_engines: weakref.WeakSet[EmbeddedEngine] = weakref.WeakSet()
_kept_after_fork: list[Any] = []
"""SQLite connections of the parent: closing them in a child could touch the parent's files."""


class EmbeddedEngine:
    """One open folder."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: Settings | None,
        durability: str,
        read_only: bool,
        max_memory: int | None,
    ) -> None:
        self.folder = folder
        self.read_only = read_only
        self._unusable: type[ClosedError] | type[ForkedHandleError] | None = None
        self._closing = threading.Lock()
        self._notes: list[str] = []
        self._lock: WriterLock | None = None
        self._follower: Follower | None = None
        if read_only:
            manifest = recovery.require_collection(folder)
            _check_settings(folder, manifest.settings, settings)
            self._follower = Follower(folder, max_memory=max_memory)
        else:
            manifest = self._open_writer(settings, durability, max_memory)
        self.settings = manifest.settings
        self.dim, self.space = manifest.settings.dim, manifest.settings.space
        limit = _CACHE_BYTES if max_memory is None else min(_CACHE_BYTES, max_memory // 8)
        self._cache = RecordCache(limit)
        self._attach(self._store())
        _engines.add(self)

    def _open_writer(self, settings: Settings | None, durability: str, max_memory: int | None) -> Manifest:
        folder = self.folder
        manifest = recovery.check_folder(folder)
        if manifest is None and settings is None:
            manifest = recovery.require_collection(folder)  # raises
        elif manifest is None:
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(folder / "LOCK")
        try:
            manifest = recovery.check_folder(folder)  # again: another process may have created it meanwhile
            if manifest is None:
                assert settings is not None
                manifest = recovery.create(folder, settings)
            _check_settings(folder, manifest.settings, settings)
            opened = recovery.open_for_writing(folder, manifest)
        except BaseException:
            self._lock.abandon()
            raise
        snapshot, usable, notes = load_segments(folder, opened.manifest, opened.snapshot, max_memory)
        manifest = replace(opened.manifest, segments=usable)
        self._notes = opened.notes + notes
        self._writes = WritePath(
            opened.store,
            opened.log,
            manifest.settings.dim,
            snapshot,
            durable=durability == "full",
            on_publish=self._published,
        )
        self._upkeep = Upkeep(folder, manifest, opened.store, self._writes, max_memory=max_memory)
        self._writer_store = opened.store
        self._lock.publish(snapshot.lsn)
        if opened.dirty:
            self._upkeep.checkpoint()
        self._upkeep.start()
        return manifest

    def _attach(self, store: Store) -> None:
        self._reads = ReadPath(self.space, store.reader, str(store.vectors.path), self._cache)

    def _published(self, snapshot: Snapshot) -> None:
        assert self._lock is not None
        self._lock.publish(snapshot.lsn)
        self._upkeep.notice(snapshot)

    def _store(self) -> Store:
        return self._follower.store if self._follower is not None else self._writer_store

    def snapshot(self) -> Snapshot:
        """The state that a read starting now sees."""
        if self._unusable is not None:
            self._raise_unusable()
        return self._follower.snapshot if self._follower is not None else self._writes.snapshot

    def _raise_unusable(self) -> None:
        if self._unusable is ForkedHandleError:
            raise ForkedHandleError(
                f"this handle of {self.folder} was opened before a fork and cannot be used in the child; open a new "
                "one there (read_only=True while the parent writes)"
            )
        raise ClosedError(f"the database {self.folder} is closed; open it again")

    # --- writing ---------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[list[Id] | int]:
        """See `nopokedb.engine.Engine.write`."""
        self._check_writable()
        return self._writes.write(writes)

    def reserve_ids(self, count: int) -> list[int]:
        self._check_writable()
        return self._writes.reserve_ids(count)

    def _check_writable(self) -> None:
        if self._unusable is not None:
            self._raise_unusable()
        if self.read_only:
            raise ReadOnlyError(f"{self.folder} was opened with read_only=True; open it without to write")

    # --- reading ---------------------------------------------------------------------------------------------

    def query(
        self, queries: Vectors, k: int, ef: int | None, max_distance: float | None, include: Sequence[Part]
    ) -> list[list[Hit]]:
        if self._follower is not None:
            return self._follower.guarded(
                lambda: self._current().query(self.snapshot(), queries, k, ef, max_distance, include)
            )
        return self._reads.query(self.snapshot(), queries, k, ef, max_distance, include)

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        if self._follower is not None:
            return self._follower.guarded(lambda: self._current().get(self.snapshot(), ids, include))
        return self._reads.get(self.snapshot(), ids, include)

    def exists(self, id_: Id) -> bool:
        if self._follower is not None:
            return self._follower.guarded(lambda: self._current().find(self.snapshot(), [id_])[0] is not None)
        return self._reads.find(self.snapshot(), [id_])[0] is not None

    def count(self) -> int:
        return self.snapshot().live.count

    def scan(self, after: Id | None, limit: int | None, include: Sequence[Part]) -> Iterator[Record]:
        snapshot = self.snapshot()
        return self._reads.scan(snapshot, after, limit, include)

    def _current(self) -> ReadPath:
        """The read path on the follower's current store."""
        store = self._store()
        if self._reads.reader is not store.reader:
            self._attach(store)
        return self._reads

    # --- keeping ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        self._check_writable()
        self._writes.check_usable()
        self._upkeep.checkpoint()

    def refresh(self) -> None:
        if self._unusable is not None:
            self._raise_unusable()
        if self._follower is not None:
            self._follower.refresh()
            self._current()

    def stats(self) -> Stats:
        snapshot = self.snapshot()
        manifest = self._follower.manifest if self._follower is not None else self._upkeep.manifest
        sizes = {path: path.stat().st_size for path in _files(self.folder)}
        log_bytes = sum(size for path, size in sizes.items() if path.parent.name == "oplog")
        index_bytes = sum(size for path, size in sizes.items() if path.parent.name == "index")
        notes = self._follower.notes if self._follower is not None else (*self._notes, *self._upkeep.notes)
        return Stats(
            path=str(self.folder),
            dim=self.dim,
            space=self.space,
            index=self.settings.index,
            count=snapshot.live.count,
            label_count=snapshot.label_count,
            row_count=snapshot.row_count,
            tail_count=snapshot.row_count - snapshot.tail_start,
            segments=tuple(
                SegmentStats(
                    segment.kind,
                    segment.row_count,
                    snapshot.live_count(segment.start, segment.stop),
                    segment.size_bytes,
                    segment.ef_at_10,
                    segment.recall,
                )
                for segment in snapshot.segments
            ),
            sealing=self._follower is None and self._upkeep.sealing,
            lsn=snapshot.lsn,
            checkpoint_lsn=manifest.checkpoint_lsn,
            log_bytes=log_bytes,
            disk_bytes=sum(sizes.values()),
            index_bytes=index_bytes,
            cache_bytes=self._cache.size_bytes,
            read_only=self.read_only,
            notes=tuple(notes),
        )

    def close(self) -> None:
        """Checkpoint to an empty log and give the folder up. Closing twice is harmless."""
        with self._closing:
            if self._unusable is not None:
                return
            self._unusable = ClosedError
            _engines.discard(self)
            if self._follower is not None:
                self._follower.close()
                return
            self._upkeep.stop()
            assert self._lock is not None
            try:
                if self._writes.failure is not None:
                    return
                self._upkeep.checkpoint()
                assert self._writer_store.writer is not None
                self._writer_store.writer.shrink()
            finally:
                self._writes.log.close()
                self._writer_store.close()
                if self._writes.failure is None:
                    self._lock.release(self._writes.snapshot.lsn)
                else:
                    self._lock.abandon()

    def _leave_to_parent(self) -> None:
        """In a forked child: never use what the parent owns, and do not keep its lock alive."""
        if self._unusable is None:
            self._unusable = ForkedHandleError
            if self._lock is not None:
                self._lock.abandon()
            _kept_after_fork.append((self._store(), self._follower))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path


def _check_settings(folder: Path, stored: Settings, given: Settings | None) -> None:
    """What was asked for is what is stored. M, ef_construction and index at their defaults ask for nothing."""
    if given is None:
        return
    defaults = Settings(given.dim, given.space, 16, 200, "auto")
    for name in ("dim", "space", "M", "ef_construction", "index"):
        have, want = getattr(stored, name), getattr(given, name)
        asked = name in ("dim", "space") or want != getattr(defaults, name)
        if asked and have != want:
            raise SettingsMismatchError(
                f"expected {name}={have!r}, with which {folder} was created, got {name}={want!r}"
            )


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
