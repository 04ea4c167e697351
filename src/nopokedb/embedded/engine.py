"""The embedded engine: joins storage, search, both paths and the upkeep for one folder.

The only module that knows all the parts. Writing handles own a `WritePath` and an `Upkeep`, read-only ones a
`Follower`; reads are the same for both.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nopokedb.backups import Backup
from nopokedb.embedded import named, recovery
from nopokedb.embedded.allowed import FilterCache
from nopokedb.embedded.backup import Source, write_backup
from nopokedb.embedded.check import check_reading, check_writing
from nopokedb.embedded.compensation import frame_of, rollback_frame, undo_last
from nopokedb.embedded.field_indexes import FieldIndexes
from nopokedb.embedded.follower import Follower
from nopokedb.embedded.moments import MomentReads
from nopokedb.embedded.read_path import ReadPath, RecordCache
from nopokedb.embedded.resolve import Position
from nopokedb.embedded.scanning import selected_ids
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.statistics import stats_of
from nopokedb.embedded.storage.lock import WriterLock
from nopokedb.embedded.storage.manifest import Manifest, Settings, write_manifest
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.store import Store
from nopokedb.embedded.text_keeping import TextKeeping
from nopokedb.embedded.text_view import TextView
from nopokedb.embedded.upkeep import Upkeep, load_segments
from nopokedb.embedded.write_path import Drafted, WritePath
from nopokedb.engine import Answer, Moment, NamedSnapshot, Order, Query, Stats, Write
from nopokedb.errors import ClosedError, CorruptionError, ForkedHandleError, ReadOnlyError, SettingsMismatchError
from nopokedb.filters import Filter, Scalar, path_text
from nopokedb.filters import Path as FieldPath
from nopokedb.problems import Problem
from nopokedb.records import Id, Part, Record

_log = logging.getLogger("nopokedb")

_CACHE_BYTES = 64 * 2**20
T = TypeVar("T")
_engines: weakref.WeakSet[EmbeddedEngine] = weakref.WeakSet()
_opening: set[EmbeddedEngine] = set()
"""Engines that hold their lock but are not open yet."""
_kept_after_fork: list[Any] = []
"""Engines of the parent: to close their SQLite connections in a child could touch the parent's files."""


class EmbeddedEngine:
    """One open folder."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: Settings | None,
        indexed_fields: Sequence[tuple[str, ...]] = (),
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
            try:
                _check_fields(folder, self._follower.store, indexed_fields)
            except BaseException:
                self._follower.close()
                raise
        else:
            manifest = self._open_writer(settings, indexed_fields, durability, max_memory)
        self.settings = manifest.settings
        self.dim, self.space = manifest.settings.dim, manifest.settings.space
        self.embed_name, self.embed_fingerprint = manifest.settings.embed_name, manifest.settings.embed_fingerprint
        limit = _CACHE_BYTES if max_memory is None else min(_CACHE_BYTES, max_memory // 8)
        self._cache = RecordCache(limit)
        self._filters = FilterCache(limit, self._filter_searched)
        self._texts = TextKeeping(None if read_only else folder, manifest.settings.text_language, self._labels_identity)
        self._now = MomentReads(
            self.dim, self.space, self._read, self.snapshot, lambda: self._texts.view(self._store())
        )
        self._attach(self._store())
        self._warm()
        _engines.add(self)
        _opening.discard(self)

    def _open_writer(
        self,
        settings: Settings | None,
        indexed_fields: Sequence[tuple[str, ...]],
        durability: str,
        max_memory: int | None,
    ) -> Manifest:
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
                manifest = recovery.create(folder, settings, indexed_fields)
            _check_settings(folder, manifest.settings, settings)
            self._durable = durable = durability == "full"
            found = recovery.open_for_writing(folder, manifest, durable=durable)
            opened.callback(found.store.close)
            opened.callback(found.log.close)
            _check_fields(folder, found.store, indexed_fields)
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
                select=lambda where, state: selected_ids(self._reads, state, where),
            )
            self._upkeep = Upkeep(folder, manifest, found.store, self._writes, max_memory=max_memory)
            self._writer_store = found.store
            self._fields = FieldIndexes(found.store, self._writes, self._upkeep)
            self._upkeep.add_chore(self._keep_texts)
            if found.dirty:
                self._upkeep.checkpoint()
            self._lock.publish(snapshot.lsn)
            self._upkeep.start()
            opened.pop_all()
        return manifest

    def _attach(self, store: Store) -> None:
        self._reads = ReadPath(
            self.space, store.reader, str(store.vectors.path), str(store.labels.path), self._cache, self._filters
        )

    def _warm(self) -> None:
        """Ask once, so that the first user's query does not pay for cold memory and unprepared statements. Only where
        indexes are loaded: then a query touches little."""
        if self.snapshot().segments:
            query = np.ones((1, self.dim), np.float32)
            try:
                self._read(lambda reads: reads.query(self.snapshot(), Query(query, 10, None, ("metadata",))))
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

    def query(self, query: Query) -> list[Answer]:
        """See `nopokedb.engine.Engine.query`."""
        if self._follower is None:
            self._upkeep.scrub.raise_if_damaged(self.snapshot())
        return self._now.query(query)

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        return self._now.get(ids, include)

    def exists(self, id_: Id) -> bool:
        return self._now.exists(id_)

    def count(self, where: Filter | None) -> int:
        return self._now.count(where)

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        return self._now.scan(where, order_by, after, limit, include)

    def facet(self, path: FieldPath, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]:
        return self._now.facet(path, where, limit)

    def _read(self, read: Callable[[ReadPath], T]) -> T:
        """Run a read on the current stores. It may be part of a longer one that began before the handle was closed."""
        if self._unusable is not None:
            self._raise_unusable()
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

    def create_index(self, path: tuple[str, ...]) -> None:
        self._check_writable()
        self._fields.create(path)

    def drop_index(self, path: tuple[str, ...]) -> bool:
        self._check_writable()
        return self._fields.drop(path)

    def _labels_identity(self) -> int:
        """What labels mean depends on the collection and on its generation."""
        manifest = self._manifest()
        return manifest.identity * 2**10 + manifest.generation

    def _filter_searched(self, path: tuple[str, ...]) -> None:
        if self._follower is None:
            self._fields.notice(path)

    def save(self) -> None:
        self._check_writable()
        self._writes.check_usable()
        self._upkeep.checkpoint()

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
        texts: list[TextView] = []  # one index for all text queries of this moment, built at the first

        def view() -> TextView:
            if not texts:
                texts.append(self._texts.of_moment(self._store()))
            return texts[0]

        return MomentReads(self.dim, self.space, self._read, lambda: state, view), stored.named

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

    def raise_auto_ids(self, next_auto_id: int) -> None:
        """No automatic id below this from now on, durably; for restoring."""
        self._check_writable()
        generation = self._writer_store.generation

        def draft(position: Position, snapshot: Snapshot) -> Drafted:
            ahead = replace(position, next_auto_id=max(position.next_auto_id, next_auto_id))
            return frame_of([], [], ahead, snapshot, generation=generation), []

        self._writes.write_drafted(draft)

    def check(self, deep: bool) -> list[Problem]:
        if self._unusable is not None:
            self._raise_unusable()
        if self._follower is not None:
            return check_reading(self.folder, deep=deep)
        with self._upkeep.steady() as manifest:
            return check_writing(self.folder, manifest, self._writes, deep=deep)

    def refresh(self) -> None:
        if self._unusable is not None:
            self._raise_unusable()
        if self._follower is not None:
            self._follower.refresh()
            self._current()

    def stats(self) -> Stats:
        notes = [*self._notes, *self._texts.notes]
        caches = self._cache.size_bytes + self._filters.size_bytes
        fields = self._read(lambda reads: reads.reader.fields())
        if self._follower is not None:
            notes += self._follower.notes
            return stats_of(self.folder, self._manifest(), self.snapshot(), notes, fields, caches, None)
        notes += self._upkeep.notes
        return stats_of(self.folder, self._manifest(), self.snapshot(), notes, fields, caches, self._upkeep)

    def _manifest(self) -> Manifest:
        return self._follower.manifest if self._follower is not None else self._upkeep.manifest

    def close(self) -> None:
        """Checkpoint to an empty log and give the folder up. Closing twice is harmless."""
        with self._closing:
            if self._unusable is not None:
                return
            self._unusable = ClosedError
            _engines.discard(self)
            if self._follower is not None:
                self._texts.close(None)
                self._follower.close()
                return
            self._upkeep.stop()
            with ExitStack() as closing:
                # Called in the opposite order; each step is taken whatever the others raise.
                closing.callback(self._release_lock)
                closing.callback(self._writer_store.close)
                closing.callback(self._writes.log.close)
                closing.callback(lambda: self._texts.close(self._upkeep.manifest.checkpoint_lsn))
                self._writes.shut()
                self._upkeep.finish()

    def _keep_texts(self) -> None:
        """For the background thread, in a pause."""
        if self._upkeep.resting:
            self._texts.keep(self._writer_store, self.snapshot(), self._upkeep.manifest.checkpoint_lsn)

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


def _check_settings(folder: Path, stored: Settings, given: Settings | None) -> None:
    """What was asked for is what is stored. M, ef_construction and index at their defaults ask for nothing."""
    if given is None:
        return
    defaults = Settings(given.dim, given.space, 16, 200, "auto")
    for name in ("dim", "space", "M", "ef_construction", "index", "text_language"):
        have, want = getattr(stored, name), getattr(given, name)
        asked = name in ("dim", "space") or want != getattr(defaults, name)
        if asked and have != want:
            raise SettingsMismatchError(
                f"expected {name}={have!r}, with which {folder} was created, got {name}={want!r}"
            )


def _check_fields(folder: Path, store: Store, given: Sequence[tuple[str, ...]]) -> None:
    """The fields that were asked for have an index. Others may have one too: somebody made it later."""
    if given:
        have = {field.path for field in store.reader.fields()}
        for path in given:
            if path not in have:
                listed = ", ".join(map(path_text, sorted(have))) or "none"
                raise SettingsMismatchError(
                    f"expected indexed_fields to name fields that have an index in {folder} ({listed}), got "
                    f"{path_text(path)!r}; make one with create_index({path_text(path)!r})"
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
