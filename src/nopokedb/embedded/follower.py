"""Read-only handles: follow a live writer, or open a folder that nobody writes.

Beside a live writer: the manifest and the live set give the state of the last checkpoint, the log gives the
batches behind it, up to the lsn that the writer has published, so everything seen is acknowledged and durable.
The stores hold these batches already (a batch is published after it is applied), so only the live set and the
newest labels are advanced, in memory. Nothing is ever written.

Alone on a folder that was closed cleanly: SQLite is opened immutable, so even a read-only medium will do. A writer
that starts later changes the session number in LOCK; every answer is checked against it before it is returned, and
SQLite is reopened in its shared mode. Alone on a folder whose writer stopped without closing: refused.

A writer that starts a new generation leaves the files of the old one to those who have them open (`GenerationHold`),
so a handle, and each read in it, stays what it was until `refresh`.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nopokedb.embedded.index_files import load_segments
from nopokedb.embedded.recovery import decode_entries, require_collection
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.lock import SERVING, Published, ReaderLock, read_published
from nopokedb.embedded.storage.manifest import Manifest, read_manifest
from nopokedb.embedded.storage.oplog import read_log
from nopokedb.embedded.store import Store
from nopokedb.errors import (
    CollectionNotFoundError,
    CorruptionError,
    NeedsRecoveryError,
    NoPokeError,
    SettingsMismatchError,
)

_PATIENCE_S = 5.0
"""A writer may replace the manifest and drop files while we read them, or be just opening; then we start over."""
T = TypeVar("T")


class WriterIsOpening(NeedsRecoveryError):
    """A writer holds the folder but has not brought its stores up to date yet."""


@dataclass(frozen=True, slots=True)
class _State:
    manifest: Manifest
    store: Store
    snapshot: Snapshot
    published: Published | None
    """What LOCK said when this was loaded."""
    notes: tuple[str, ...]


class Follower:
    """The state of a read-only handle."""

    def __init__(self, folder: Path, *, max_memory: int | None) -> None:
        self._folder = folder
        self._max_memory = max_memory
        self._lock = threading.Lock()
        self._stores: weakref.WeakSet[Store] = weakref.WeakSet()
        """All that somebody may still read: the current one, and those of snapshots that long reads hold."""
        self._state = self._open()

    @property
    def snapshot(self) -> Snapshot:
        return self._state.snapshot

    @property
    def manifest(self) -> Manifest:
        return self._state.manifest

    @property
    def notes(self) -> tuple[str, ...]:
        return self._state.notes

    def guarded(self, read: Callable[[], T]) -> T:
        """Run a read, again if the stores were exchanged under it: by a `refresh` in another thread, or because a
        writer has come since they were opened. What an immutable SQLite said then is worth nothing, errors included,
        and the folder may even hold another collection."""
        while True:
            state = self._state
            try:
                result = read()
            except (NoPokeError, OSError):
                if not self._exchanged(state):
                    raise
            else:
                if not self._exchanged(state):
                    return result

    def _exchanged(self, state: _State) -> bool:
        """Whether other stores than those of `state` are to be used now."""
        published = read_published(self._folder / "LOCK")
        if _session_of(published) != _session_of(state.published):
            with self._lock:
                if self._state is state:
                    self._meet_writer(published)
        return self._state is not state

    def refresh(self) -> None:
        """Move forward to what the writer has published by now."""
        with self._lock:
            state = self._state
            published = read_published(self._folder / "LOCK")
            serving = published is not None and published.state == SERVING
            generation = self._check_identity()
            if serving and published == state.published and generation == state.manifest.generation:
                return
            if _session_of(published) != _session_of(state.published):
                self._meet_writer(published)  # longer reads may go on in the stores of before
            opened = self._open()
            if opened.manifest.settings != state.manifest.settings:
                opened.store.close()
                now = opened.manifest.settings
                raise SettingsMismatchError(
                    f"expected the model {state.manifest.settings.embed_name!r}, with which this handle was opened, "
                    f"but {self._folder} has got {now.embed_name!r} (dim={now.dim}) meanwhile; open it again. Until "
                    "then this handle answers from the state before"
                )
            self._state = opened

    def close(self) -> None:
        self._state.store.close()

    # --- inside --------------------------------------------------------------------------------------------

    def _check_identity(self) -> int:
        """The folder still holds the collection that this handle was opened on; its generation."""
        manifest = read_manifest(self._folder)
        if manifest is None or manifest.identity != self._state.manifest.identity:
            raise CollectionNotFoundError(
                f"the collection in {self._folder} was dropped since this handle was opened; close it"
            )
        return manifest.generation

    def _open(self) -> _State:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            lock = ReaderLock(self._folder / "LOCK")
            try:
                state = self._load(alone=lock.alone)
                break
            except (FileNotFoundError, CorruptionError, WriterIsOpening):
                # Beside a writer a file may go away under us, or a frame be read half-written.
                if lock.alone or time.monotonic() > deadline:
                    raise
            finally:
                lock.release()
            time.sleep(0.005)
        # The indexes need no lock: they are checked against the manifest, and only ever replaced whole.
        try:
            snapshot, notes = self._with_segments(state.manifest, state.snapshot)
        except BaseException:
            state.store.close()
            raise
        return replace(state, snapshot=snapshot, notes=tuple(notes))

    def _load(self, *, alone: bool) -> _State:
        """The state without indexes. Nobody can start writing if `alone`."""
        published = read_published(self._folder / "LOCK")
        if not alone and (published is None or published.state != SERVING):
            raise WriterIsOpening(f"a writer is just opening {self._folder}; try again")
        manifest = require_collection(self._folder)
        log = read_log(self._folder / "oplog", manifest.checkpoint_lsn, first_file=manifest.first_log)
        if alone and (log.entries or log.cut):
            raise NeedsRecoveryError(
                f"the last writer of {self._folder} stopped without closing, {len(log.entries)} batches wait in the "
                "log; open the folder for writing once, then read it"
            )
        wanted = manifest.checkpoint_lsn if alone or published is None else published.lsn
        wal = self._folder / f"metadata-{manifest.generation}.db-wal"
        immutable = alone and not (wal.exists() and wal.stat().st_size)
        store = Store(self._folder, manifest, writable=False, immutable=immutable)
        try:
            # From here on the writer leaves the files of this generation, if it has not given them up before.
            if require_collection(self._folder).generation != manifest.generation:
                raise FileNotFoundError(f"{self._folder} has changed to a new generation")
            self._stores.add(store)
            snapshot = store.load(manifest)
            frames = decode_entries([entry for entry in log.entries if entry.lsn <= wanted], manifest)
            if frames:
                snapshot = store.apply(snapshot, frames)
            if snapshot.lsn < wanted:
                raise CorruptionError(f"the log ends at lsn {snapshot.lsn}, the writer has published {wanted}")
        except BaseException:
            store.close()
            raise
        return _State(manifest, store, snapshot, published, ())

    def _with_segments(self, manifest: Manifest, snapshot: Snapshot) -> tuple[Snapshot, list[str]]:
        """Load the indexes, taking over those that are loaded already; what could not be used, in words."""
        loaded: dict[tuple[str, int, int], Segment] = {}
        state: _State | None = getattr(self, "_state", None)
        if state is not None and (state.manifest.identity, state.manifest.generation) == (
            manifest.identity,
            manifest.generation,
        ):
            loaded = {(segment.kind, segment.start, segment.stop): segment for segment in state.snapshot.segments}
        wanted = [(file.kind, file.start, file.stop) for file in manifest.segments]
        loaded |= {
            (segment.scan.kind, segment.start, segment.stop): segment.scan
            for segment in loaded.values()
            if segment.scan is not None
        }
        if wanted and all(key in loaded for key in wanted):
            # Of two indexes of the same rows the graph keeps the scan.
            found = [loaded[key] for key in wanted]
            kept = {id(segment.scan) for segment in found}
            segments = sorted(
                (segment for segment in found if id(segment) not in kept), key=lambda segment: segment.start
            )
            return replace(snapshot, segments=tuple(segments)), []
        snapshot, _, notes = load_segments(self._folder, manifest, snapshot, self._max_memory)
        return snapshot, notes

    def _meet_writer(self, published: Published | None) -> None:
        """A writer has come: immutable connections are given up for shared ones. Snapshots stay what they were."""
        self._check_identity()
        state = self._state
        if published is not None:
            published = replace(published, lsn=state.snapshot.lsn)  # that is how far this handle is, for `refresh`
        for store in self._stores:
            store.share()
        self._state = replace(state, published=published)


def _session_of(published: Published | None) -> int | None:
    return None if published is None else published.session
