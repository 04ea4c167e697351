"""Background work: sealing the tail into segments, merging segments, checkpoints.

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
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import google_crc32c
import numpy as np

from nopokedb.embedded import scrub
from nopokedb.embedded.recovery import save_state
from nopokedb.embedded.scrub import Scrub
from nopokedb.embedded.search import scan
from nopokedb.embedded.search.calibration import SAMPLE, Truth, calibrate, truth_of_held_out, truth_of_rows
from nopokedb.embedded.search.options import BuildOptions, Stopped
from nopokedb.embedded.search.segments import Segment, build_segment, load_segment, needs_holdout
from nopokedb.embedded.search.threads import usable_threads
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.files import sync_folder, write_durably
from nopokedb.embedded.storage.manifest import Manifest, SegmentFile, write_manifest
from nopokedb.embedded.storage.oplog import drop_logs
from nopokedb.embedded.store import segment_name
from nopokedb.embedded.write_path import WritePath
from nopokedb.records import Vectors

_log = logging.getLogger("nopokedb")

SEAL_ROWS = 4_096
"""A tail of this many rows is worth an index: comparing them exactly takes about 0.1 ms."""
URGENT_ROWS = 131_072
"""A tail of this size is sealed at once, while writing goes on; a smaller one waits for a pause."""
MAX_WAIT_S = 2.0
"""A tail that is worth an index waits no longer than this for a pause."""
PAUSE_S = 0.2
"""No write for this long is a pause."""
MAX_SEGMENT_ROWS = 1_000_000
GRAPH_ROWS = 400_000
"""From here on a graph answers faster than a scan (measured between 300,000 and 700,000 rows)."""
GRAPH_PAUSE_S = 5.0
"""A graph takes minutes to build, so it waits for a longer pause."""
CHECKPOINT_BYTES = 64 * 2**20
"""A log of this size is checkpointed: about 0.3 s to replay."""
_IDLE_CHECKPOINT_S = 30.0
_MIN_LIVE_ROWS = 64
"""Fewer live rows in a range tell nothing about an index over it, and are compared exactly in no time."""
_BUILD_THREADS = max(1, (os.cpu_count() or 1) - 1)
_DEFAULT_M, _DEFAULT_EF_CONSTRUCTION = 16, 200


@dataclass(frozen=True, slots=True)
class _Recipe:
    """One way to build a segment."""

    kind: str
    fine: bool = False


class Upkeep:
    """The background thread and what it may be asked to do in the foreground."""

    def __init__(self, folder: Path, manifest: Manifest, writes: WritePath, *, max_memory: int | None) -> None:
        self.manifest = manifest
        self.notes: list[str] = []
        self.finished = False
        """The folder was closed cleanly."""
        self._folder = folder
        self._writes = writes
        self._settings = manifest.settings
        self._max_memory = max_memory
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
        self._refused: dict[tuple[str, int], int] = {}
        self._refused_ahead: dict[tuple[str, int], int] = {}
        """The same of a generation that is not in use yet."""
        self._busy = False
        self._chores: list[tuple[Callable[[], None], Callable[[], float | None]]] = []
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

    def wake(self) -> None:
        with self._wake:
            self._sleeping = False
            self._wake.notify()

    @property
    def resting(self) -> bool:
        """Nothing was written for a moment."""
        return self.idle(PAUSE_S)

    @property
    def sealing(self) -> bool:
        """Whether a seal is running or due."""
        if self._writes.failure is not None:
            return False
        return self._busy or self._next_range(self._writes.snapshot) is not None

    # --- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        if hasattr(os, "setpriority") and hasattr(threading, "get_native_id"):
            try:  # Linux: a thread has a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
            except OSError as error:
                _log.debug("the upkeep thread keeps its priority: %s", error)
        faiss.omp_set_num_threads(_BUILD_THREADS)
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
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  # reported: the handle refuses every later write with it
                # A full disk, a failed sync, or a bug: nothing more may be acknowledged by this handle.
                self._writes.fail(error)
                _log.exception("%s: background work failed, the handle writes no more", self._folder)

    def _patience(self) -> float | None:
        """Seconds until the next look; None: until woken."""
        snapshot = self._writes.snapshot
        if self._writes.failure is not None:
            return None
        if self._next_range(snapshot) is not None or self._graph_due(snapshot) is not None:
            return PAUSE_S / 2
        wishes = [
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
        snapshot = self._writes.snapshot
        if self._writes.log.size >= CHECKPOINT_BYTES:
            self.checkpoint()
        chosen = self._next_range(snapshot)
        if chosen is None:
            self._due_since = None
        elif self._due_since is None:
            self._due_since = time.monotonic()
        if chosen is not None and (
            chosen[1] - snapshot.tail_start >= URGENT_ROWS
            or self.idle(PAUSE_S)
            or time.monotonic() - (self._due_since or 0.0) > MAX_WAIT_S
        ):
            self._seal(snapshot, "seal", *chosen, self._recipes())
        elif (graph := self._graph_due(snapshot)) is not None and self.idle(GRAPH_PAUSE_S):
            self._seal(snapshot, "graph", graph.start, graph.stop, [_Recipe("hnsw")])
        elif snapshot.lsn > self.manifest.checkpoint_lsn and self.idle(_IDLE_CHECKPOINT_S):
            self.checkpoint()
        elif self.scrub.due(snapshot) and self.idle(scrub.IDLE_S):
            known = self.scrub.damaged
            self.scrub.step(snapshot)
            for row in sorted(self.scrub.damaged - known):
                _log.error("%s: the vector in row %d is damaged; run `nopokedb check --repair`", self._folder, row)

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

    # --- segments ------------------------------------------------------------------------------------------

    def _next_range(self, snapshot: Snapshot) -> tuple[int, int] | None:
        """The rows that the next segment should cover, None if nothing is due.

        The tail, together with every segment before it that is at most twice as large: sizes then fall
        geometrically, there are few segments, and each row is encoded a logarithmic number of times.
        """
        start, stop = snapshot.tail_start, snapshot.row_count - snapshot.row_count % 8
        if stop - start < SEAL_ROWS or self._settings.index == "exact":
            return None
        for segment in reversed(snapshot.segments):
            if segment.row_count > 2 * (stop - start) or stop - segment.start > MAX_SEGMENT_ROWS:
                break
            start = segment.start
        stop = min(stop, start + MAX_SEGMENT_ROWS)
        if stop - start < 2 * self._refused.get(("seal", start), 0):
            return None  # refused before: not again until the data have doubled
        return start, stop

    def _graph_due(self, snapshot: Snapshot) -> Segment | None:
        """A scan segment so large that a graph would answer faster."""
        if self._settings.index != "auto":
            return None
        for segment in snapshot.segments:
            large = segment.kind == "scan" and segment.row_count >= GRAPH_ROWS
            if large and ("graph", segment.start) not in self._refused:
                return segment
        return None

    def _recipes(self) -> list[_Recipe]:
        """What to try for a new segment, in order. The first that reaches the recall goal is taken."""
        settings = self._settings
        scans = [_Recipe("scan")] if settings.dim < 64 else [_Recipe("scan"), _Recipe("scan", fine=True)]
        if not scan.MIN_DIM <= settings.dim <= scan.MAX_DIM:
            scans = []
        chosen = (settings.M, settings.ef_construction) != (_DEFAULT_M, _DEFAULT_EF_CONSTRUCTION)
        if settings.index in ("graph", "hnsw") or (settings.index == "auto" and chosen):
            return [_Recipe("hnsw"), *scans[-1:]]
        return [*scans, _Recipe("hnsw")]

    def _seal(self, source: Snapshot, purpose: str, start: int, stop: int, recipes: list[_Recipe]) -> None:
        """Build an index over the rows [start, stop), replacing the segments inside. What is refused is remembered
        for the purpose: "seal" rows of the tail, or give rows that have a scan a "graph"."""
        self._busy = True
        try:
            segment = self._build(source, start, stop, recipes)
            if segment is None:
                self._refuse(purpose, start, stop, "no index reached the recall goal on them")
                return
            data = segment.to_bytes()
            if not fits_memory(self._max_memory, self._writes.snapshot, segment):
                self._refuse(purpose, start, stop, f"an index of {len(data)} bytes exceeds max_memory")
            else:
                self._adopt(segment, data, source.store.generation)
        finally:
            self._busy = False

    def seal_ahead(self, snapshot: Snapshot) -> tuple[Snapshot, tuple[SegmentFile, ...]]:
        """Segments over the rows of a generation that nobody uses yet: the snapshot with them, and their files. Rows
        that no index reaches the recall on stay exact, and are not tried again before they have doubled."""
        files: list[SegmentFile] = []
        self._refused_ahead = {}
        threads = faiss.omp_get_max_threads()  # the setting of the calling thread, which may be a user's
        faiss.omp_set_num_threads(usable_threads(_BUILD_THREADS))
        try:
            while (chosen := self._next_range(snapshot)) is not None:
                segment = self._build(snapshot, *chosen, self._recipes())
                if segment is None or not fits_memory(self._max_memory, snapshot, segment):
                    self._refused_ahead["seal", chosen[0]] = chosen[1] - chosen[0]
                    break
                files = [file for file in files if not segment.start <= file.start < segment.stop]
                files.append(self._write_segment(segment, segment.to_bytes(), snapshot.store.generation))
                snapshot = with_segment(snapshot, segment)
        finally:
            faiss.omp_set_num_threads(threads)
        return snapshot, tuple(files)

    def switched(self, manifest: Manifest) -> None:
        """A new generation is in use. Under `manifest_lock`."""
        self.manifest = manifest
        self._refused, self._refused_ahead = self._refused_ahead, {}
        self.scrub.begin_anew()

    def _refuse(self, purpose: str, start: int, stop: int, reason: str) -> None:
        self._refused[purpose, start] = stop - start
        how = "exactly" if purpose == "seal" else "by scan"
        self.notes.append(f"rows {start} to {stop} are searched {how}: {reason}")

    def _build(self, snapshot: Snapshot, start: int, stop: int, recipes: list[_Recipe]) -> Segment | None:
        """The first segment of the recipes that reaches the recall goal."""
        space = self._settings.space
        live = snapshot.live_rows.members(start, stop)
        if len(live) < _MIN_LIVE_ROWS:
            return None
        vectors, bits = snapshot.vectors, snapshot.live_bits(start, stop)
        recent = self.recent_queries()
        truth_of_scan: Truth | None = None
        for recipe in recipes:
            options = BuildOptions(
                space, self._settings.M, self._settings.ef_construction, recipe.fine, lambda: self.stopping
            )
            held_out = None
            if needs_holdout(recipe.kind):
                chosen = np.random.default_rng(start).choice(live, min(SAMPLE, len(live) // 8), replace=False)
                held_out = np.sort(chosen) - start
                truth = truth_of_held_out(space, vectors, live, held_out + start, recent)
            else:
                truth = truth_of_scan = truth_of_scan or truth_of_rows(space, vectors, live, recent)
            try:
                segment = build_segment(recipe.kind, start, vectors[start:stop], options, held_out)
            except (RuntimeError, MemoryError) as error:  # native code gave up: the next recipe, or exact
                _log.warning("%s: no %s index over rows %d to %d: %s", self._folder, recipe.kind, start, stop, error)
                continue
            if self.stopping:
                raise Stopped
            if calibrate(segment, truth, space, vectors, snapshot.rows["norm"], bits):
                if held_out is not None:
                    segment.add_held_out(held_out, vectors[start:stop])
                return segment
        return None

    def _adopt(self, segment: Segment, data: bytes, generation: int) -> None:
        """Write the segment's file and swap it in. A graph over exactly the rows of a scan keeps that, for filters."""
        file = self._write_segment(segment, data, generation)
        with self.manifest_lock:
            if self.manifest.generation != generation:  # its rows have other numbers by now
                gone = [file]
            else:
                current = self._writes.snapshot.segments
                segment.scan = next((old for old in current if segment.keeps(old)), None)
                gone = [
                    old
                    for old in self.manifest.segments
                    if segment.start <= old.start < segment.stop
                    and old.name != file.name
                    and not (segment.scan is not None and old.kind == "scan")
                ]
                kept = tuple(old for old in self.manifest.segments if old not in gone and old.name != file.name)
                self.manifest = replace(self.manifest, segments=(*kept, file))
                write_manifest(self._folder, self.manifest)
                self._writes.replace_segments(lambda snapshot: with_segment(snapshot, segment))
        for old in gone:
            (self._folder / "index" / old.name).unlink(missing_ok=True)

    def _write_segment(self, segment: Segment, data: bytes, generation: int) -> SegmentFile:
        """Make the segment's file, durable when this returns."""
        name = segment_name(generation, segment.start, segment.stop, segment.kind)
        write_durably(self._folder / "index" / name, data)
        sync_folder(self._folder / "index")
        return SegmentFile(
            name,
            segment.kind,
            segment.start,
            segment.stop,
            len(data),
            google_crc32c.value(data),
            segment.ef_at_10,
            segment.ef_at_100,
            segment.recall,
            segment.curves[10],
            segment.curves[100],
        )


def fits_memory(limit: int | None, snapshot: Snapshot, segment: Segment) -> bool:
    """Whether the index may be resident under `max_memory`; its rows are searched exactly otherwise."""
    kept = [other for other in snapshot.segments if not segment.start <= other.start < segment.stop]
    scans = sum(other.scan.size_bytes for other in kept if other.scan is not None)
    scans += sum(old.size_bytes for old in snapshot.segments if segment.keeps(old))
    return limit is None or sum(other.size_bytes for other in kept) + scans + segment.size_bytes <= limit


def with_segment(snapshot: Snapshot, segment: Segment) -> Snapshot:
    """The snapshot with this segment in place of those that its range covers."""
    before = tuple(other for other in snapshot.segments if other.stop <= segment.start)
    after = tuple(other for other in snapshot.segments if other.start >= segment.stop)
    return replace(snapshot, segments=(*before, segment, *after), _bits={})


def load_segments(
    folder: Path, manifest: Manifest, snapshot: Snapshot, max_memory: int | None
) -> tuple[Snapshot, tuple[SegmentFile, ...], list[str]]:
    """The snapshot with the stored segments, those that are usable, and what was dropped and why.

    An index is only handed to native code if its bytes have the size and checksum that the manifest names.
    """
    notes: list[str] = []
    usable: list[SegmentFile] = []
    fits = True
    # A scan comes before the graph that keeps it.
    for file in sorted(manifest.segments, key=lambda item: (item.start, item.kind != "scan")):
        path = folder / "index" / file.name
        beside = bool(usable) and (file.start, file.stop) == (usable[-1].start, usable[-1].stop)
        if (file.start != (usable[-1].stop if usable else 0) and not beside) or file.stop > snapshot.row_count:
            notes.append(f"index {file.name} does not fit to the rows and is built again")
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            notes.append(f"index {file.name} is missing and is built again")
            continue
        if len(data) != file.size_bytes or google_crc32c.value(data) != file.crc32c:
            notes.append(f"index {file.name} is damaged and is built again")
            continue
        try:
            segment = load_segment(file.kind, manifest.settings.space, file.start, file.stop, data)
        except ValueError as error:
            notes.append(f"index {file.name} is not for this version and is built again: {error}")
            continue
        segment.set_curves(file.curve_at_10, file.curve_at_100, file.ef_at_10, file.ef_at_100, file.recall)
        usable.append(file)
        fits = fits and fits_memory(max_memory, snapshot, segment)
        if fits:
            segment.scan = next((old for old in snapshot.segments if segment.keeps(old)), None)
            snapshot = with_segment(snapshot, segment)
        else:  # segments in memory cover the rows from 0 on without a gap: those behind it wait too
            notes.append(f"index {file.name} exceeds max_memory: its rows are searched exactly")
    for note in notes:
        _log.warning("%s: %s", folder, note)
    return snapshot, tuple(usable), notes
