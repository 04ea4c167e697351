"""The embedded engine: joins storage, search, both paths and the upkeep for one folder.

The only module that knows all the parts. Writing handles own a `WritePath` and an `Upkeep`, read-only ones a
`Follower`; reads are the same for both.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nopokedb.embedded import named, recovery
from nopokedb.embedded.follower import Follower
from nopokedb.embedded.keeping import Keeping
from nopokedb.embedded.read_path import Position, ReadPath, RecordCache
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.lock import WriterLock
from nopokedb.embedded.storage.manifest import Manifest, Settings, write_manifest
from nopokedb.embedded.store import Store
from nopokedb.embedded.upkeep import Upkeep, load_segments
from nopokedb.embedded.write_path import WritePath
from nopokedb.engine import SegmentStats, Stats, Write
from nopokedb.errors import ClosedError, CorruptionError, ForkedHandleError, ReadOnlyError, SettingsMismatchError
from nopokedb.records import Hit, Id, Part, Record, Vectors

_CACHE_BYTES = 64 * 2**20
T = TypeVar("T")
_engines: weakref.WeakSet[EmbeddedEngine] = weakref.WeakSet()
_opening: set[EmbeddedEngine] = set()
"""Engines that hold their lock but are not open yet."""
_kept_after_fork: list[Any] = []
"""Engines of the parent: to close their SQLite connections in a child could touch the parent's files."""


class EmbeddedEngine(Keeping):
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
        self._warm()
        _engines.add(self)
        _opening.discard(self)

    def _open_writer(self, settings: Settings | None, durability: str, max_memory: int | None) -> Manifest:
        folder = self.folder
        if recovery.check_folder(folder) is None:
            if settings is None:
                recovery.require_collection(folder)  # raises
            recovery.make_folder(folder)
        with ExitStack() as opened:
            self._lock = WriterLock(folder / "LOCK")
            opened.callback(self._lock.abandon)
            _opening.add(self)
            opened.callback(_opening.discard, self)
            manifest = recovery.check_folder(folder)  # again: another process may have created it meanwhile
            if manifest is None:
                assert settings is not None
                manifest = recovery.create(folder, settings)
            _check_settings(folder, manifest.settings, settings)
            self._durable = durable = durability == "full"
            found = recovery.open_for_writing(folder, manifest, durable=durable)
            opened.callback(found.store.close)
            opened.callback(found.log.close)
            snapshot, usable, notes = load_segments(folder, found.manifest, found.snapshot, max_memory)
            manifest = replace(found.manifest, segments=usable)
            if usable != found.manifest.segments:
                # Also on the medium: rows written later may fill the range of an index that does not fit to them.
                write_manifest(folder, manifest)
            self._notes = found.notes + notes
            self._writes = WritePath(
                found.store,
                found.log,
                manifest.settings.dim,
                snapshot,
                durable=durable,
                on_publish=self._published,
            )
            self._upkeep = Upkeep(folder, manifest, found.store, self._writes, max_memory=max_memory)
            self._writer_store = found.store
            if found.dirty:
                self._upkeep.checkpoint()
            self._lock.publish(snapshot.lsn)
            self._upkeep.start()
            opened.pop_all()
        return manifest

    def _attach(self, store: Store) -> None:
        self._reads = ReadPath(self.space, store.reader, str(store.vectors.path), str(store.labels.path), self._cache)

    def _warm(self) -> None:
        """Ask once, so that the first user's query does not pay for cold memory and unprepared statements. Only where
        indexes are loaded: then a query touches little."""
        if self.snapshot().segments:
            query = np.ones((1, self.dim), np.float32)
            try:
                self._read(lambda reads: reads.query(self.snapshot(), query, 10, None, None, ("metadata",)))
            except CorruptionError as error:  # whoever asks for the damaged record will be told again
                self._notes.append(str(error))

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

    def reserve_ids(self, count: int, above: int) -> list[int]:
        self._check_writable()
        return self._writes.reserve_ids(count, above)

    def _check_writable(self) -> None:
        if self._unusable is not None:
            self._raise_unusable()
        if self.read_only:
            raise ReadOnlyError(f"{self.folder} was opened with read_only=True; open it without to write")

    # --- reading ---------------------------------------------------------------------------------------------

    def query(
        self, queries: Vectors, k: int, ef: int | None, max_distance: float | None, include: Sequence[Part]
    ) -> list[list[Hit]]:
        if self._follower is None:
            self._upkeep.scrub.raise_if_damaged(self.snapshot())
        return self._read(lambda reads: reads.query(self.snapshot(), queries, k, ef, max_distance, include))

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        return self._read(lambda reads: reads.get(self.snapshot(), ids, include))

    def exists(self, id_: Id) -> bool:
        return self._read(lambda reads: reads.find(self.snapshot(), [id_])[0] is not None)

    def count(self) -> int:
        return self.snapshot().live.count

    def scan(self, after: Id | None, limit: int | None, include: Sequence[Part]) -> Iterator[Record]:
        return self._scan(self.snapshot(), after, limit, include)

    def _scan(
        self, snapshot: Snapshot, after: Id | None, limit: int | None, include: Sequence[Part]
    ) -> Iterator[Record]:
        """Page by page, so that no read of the stores stays open between two records."""
        # Behind every version of `after`: no label is as large.
        position: Position | None = None if after is None else (after, 2**62)
        while limit is None or limit > 0:
            at = position
            page, position = self._read(partial(self._scan_page, snapshot, at, limit, include))
            yield from page
            if position is None:
                return
            if limit is not None:
                limit -= len(page)

    def _scan_page(
        self,
        snapshot: Snapshot,
        position: Position | None,
        limit: int | None,
        include: Sequence[Part],
        reads: ReadPath,
    ) -> tuple[list[Record], Position | None]:
        if self._unusable is not None:
            self._raise_unusable()
        return reads.scan_page(snapshot, position, limit, include)

    def _read(self, read: Callable[[ReadPath], T]) -> T:
        """Run a read on the current stores."""
        if self._follower is None:
            return read(self._reads)
        return self._follower.guarded(lambda: read(self._current()))

    def _current(self) -> ReadPath:
        """The read path on the stores that the follower has open now."""
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
        sizes = _file_sizes(self.folder)
        log_bytes = sum(size for path, size in sizes.items() if path.parent.name == "oplog")
        index_bytes = sum(size for path, size in sizes.items() if path.parent.name == "index")
        notes = (*self._notes, *(self._follower.notes if self._follower is not None else self._upkeep.notes))
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
            snapshots=tuple(named.names(self.folder)),
            scrub_progress=0.0 if self._follower is not None else self._upkeep.scrub.progress(snapshot),
            scrub_passes=0 if self._follower is not None else self._upkeep.scrub.passes,
            damaged_count=0 if self._follower is not None else len(self._upkeep.scrub.damaged),
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
            with ExitStack() as closing:
                # Called in the opposite order; each step is taken whatever the others raise.
                closing.callback(self._release_lock)
                closing.callback(self._writer_store.close)
                closing.callback(self._writes.log.close)
                self._writes.shut()
                self._upkeep.finish()

    def _release_lock(self) -> None:
        assert self._lock is not None
        if self._upkeep.finished:
            self._lock.release(self._writes.snapshot.lsn)
        else:
            self._lock.abandon()

    def _leave_to_parent(self) -> None:
        """In a forked child: never use what the parent owns, and do not keep its lock alive."""
        if self._unusable is None:
            self._unusable = ForkedHandleError
            if self._lock is not None:
                self._lock.leave_to_parent()
            _kept_after_fork.append(self)


def _file_sizes(folder: Path) -> dict[Path, int]:
    """Sizes of all files below; one that goes away meanwhile is left out."""
    sizes = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:
                continue
    return sizes


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
    for engine in {*_engines, *_opening}:
        engine._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    """Close what the program left open, before the interpreter ends under the upkeep threads."""
    for engine in list(_engines):
        engine.close()
