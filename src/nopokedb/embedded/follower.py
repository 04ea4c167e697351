"""Read-only handles: follow a live writer, or open a folder that nobody writes.

Beside a live writer: the manifest and the live set give the state of the last checkpoint, the log gives the
batches behind it, up to the lsn that the writer has published, so everything seen is acknowledged and durable.
The stores hold these batches already (a batch is published after it is applied), so only the live set and the
newest labels are advanced, in memory. Nothing is ever written.

Alone on a folder that was closed cleanly: SQLite is opened immutable, so even a read-only medium will do. A writer
that starts later changes the session number in LOCK; every answer is checked against it before and after, and
SQLite is reopened in its shared mode. Alone on a folder whose writer stopped without closing: refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nopokedb.embedded.recovery import decode_entries, require_collection
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.lock import ReaderLock, read_published
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.oplog import read_log
from nopokedb.embedded.store import Store
from nopokedb.embedded.upkeep import load_segments
from nopokedb.errors import CorruptionError, NeedsRecoveryError, NoPokeError

_ATTEMPTS = 50
"""A writer may replace the manifest and drop files while we read them; then we start over."""
T = TypeVar("T")


@dataclass(slots=True)
class _State:
    manifest: Manifest
    store: Store
    snapshot: Snapshot
    session: int
    """The writer's session, 0 where nobody writes."""
    immutable: bool
    notes: tuple[str, ...]


class Follower:
    """The state of a read-only handle."""

    def __init__(self, folder: Path, *, max_memory: int | None) -> None:
        self._folder = folder
        self._max_memory = max_memory
        self._lock = threading.Lock()
        self._state = self._open()

    @property
    def snapshot(self) -> Snapshot:
        return self._state.snapshot

    @property
    def store(self) -> Store:
        return self._state.store

    @property
    def manifest(self) -> Manifest:
        return self._state.manifest

    @property
    def notes(self) -> tuple[str, ...]:
        return self._state.notes

    def guarded(self, read: Callable[[], T]) -> T:
        """Run a read; if a writer appeared beside an immutable SQLite meanwhile, run it again in shared mode."""
        state = self._state
        if not state.immutable:
            return read()
        error: NoPokeError | OSError | None = None
        result: T | None = None
        try:
            result = read()
        except (NoPokeError, OSError) as problem:
            error = problem
        if self._session() != state.session:
            with self._lock:
                if self._state is state:
                    self._reopen_shared()
            return read()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def refresh(self) -> None:
        """Move forward to what the writer has published by now."""
        with self._lock:
            state = self._state
            published = read_published(self._folder / "LOCK")
            same = published is not None and published.session == state.session
            if same and published is not None and published.lsn == state.snapshot.lsn and state.session:
                return
            fresh = self._open()
            if fresh.snapshot.lsn == state.snapshot.lsn and fresh.session == state.session:
                fresh.store.close()
                return
            self._state = fresh
            state.store.close()

    def close(self) -> None:
        self._state.store.close()

    # --- inside --------------------------------------------------------------------------------------------

    def _session(self) -> int:
        published = read_published(self._folder / "LOCK")
        return 0 if published is None else published.session

    def _open(self) -> _State:
        problem: Exception | None = None
        for _ in range(_ATTEMPTS):
            lock = ReaderLock(self._folder / "LOCK")
            try:
                return self._load(alone=lock.alone)
            except (FileNotFoundError, CorruptionError) as error:
                if lock.alone:
                    raise
                problem = error  # a file went away under us, or a frame was read half-written
            finally:
                lock.release()
        assert problem is not None
        raise problem

    def _load(self, *, alone: bool) -> _State:
        published = read_published(self._folder / "LOCK")
        manifest = require_collection(self._folder)
        entries, cut = read_log(self._folder / "oplog", manifest.checkpoint_lsn, first_file=manifest.first_log)
        wal = self._folder / f"metadata-{manifest.generation}.db-wal"
        if alone:
            if entries or cut:
                raise NeedsRecoveryError(
                    f"the last writer of {self._folder} stopped without closing, {len(entries)} batches wait in the "
                    "log; open the folder for writing once, then read it"
                )
            wanted, session = manifest.checkpoint_lsn, 0
        else:
            wanted = published.lsn if published is not None else manifest.checkpoint_lsn
            session = published.session if published is not None else 0
        immutable = alone and not (wal.exists() and wal.stat().st_size)
        store = Store(self._folder, manifest, writable=False, immutable=immutable)
        try:
            snapshot = store.load(manifest)
            frames = decode_entries([entry for entry in entries if entry.lsn <= wanted], manifest)
            if frames:
                snapshot = store.apply(snapshot, frames)
            if snapshot.lsn < wanted:
                raise CorruptionError(f"the log ends at lsn {snapshot.lsn}, the writer has published {wanted}")
            snapshot, _, notes = self._with_segments(manifest, snapshot)
        except BaseException:
            store.close()
            raise
        return _State(manifest, store, snapshot, session, immutable, tuple(notes))

    def _with_segments(self, manifest: Manifest, snapshot: Snapshot) -> tuple[Snapshot, object, list[str]]:
        """Load the indexes, taking over those that are loaded already."""
        loaded: dict[tuple[str, int, int], Segment] = {}
        if (state := getattr(self, "_state", None)) is not None and state.manifest.generation == manifest.generation:
            loaded = {(segment.kind, segment.start, segment.stop): segment for segment in state.snapshot.segments}
        wanted = [(file.kind, file.start, file.stop) for file in manifest.segments]
        if manifest.segments and all(key in loaded for key in wanted):
            return (
                replace(snapshot, segments=tuple(sorted((loaded[key] for key in wanted), key=lambda s: s.start))),
                (),
                [],
            )
        return load_segments(self._folder, manifest, snapshot, self._max_memory)

    def _reopen_shared(self) -> None:
        """Give up the immutable connection: a writer lives in the folder now. The snapshot stays what it was."""
        state = self._state
        store = Store(self._folder, state.manifest, writable=False)
        snapshot = replace(state.snapshot, labels=store.labels, _bits={})
        self._state = replace(state, store=store, snapshot=snapshot, immutable=False, session=self._session())
        state.store.close()
