"""Background work: sealing the tail into segments, merging segments, building graphs, checkpoints.

One thread per writing handle, at low priority where the system allows it. Answers are right at every moment:
rows are searched exactly until the index that replaces this is calibrated, written, and swapped in with one
assignment. Index files are derived: whatever happens to them, the next open builds them again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss

from nopokedb.embedded import scrub
from nopokedb.embedded.recovery import save_state
from nopokedb.embedded.scrub import Scrub
from nopokedb.embedded.sealing import BUILD_THREADS, Sealing
from nopokedb.embedded.search.options import Stopped
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.oplog import drop_logs
from nopokedb.embedded.write_path import WritePath
from nopokedb.errors import ClosedError
from nopokedb.records import Vectors

_log = logging.getLogger("nopokedb")

URGENT_ROWS = 131_072
"""A tail of this size is sealed at once, while writing goes on; a smaller one waits for a pause."""
MAX_WAIT_S = 2.0
"""A tail that is worth an index waits no longer than this for a pause."""
PAUSE_S = 0.2
"""No write for this long is a pause."""
GRAPH_PAUSE_S = 5.0
"""A graph takes minutes to build, so it waits for a longer pause."""
CHECKPOINT_BYTES = 64 * 2**20
"""A log of this size is checkpointed: about 0.3 s to replay."""
_IDLE_CHECKPOINT_S = 30.0
_BUILD_LOOK_S = 0.1
"""How often a running build is looked at."""


class Upkeep:
    """The background thread and what it may be asked to do in the foreground."""

    def __init__(self, folder: Path, manifest: Manifest, writes: WritePath, *, max_memory: int | None) -> None:
        self.manifest = manifest
        self.notes: list[str] = []
        self.finished = False
        """The folder was closed cleanly."""
        self._folder = folder
        self._writes = writes
        self.manifest_lock = threading.Lock()
        """One change of the manifest at a time."""
        self._wake = threading.Condition()
        self._urgent = False
        self._due_since: float | None = None
        """Since when there has been something to seal."""
        self._sleeping = False
        self.stopping = False
        """The handle is being closed."""
        self._last_write = time.monotonic()
        self._hurry = threading.Lock()
        self._hurried = 0
        """Callers that wait for everything to be in order."""
        self._round_done = threading.Event()
        self._chores: list[tuple[Callable[[], None], Callable[[], float | None]]] = []
        self.sealing = Sealing(folder, writes, self, max_memory=max_memory)
        self.scrub = Scrub()
        self.recent_queries: Callable[[], Vectors | None] = lambda: None
        """What users asked lately, for calibration."""
        self._thread = threading.Thread(target=self._run, name="nopokedb-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add_chore(self, chore: Callable[[], None], patience: Callable[[], float | None] = lambda: None) -> None:
        """Something else to look after in each round; `patience` says in how many seconds it wants the next one, None:
        whenever there is one. Before `start`."""
        self._chores.append((chore, patience))

    def stop(self) -> None:
        """End the thread; a running build is given up."""
        with self._wake:
            self.stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()
        self.sealing.stop()

    def notice(self, snapshot: Snapshot) -> None:
        """Called after each publish, cheap: the thread is woken only from its long sleep, or when something
        cannot wait for a pause."""
        self._last_write = time.monotonic()
        urgent = not self._urgent and (
            snapshot.row_count - snapshot.tail_start >= URGENT_ROWS or self._writes.log.size >= CHECKPOINT_BYTES
        )
        if urgent or self._sleeping:
            self._urgent = self._urgent or urgent
            self.wake()

    def index_all(self, report: Callable[[int, int], object]) -> None:
        """Return when every row that there is has the index that it should have. Raises `ClosedError`, and what ended
        the writing of the handle."""
        below, most = self._writes.snapshot.row_count, 0
        with self._hurry:
            self._hurried += 1
            self.sealing.in_hurry = True
        self.wake()
        try:
            while True:
                self._writes.check_usable()
                if self.stopping:
                    raise ClosedError("the database was closed while it was being optimized")
                waiting = self.sealing.pending_rows(self._writes.snapshot, below)
                most = max(most, waiting)
                report(most - waiting, most)
                if not waiting and not self.sealing.working:
                    return
                self._round_done.wait(_BUILD_LOOK_S)
                self._round_done.clear()
        finally:
            with self._hurry:
                self._hurried -= 1
                self.sealing.in_hurry = self._hurried > 0

    def wake(self) -> None:
        with self._wake:
            self._sleeping = False
            self._wake.notify()

    @property
    def resting(self) -> bool:
        """Nothing was written for a moment."""
        return self.idle(PAUSE_S)

    @property
    def indexing(self) -> bool:
        """Whether an index is being built, or due without being asked for."""
        if self._writes.failure is not None:
            return False
        return self.sealing.working or self.sealing.due(self._writes.snapshot)

    # --- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        if hasattr(os, "setpriority") and hasattr(threading, "get_native_id"):
            try:  # Linux: a thread has a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
            except OSError as error:
                _log.debug("the upkeep thread keeps its priority: %s", error, extra={"event": "priority_kept"})
        faiss.omp_set_num_threads(BUILD_THREADS)
        while True:
            with self._wake:
                if not self.stopping and not self._urgent:
                    self._sleeping = True  # before looking, so that a publish after the look wakes us
                    patience = self._patience()
                    self._sleeping = patience is None
                    # Sleeping or not, a further pass of the scrub comes due some day.
                    self._wake.wait(scrub.PASS_PAUSE_S if patience is None else patience)
                self._urgent = False
                if self.stopping:
                    return
            try:
                if self._writes.failure is None:
                    self._work()
                self._round_done.set()
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  # reported: the handle refuses every later write with it
                # A full disk, a failed sync, or a bug: nothing more may be acknowledged by this handle.
                self._writes.fail(error)
                _log.exception(
                    "%s: background work failed, the handle writes no more",
                    self._folder,
                    extra={"event": "upkeep_failed"},
                )

    def _patience(self) -> float | None:
        """Seconds until the next look; None: until woken."""
        snapshot = self._writes.snapshot
        if self._writes.failure is not None:
            return None
        if self.sealing.seal_due(snapshot) is not None or self.sealing.graph_due(snapshot) is not None:
            return 0.0 if self.sealing.in_hurry else PAUSE_S / 2
        wishes = [
            _BUILD_LOOK_S if self.sealing.working or self.sealing.loading else None,
            1.0 if snapshot.lsn > self.manifest.checkpoint_lsn else None,
            scrub.SLICE_PAUSE_S if self.scrub.due(snapshot) else None,
            *(wish() for _, wish in self._chores),
        ]
        return min((wish for wish in wishes if wish is not None), default=None)

    def idle(self, seconds: float) -> bool:
        """Nothing was written for so long."""
        return time.monotonic() - self._last_write >= seconds

    def _work(self) -> None:
        """One round: whatever is due now."""
        for chore, _ in self._chores:
            chore()
        self.sealing.look()
        snapshot = self._writes.snapshot
        if self._writes.log.size >= CHECKPOINT_BYTES:
            self.checkpoint()
        seal = self.sealing.seal_due(snapshot)
        if seal is None:
            self._due_since = None
        elif self._due_since is None:
            self._due_since = time.monotonic()
        graph = self.sealing.graph_due(snapshot)
        if seal is not None and (
            self.sealing.in_hurry
            or seal.stop - snapshot.tail_start >= URGENT_ROWS
            or self.idle(PAUSE_S)
            or time.monotonic() - (self._due_since or 0.0) > MAX_WAIT_S
        ):
            self.sealing.begin(snapshot, seal)
        elif graph is not None and (
            self.sealing.in_hurry or self.idle(PAUSE_S if self.sealing.graph_wanted else GRAPH_PAUSE_S)
        ):
            self.sealing.begin(snapshot, graph)
        elif snapshot.lsn > self.manifest.checkpoint_lsn and self.idle(_IDLE_CHECKPOINT_S):
            self.checkpoint()
        elif self.scrub.due(snapshot) and self.idle(scrub.IDLE_S):
            known = self.scrub.damaged
            self.scrub.step(snapshot)
            for row in sorted(self.scrub.damaged - known):
                _log.error(
                    "%s: the vector in row %d is damaged; run `nopokedb check --repair`",
                    self._folder,
                    row,
                    extra={"event": "vector_damaged"},
                )

    def switched(self, manifest: Manifest) -> None:
        """A new generation is in use. Under `manifest_lock`."""
        self.manifest = manifest
        self.sealing.switched()
        self.scrub.begin_anew()

    # --- checkpoint ----------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make the stores durable up to now and drop the log that this makes superfluous."""
        with self.manifest_lock:
            with self._writes.quiesced() as snapshot:
                if snapshot.lsn == self.manifest.checkpoint_lsn:
                    return
                self._writes.log.rotate()
                number = self._writes.log.number
            try:
                self.manifest = save_state(self._folder, self.manifest, snapshot, first_log=number)
            except BaseException as error:
                self._writes.fail(error)
                raise
            drop_logs(self._folder / "oplog", number)

    @contextmanager
    def steady(self) -> Iterator[Manifest]:
        """Hold checkpoints and changes of the manifest: the log, the live set and the index files stay as they are.
        Writing goes on meanwhile."""
        with self.manifest_lock:
            yield self.manifest

    def finish(self) -> None:
        """The last checkpoint of a clean close, after the last write and after a running checkpoint."""
        if self._writes.failure is None:
            self.checkpoint()
            writer = self._writes.snapshot.store.writer
            assert writer is not None
            writer.shrink()
            self.finished = True
        else:
            with self.manifest_lock:  # a checkpoint of another thread may still use the files
                pass
