"""The embedded engine: joins storage, search, both paths and the upkeep for one folder.

The only module that knows all the parts. Writing handles own a `WritePath` and an `Upkeep`, read-only ones a
`Follower`; reads are the same for both.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nopokedb.agreement import check_fields, check_settings, settings_of
from nopokedb.embedded import earlier, in_process, recovery
from nopokedb.embedded.allowed import FilterCache
from nopokedb.embedded.check import check_earlier, check_reading, check_writing
from nopokedb.embedded.compaction import Compaction
from nopokedb.embedded.explain import answered, explained, sampled
from nopokedb.embedded.field_indexes import FieldIndexes
from nopokedb.embedded.follower import Follower
from nopokedb.embedded.going_back import GoingBack
from nopokedb.embedded.index_files import load_segments
from nopokedb.embedded.ranking import Ranking
from nopokedb.embedded.read_path import ReadPath, RecordCache
from nopokedb.embedded.recent import RecentQueries
from nopokedb.embedded.scanning import facet, scan, selected_ids
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.statistics import stats_of
from nopokedb.embedded.storage.lock import WriterLock
from nopokedb.embedded.storage.manifest import Manifest, Settings, write_manifest
from nopokedb.embedded.store import Store
from nopokedb.embedded.text_view import TextView
from nopokedb.embedded.texts import SwitchedError, Texts
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.embedded.write_path import WritePath
from nopokedb.engine import Answer, Order, Query, Stats, Write
from nopokedb.errors import ClosedError, CorruptionError, ForkedHandleError, ReadOnlyError
from nopokedb.filters import Filter, Scalar, path_text
from nopokedb.filters import Path as FieldPath
from nopokedb.plan import Plan
from nopokedb.problems import Problem
from nopokedb.recall import Recall, measure
from nopokedb.records import Id, Part, Record, Vectors

_log = logging.getLogger("nopokedb")

_CACHE_BYTES = 64 * 2**20
T = TypeVar("T")


class EmbeddedEngine(GoingBack):
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
        before: EmbeddedEngine | None = None,
    ) -> None:
        """`before`: an engine that has let go of the folder but for its lock, which is taken over."""
        self.folder = folder
        self.read_only = read_only
        self.max_memory = max_memory
        self._succeeded = False
        """Another engine is to write the folder now, in this process; this one still reads what it had."""
        self._successor: EmbeddedEngine | None = None
        """That engine, as soon as it is open."""
        self._earlier = {}
        self._unusable: type[ClosedError] | type[ForkedHandleError] | None = None
        self._closing = threading.Lock()
        self._notes: list[str] = []
        # Before the upkeep thread starts, which looks at these.
        self._recent = RecentQueries()
        self._lock: WriterLock | None = None
        self._follower: Follower | None = None
        self._cache_bytes = _CACHE_BYTES if max_memory is None else min(_CACHE_BYTES, max_memory // 8)
        if read_only:
            manifest = recovery.require_collection(folder)
            self._check_settings(manifest, settings)
            self._follower = Follower(folder, max_memory=max_memory)
            try:
                self._check_fields(self._follower.snapshot.store, indexed_fields)
            except BaseException:
                self._follower.close()
                raise
            self._begin_reading(manifest, self._follower.snapshot)
        else:
            manifest = self._open_writer(settings, indexed_fields, durability, max_memory, before)
        self.dim = manifest.settings.dim
        self.embed_name, self.embed_fingerprint = manifest.settings.embed_name, manifest.settings.embed_fingerprint
        try:
            self._warm()
            in_process.engines.add(self)
        except BaseException:  # an interrupt: nobody gets this engine, and its threads would hold the folder
            self.close()
            raise
        finally:
            in_process.opening.discard(self)

    def _check_settings(self, manifest: Manifest, given: Settings | None) -> None:
        if given is not None:
            check_settings(self.folder, manifest.settings, settings_of(given))

    def _check_fields(self, store: Store, given: Sequence[tuple[str, ...]]) -> None:
        if given:
            check_fields(self.folder, {path_text(field.path) for field in store.reader.fields()}, given)

    def _open_writer(
        self,
        settings: Settings | None,
        indexed_fields: Sequence[tuple[str, ...]],
        durability: str,
        max_memory: int | None,
        before: EmbeddedEngine | None,
    ) -> Manifest:
        folder = self.folder
        if before is None and recovery.check_folder(folder) is None:
            if settings is None:
                recovery.require_collection(folder)  # raises
            recovery.make_folder(folder)
        with ExitStack() as opened:
            self._lock = WriterLock(folder / "LOCK") if before is None else before._take_lock()
            opened.callback(self._lock.abandon)
            in_process.opening.add(self)
            opened.callback(in_process.opening.discard, self)
            manifest = recovery.check_folder(folder)  # again: another process may have created it meanwhile
            if manifest is None:
                assert settings is not None
                manifest = recovery.create(folder, settings, indexed_fields)
            self._check_settings(manifest, settings)
            self._durable = durable = durability == "full"
            found = recovery.open_for_writing(folder, manifest, durable=durable)
            opened.callback(found.store.close)
            opened.callback(found.log.close)
            self._check_fields(found.store, indexed_fields)
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
                select=lambda where, state: selected_ids(self._reads_of(state), state, where),
            )
            self._upkeep = Upkeep(folder, manifest, self._writes, max_memory=max_memory)
            self._fields = FieldIndexes(self._writes, self._upkeep)
            self._upkeep.add_chore(self._keep_texts)
            self._upkeep.recent_queries = self._recent.vectors
            if found.dirty:
                self._upkeep.checkpoint()
            self._lock.publish(snapshot.lsn)
            self._begin_reading(manifest, snapshot)
            self._compaction = Compaction(
                folder,
                self._writes,
                self._upkeep,
                self._fields,
                self._texts,
                on_switch=lambda: self._reads_of(self._writes.snapshot),
            )
            self._upkeep.start()
            if before is not None:
                before._successor = self
            opened.pop_all()
        return manifest

    def _begin_reading(self, manifest: Manifest, snapshot: Snapshot) -> None:
        self.settings = settings = manifest.settings
        self.space = settings.space
        self._notes += earlier.notes(self.folder, manifest)
        folder = None if self.read_only else self.folder
        self._texts = Texts(folder, settings.text_language, manifest.identity, lambda: self.snapshot().store)
        self._reads = self._new_reads(snapshot.store, None)

    def _new_reads(self, store: Store, before: ReadPath | None) -> ReadPath:
        """The read path on this store. Records go by label and are verified, so they are taken over in a generation.
        What filters said is not: an immutable connection that met a writer may have said anything."""
        limit = self._cache_bytes
        same = before is not None and before.store.generation == store.generation
        records = before.cache if before is not None and same else RecordCache(limit)
        return ReadPath(self.space, store, records, FilterCache(limit, self._filter_searched))

    def _reads_of(self, snapshot: Snapshot) -> ReadPath:
        """The read path for a snapshot, which may be one of before a new generation or a refresh."""
        reads = self._reads
        if reads.store is not snapshot.store:
            reads = self._new_reads(snapshot.store, reads)
            if snapshot.store is self.snapshot().store:
                self._reads = reads
        return reads

    def _warm(self) -> None:
        """Ask once, so that the first user's query does not pay for cold memory and unprepared statements. Only where
        indexes are loaded: then a query touches little."""
        segments = self.snapshot().segments
        if segments and all(segment.ready for segment in segments):
            query = np.ones((1, self.dim), np.float32)
            try:
                self._read(lambda reads, snapshot: reads.query(snapshot, Query(query, 10, None, ("metadata",))))
            except CorruptionError as error:  # whoever asks for the damaged record will be told again
                self._notes.append(str(error))

    def _published(self, snapshot: Snapshot) -> None:
        assert self._lock is not None
        self._lock.publish(snapshot.lsn)
        self._upkeep.notice(snapshot)

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

    def settings_given(self) -> dict[str, Any]:
        """See `nopokedb.engine.Engine.settings_given`."""
        return settings_of(self.settings) | {"indexed_fields": list(self.stats().indexed_fields)}

    def _check_writable(self) -> None:
        if self._unusable is not None:
            self._raise_unusable()
        if self._succeeded:
            raise ClosedError(
                f"{self.folder} has another model now, with which this write was not made; try again, and open the "
                "folder again if the change was interrupted"
            )
        if self.read_only:
            raise ReadOnlyError(f"{self.folder} was opened with read_only=True; open it without to write")

    # --- reading ---------------------------------------------------------------------------------------------

    def query(self, query: Query) -> list[Answer]:
        """See `nopokedb.engine.Engine.query`."""
        self._check_asked(query)
        if query.vectors is not None:
            self._recent.note(query.vectors)
        if query.plain:
            found: list[Answer] = [*self._read(lambda reads, snapshot: reads.query(snapshot, query))]
            return found
        return self._read_one_store(lambda reads, take, view: Ranking(reads, take, view, query).answers())

    def _read_one_store(self, read: Callable[[ReadPath, Callable[[], Snapshot], Callable[[], TextView]], T]) -> T:
        """Run a read that takes its snapshot, and the view of the texts, when it comes to need them. A label means
        nothing in another generation: where one comes meanwhile, the question is asked anew, of that one."""
        while True:
            store, texts = self.snapshot().store, self._texts
            try:
                return self._read(
                    lambda reads, _: read(reads, self._same_store(reads), lambda: texts.view(reads.store))  # noqa: B023
                )
            except (SwitchedError, ClosedError):
                if store is self.snapshot().store and texts is self._texts:
                    raise

    def _same_store(self, reads: ReadPath) -> Callable[[], Snapshot]:
        """Takes the current snapshot, as long as it is one of this store."""

        def take_snapshot() -> Snapshot:
            snapshot = self.snapshot()
            if snapshot.store is not reads.store:
                raise SwitchedError
            return snapshot

        return take_snapshot

    def _check_asked(self, query: Query) -> None:
        """Native code checks nothing: a question that was made for another model must not reach it."""
        if query.vectors is not None and query.vectors.shape[1] != self.dim:
            raise ClosedError(f"{self.folder} has another model now, with which this question was not made; ask again")
        if self._follower is None:
            self._upkeep.scrub.raise_if_damaged(self.snapshot())

    def explain(self, query: Query) -> Plan:
        self._check_asked(query)
        return self._read_one_store(lambda reads, take, view: explained(reads, take, view, query))

    def measure_recall(self, query: Query, sample: int) -> Recall:
        self._check_asked(query)
        return measure(self, query, sample)

    def answer_together(self, queries: Sequence[Query]) -> list[tuple[list[Answer], float]]:
        for query in queries:
            self._check_asked(query)
        return self._read(lambda reads, snapshot: answered(reads, snapshot, queries))

    def sample(self, count: int, where: Filter | None) -> tuple[list[Id], Vectors]:
        return self._read(lambda reads, snapshot: sampled(reads, snapshot, count, where))

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        return self._read(lambda reads, snapshot: reads.get(snapshot, ids, include))

    def exists(self, id_: Id) -> bool:
        return self._read(lambda reads, snapshot: reads.find(snapshot, [id_])[0] is not None)

    def count(self, where: Filter | None) -> int:
        if where is None:
            return self.snapshot().live.count
        return self._read(lambda reads, snapshot: reads.passing(snapshot, where).total)

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        snapshot = self.snapshot()
        reads = self._reads_of(snapshot)  # also for pages that are read after a new generation has come
        return scan(lambda read: self._read_open(reads, read), snapshot, where, order_by, after, limit, include)

    def facet(self, path: FieldPath, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]:
        return self._read(lambda reads, snapshot: facet(reads, snapshot, path, where, limit))

    def _read_open(self, reads: ReadPath, read: Callable[[ReadPath], T]) -> T:
        """A read that is part of a longer one: the handle may have been closed since that began."""
        if self._unusable is not None:
            self._raise_unusable()
        return read(reads) if self._follower is None else self._follower.guarded(lambda: read(reads))

    def _read(self, read: Callable[[ReadPath, Snapshot], T]) -> T:
        """Run a read on the current state."""

        def on_current() -> T:
            snapshot = self.snapshot()
            return read(self._reads_of(snapshot), snapshot)

        return on_current() if self._follower is None else self._follower.guarded(on_current)

    # --- keeping ---------------------------------------------------------------------------------------------

    def create_index(self, path: tuple[str, ...]) -> None:
        self._check_writable()
        self._fields.create(path)

    def drop_index(self, path: tuple[str, ...]) -> bool:
        self._check_writable()
        return self._fields.drop(path)

    def _filter_searched(self, path: tuple[str, ...]) -> None:
        if self._follower is None:
            self._fields.notice(path)

    def compact(self) -> int:
        """See `nopokedb.engine.Engine.compact`."""
        self._check_writable()
        return self._compaction.run()

    def optimize(self, report: Callable[[int, int], object]) -> None:
        """See `nopokedb.engine.Engine.optimize`."""
        self._check_writable()
        self._writes.check_usable()
        if self._compaction.worthwhile():
            self._compaction.run()
        self._upkeep.index_all(report)
        self._upkeep.checkpoint()

    def save(self) -> None:
        self._check_writable()
        self._writes.check_usable()
        self._upkeep.checkpoint()

    def check(self, deep: bool) -> list[Problem]:
        if self._unusable is not None:
            self._raise_unusable()
        if self._follower is not None:
            problems = check_reading(self.folder, deep=deep)
            return problems + check_earlier(self.folder, self._follower.manifest, deep=deep)
        with self._upkeep.steady() as manifest:
            problems = check_writing(self.folder, manifest, self._writes, deep=deep)
            return problems + check_earlier(self.folder, manifest, deep=deep)

    def refresh(self) -> None:
        if self._unusable is not None:
            self._raise_unusable()
        if self._follower is not None:
            self._follower.refresh()
            self._reads_of(self.snapshot())

    def stats(self) -> Stats:
        notes = [*self._notes, *self._texts.notes]
        caches = self._reads.cache.size_bytes + self._reads.filters.size_bytes
        fields = self._read(lambda reads, _: reads.reader.fields())
        if self._follower is not None:
            notes += self._follower.notes
            found = stats_of(self.folder, self._manifest(), self.snapshot(), notes, fields, caches, None)
        else:
            notes += self._upkeep.notes
            found = stats_of(self.folder, self._manifest(), self.snapshot(), notes, fields, caches, self._upkeep)
            found = replace(found, sync_count=self._writes.sync_count, sync_seconds=self._writes.sync_seconds)
        return replace(found, cache_hits=self._reads.cache.hits, cache_misses=self._reads.cache.misses)

    def _manifest(self) -> Manifest:
        return self._follower.manifest if self._follower is not None else self._upkeep.manifest

    def close(self) -> None:
        """Checkpoint to an empty log and give the folder up. Closing twice is harmless. Of an engine that has a
        successor, or gets one meanwhile, that is closed."""
        if self._follower is None:
            self._upkeep.stopping = True
            self._compaction.wait_unbarred()  # without `_closing`, which a successor needs
        with self._closing:
            if self._unusable is not None:
                return
            if self._succeeded:
                if self._successor is not None:
                    self._successor.close()
                elif self._lock is not None:  # an interrupt kept another engine from being opened
                    self._take_lock().abandon()
                return
            self._unusable = ClosedError
            in_process.engines.discard(self)
            for kept in list(self._earlier.values()):  # one may be dropped just now
                kept.close()
            if self._follower is not None:
                self._texts.close(None)
                self._follower.close()
                return
            self._upkeep.stop()
            self._compaction.wait()
            self._fields.wait()
            with ExitStack() as closing:
                # Called in the opposite order; each step is taken whatever the others raise.
                closing.callback(self._release_lock)
                closing.callback(self._compaction.finish)
                closing.callback(lambda: self._writes.snapshot.store.close())
                closing.callback(self._writes.log.close)
                closing.callback(lambda: self._texts.close(self._upkeep.manifest.checkpoint_lsn))
                self._writes.shut()
                self._upkeep.finish()

    def _keep_texts(self) -> None:
        """For the background thread: look after the text index in a pause."""
        if self._upkeep.resting:
            self._texts.keep(self._writes.snapshot, self._upkeep.manifest.checkpoint_lsn)

    def detach_texts(self, texts: Texts) -> None:
        """Another engine is going to own the folder `text`; questions go on without it. Nothing is written any more."""

        def adopt(successor: Texts) -> None:
            self._texts = successor

        texts.detach(self._writes.snapshot, adopt)

    def _take_lock(self) -> WriterLock:
        """The lock, which the caller owns from here on."""
        lock, self._lock = self._lock, None
        assert lock is not None
        return lock

    def _release_lock(self) -> None:
        assert self._lock is not None
        if self._upkeep.finished:
            self._lock.release(self._writes.snapshot.lsn)
        else:
            self._lock.abandon()

    def leave_to_parent(self) -> None:
        """In a forked child: never use what the parent owns, and do not keep its lock alive."""
        if self._unusable is None:
            self._unusable = ForkedHandleError
            if self._lock is not None:
                self._lock.leave_to_parent()
            in_process.of_parent.append(self)
