"""Which rows get which index, and the way there: scans are built at once, graphs by a process of its own.

The tail is sealed together with every segment before it that is at most twice as large as what is behind it: sizes
then fall geometrically, there are few segments, and each row is encoded a logarithmic number of times, however much is
added. A scan is there within seconds. The graph over the same rows follows where one is wanted, and keeps the scan
beside itself; a merge puts a scan in place of both, and a graph follows again. Answers reach their recall at every
moment, by whatever is there.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import faiss

from nopokedb.embedded import child_build
from nopokedb.embedded.child_build import BuildFailed, ChildBuild
from nopokedb.embedded.index_files import (
    fits_memory,
    read_segment,
    remove_segment_files,
    segment_name,
    with_segment,
    without_segments,
    write_segment,
)
from nopokedb.embedded.search.construction import Recipe, Source, construct, graph_recipes, scan_recipes
from nopokedb.embedded.search.curve import GOAL
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.search.threads import usable_threads
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.files import sync_folder
from nopokedb.embedded.storage.manifest import SegmentFile, parse_segment_file, write_manifest
from nopokedb.embedded.write_path import WritePath

if TYPE_CHECKING:
    from nopokedb.embedded.upkeep import Upkeep

_log = logging.getLogger("nopokedb")

SEAL_ROWS = 4_096
"""A tail of this many rows is worth an index: comparing them exactly takes about 0.1 ms."""
MAX_SEGMENT_ROWS = 1_000_000
GRAPH_ROWS = 65_536
"""From here on a graph may answer faster than a scan where a lower recall is asked for (at 50,000 rows a scan takes
about 0.1 ms); whether this one does is measured when it is built."""
MERGE_FACTOR = 2
"""A segment joins what is behind it unless it is larger than this many times that."""
ORDER_FACTOR = 8
"""The same when order is asked for: an eighth more rows are worth an index of their own, not a build of all."""
_GRAPH_TARGETS = (0.9, 0.95, GOAL)
"""A graph that is cheaper than the scan of its rows at none of these is not kept."""
_ATTEMPTS = 2
"""A build whose process ended without a result is tried so often, and then without the kind that it was at."""
BUILD_THREADS = max(1, (os.cpu_count() or 1) - 1)
"""Of this process, whose queries want a core."""
CHILD_THREADS = os.cpu_count() or 1
"""A child is served last: beside queries it gets what they leave, and where nobody asks anything all there is."""
_DEFAULT_M, _DEFAULT_EF_CONSTRUCTION = 16, 200


@dataclass(frozen=True, slots=True)
class Task:
    """Rows that are to be indexed: "seal" those of the tail, or give those of a segment a "graph"."""

    purpose: str
    start: int
    stop: int
    recipes: tuple[Recipe, ...]


class Sealing:
    """Used by the upkeep's thread alone, but for the questions `due` and `pending_rows`."""

    def __init__(self, folder: Path, writes: WritePath, upkeep: Upkeep, *, max_memory: int | None) -> None:
        self._folder = folder
        self._writes = writes
        self._upkeep = upkeep
        self._settings = settings = upkeep.manifest.settings
        self._max_memory = max_memory
        self._refused: dict[tuple[str, int], int] = {}
        self._refused_ahead: dict[tuple[str, int], int] = {}
        """The same of a generation that is not in use yet."""
        self._failures: dict[tuple[str, int, str], int] = {}
        self._building: tuple[Task, ChildBuild, int] | None = None
        """What a child builds, and the generation of its rows."""
        self._busy = False
        self.in_hurry = False
        """Somebody waits for everything to be in order."""
        chosen = (settings.M, settings.ef_construction) != (_DEFAULT_M, _DEFAULT_EF_CONSTRUCTION)
        hnsw = settings.index == "hnsw" or (settings.index == "auto" and chosen)
        self.graph_wanted = settings.index == "graph" or hnsw
        """A graph is wanted for rows of any number, and not only when it pays."""
        self._scans = tuple(scan_recipes(settings.dim))
        self._graphs = tuple(graph_recipes(hnsw=hnsw))

    # --- what is due ---------------------------------------------------------------------------------------

    @property
    def working(self) -> bool:
        """Whether something is being built."""
        return self._busy or self._building is not None

    @property
    def loading(self) -> bool:
        """Whether indexes are on their way into memory."""
        segments = self._writes.snapshot.segments
        return any(not index.ready for segment in segments for index in (segment, segment.scan) if index is not None)

    @property
    def building(self) -> Task | None:
        """What a child builds."""
        return self._building[0] if self._building is not None else None

    def due(self, snapshot: Snapshot) -> bool:
        """Whether rows wait for an index that they are going to get without being asked for."""
        return self.seal_due(snapshot) is not None or (self.graph_wanted and self.graph_due(snapshot) is not None)

    def seal_due(self, snapshot: Snapshot) -> Task | None:
        """The tail, with what is merged into it; if everything is to be in order, also what of the segments can be
        merged without the tail being long."""
        start, stop = snapshot.tail_start, snapshot.row_count - snapshot.row_count % 8
        long = stop - start >= SEAL_ROWS
        if self._settings.index == "exact" or not (long or self.in_hurry):
            return None
        factor, joined = ORDER_FACTOR if self.in_hurry else MERGE_FACTOR, int(stop > start)
        building = self.building
        if building is not None and building.purpose == "seal":
            return None
        for segment in reversed(snapshot.segments):
            small = start == stop or segment.row_count <= factor * (stop - start)
            if not small or stop - segment.start > MAX_SEGMENT_ROWS:
                break
            if building is not None and building.start == segment.start:
                break  # its graph is on the way
            start = segment.start
            joined += 1
        if not long and joined < 2:
            return None
        stop = min(stop, start + MAX_SEGMENT_ROWS)
        if stop - start < 2 * self._refused.get(("seal", start), 0):
            return None  # refused before: not again until the data have doubled
        return Task("seal", start, stop, (*self._scans, *self._graphs))

    def graph_due(self, snapshot: Snapshot) -> Task | None:
        """A scan that should get a graph."""
        if self._building is not None:
            return None
        segment = next(self._without_graph(snapshot), None)
        return None if segment is None else Task("graph", segment.start, segment.stop, self._graphs)

    def _without_graph(self, snapshot: Snapshot) -> Iterator[Segment]:
        """The segments that should get a graph."""
        if self._settings.index in ("exact", "scan"):
            return
        for segment in snapshot.segments:
            wanted = self.graph_wanted or (segment.row_count >= GRAPH_ROWS and self._may_hold(segment.row_count))
            if segment.kind == "scan" and wanted and ("graph", segment.start) not in self._refused:
                yield segment

    def _may_hold(self, row_count: int) -> bool:
        """Whether `max_memory` may leave room for a graph: it holds at least the vectors."""
        return self._max_memory is None or row_count * self._settings.dim * 4 <= self._max_memory

    def pending_rows(self, snapshot: Snapshot, below: int) -> int:
        """How many of the rows below this one wait for an index, counted once for each index."""
        task = self.building
        rows = 0
        if (seal := self.seal_due(snapshot)) is not None and seal.start < below:
            rows = min(seal.stop, below) - seal.start
        elif task is not None and task.purpose == "seal":
            rows = task.stop - task.start
        return rows + sum(segment.row_count for segment in self._without_graph(snapshot) if segment.start < below)

    # --- building ------------------------------------------------------------------------------------------

    def begin(self, source: Snapshot, task: Task) -> None:
        """Build what is quick; leave the rest to a child, which `look` comes back for."""
        self._busy = True
        try:
            rows = self._source_of(source, task)
            quick = [recipe for recipe in task.recipes if not recipe.slow]
            segment = self._construct(rows, quick) if quick else None
            slow = self._slow_recipes(task)
            if segment is not None:
                self._accept(task, segment, source.store.generation)
            elif not slow:
                self._refuse(task, "no index reached the recall goal on them")
            elif child_build.possible():
                self._start_child(task, rows, slow, source.store.generation)
            elif (segment := self._construct(rows, slow)) is not None:
                self._accept(task, segment, source.store.generation)
            else:
                self._refuse(task, "no index reached the recall goal on them")
        finally:
            self._busy = False

    def _start_child(self, task: Task, rows: Source, recipes: Sequence[Recipe], generation: int) -> None:
        M, ef_construction = self._settings.M, self._settings.ef_construction
        try:
            child = ChildBuild(self._folder, generation, rows, recipes, M, ef_construction, CHILD_THREADS)
        except OSError as error:  # no room, no memory, no further process
            self._failed(task, BuildFailed(f"no process could be started to build in: {error}", recipes[0].kind))
        else:
            self._building = task, child, generation

    def look(self) -> None:
        """Adopt what a child has built, if it is ready; drop what could not be loaded."""
        for segment in self._writes.snapshot.segments:
            for index in (segment, segment.scan):
                if index is not None and index.damage:
                    self._drop(segment, index)
                    break
        if self._building is None:
            return
        task, child, generation = self._building
        if generation != self._writes.snapshot.store.generation:  # its rows have other numbers by now
            self.stop()
            return
        try:
            result = child.poll()
        except BuildFailed as error:
            self._building = None
            child.remove()
            self._failed(task, error)
            return
        if result is None:
            return
        self._busy, self._building = True, None
        try:
            if result["file"] is None:
                self._refuse(task, "no index reached the recall goal on them")
            else:
                self._take_over(task, child.folder, parse_segment_file(result["file"]), generation)
        finally:
            child.remove()
            self._busy = False

    def stop(self) -> None:
        """Give up what a child is building."""
        building, self._building = self._building, None
        if building is not None:
            building[1].stop()

    def _source_of(self, snapshot: Snapshot, task: Task) -> Source:
        start, stop = task.start, task.stop
        return Source(
            self._settings.space,
            start,
            stop,
            snapshot.vectors,
            snapshot.rows["norm"],
            snapshot.live_rows.members(start, stop),
            snapshot.live_bits(start, stop),
            self._upkeep.recent_queries(),
        )

    def _construct(self, rows: Source, recipes: Sequence[Recipe]) -> Segment | None:
        settings = self._settings
        return construct(rows, recipes, settings.M, settings.ef_construction, lambda: self._upkeep.stopping)

    def _slow_recipes(self, task: Task) -> list[Recipe]:
        """Those that are left to a child, without kinds that have ended it too often."""
        return [
            recipe
            for recipe in task.recipes
            if recipe.slow and self._failures.get((task.purpose, task.start, recipe.kind), 0) < _ATTEMPTS
        ]

    def _failed(self, task: Task, error: BuildFailed) -> None:
        key = (task.purpose, task.start, error.kind or task.recipes[-1].kind)
        self._failures[key] = self._failures.get(key, 0) + 1
        _log.warning(
            "%s: rows %d to %d: %s", self._folder, task.start, task.stop, error, extra={"event": "build_failed"}
        )
        if not self._slow_recipes(task):
            self._refuse(task, str(error))

    def _take_over(self, task: Task, place: Path, file: SegmentFile, generation: int) -> None:
        """What a child has built becomes an index file of the collection."""
        try:
            segment = read_segment(place, file, self._settings.space)
        except (ValueError, RuntimeError, MemoryError) as error:
            self._failed(task, BuildFailed(f"the index that was built {error}", file.kind))
            return
        if not self._passes(task, segment):
            return
        self._move(place, file)
        self._adopt(segment, file, generation)

    def _accept(self, task: Task, segment: Segment, generation: int) -> None:
        # Elsewhere first: only then its size is known, and a file of the same name may be one that is not loaded.
        place = child_build.make_folder(self._folder)
        try:
            file = self._write(place, segment, generation)
            if self._passes(task, segment):
                self._move(place, file)
                self._adopt(segment, file, generation)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _write(self, place: Path, segment: Segment, generation: int) -> SegmentFile:
        return write_segment(place, segment, segment_name(generation, segment.start, segment.stop, segment.kind))

    def _move(self, place: Path, file: SegmentFile) -> None:
        """Make finished files those of the collection."""
        for name, _, _ in file.parts[::-1]:  # what the first file speaks of stands there before it
            (place / name).replace(self._folder / "index" / name)
        sync_folder(self._folder / "index")

    def _passes(self, task: Task, segment: Segment) -> bool:
        """Whether the index is worth having; else the refusal is remembered."""
        snapshot = self._writes.snapshot
        if not fits_memory(self._max_memory, snapshot, segment):
            self._refuse(task, f"an index of {segment.size_bytes} bytes exceeds max_memory")
            return False
        known = next((old for old in snapshot.segments if segment.keeps(old)), None)
        if task.purpose == "graph" and not self.graph_wanted and known is not None and not _pays(segment, known):
            self._refuse(task, "a graph over them is no faster")
            return False
        return True

    def _refuse(self, task: Task, reason: str) -> None:
        self._refused[task.purpose, task.start] = task.stop - task.start
        how = "exactly" if task.purpose == "seal" else "by scan"
        self._upkeep.notes.append(f"rows {task.start} to {task.stop} are searched {how}: {reason}")

    def _adopt(self, segment: Segment, file: SegmentFile, generation: int) -> None:
        """Swap the segment in. A graph over exactly the rows of a scan keeps that, for filters."""
        upkeep = self._upkeep
        with upkeep.manifest_lock:
            current = self._writes.snapshot.segments
            if upkeep.manifest.generation != generation or not _fits_between(current, segment):
                gone = [file]  # its rows have other numbers by now, or another index
            else:
                segment.scan = next((old for old in current if segment.keeps(old)), None)
                gone = [
                    old
                    for old in upkeep.manifest.segments
                    if segment.start <= old.start < segment.stop
                    and old.name != file.name
                    and not (segment.scan is not None and old.kind == "scan")
                ]
                kept = tuple(old for old in upkeep.manifest.segments if old not in gone and old.name != file.name)
                upkeep.manifest = replace(upkeep.manifest, segments=(*kept, file))
                write_manifest(self._folder, upkeep.manifest)
                self._writes.replace_segments(lambda snapshot: with_segment(snapshot, segment))
        for old in gone:
            remove_segment_files(self._folder / "index", old)

    def _drop(self, segment: Segment, damaged: Segment) -> None:
        """Give an index up whose file is damaged: of a graph the scan stays, else the rows of this and all behind it
        are compared exactly until they are sealed again."""
        upkeep = self._upkeep
        other = segment.scan if damaged is segment else segment
        with upkeep.manifest_lock:
            gone = [
                file
                for file in upkeep.manifest.segments
                if (file.start == segment.start and file.kind == damaged.kind)
                or (other is None and file.start >= segment.start)
            ]
            kept = tuple(file for file in upkeep.manifest.segments if file not in gone)
            upkeep.manifest = replace(upkeep.manifest, segments=kept)
            write_manifest(self._folder, upkeep.manifest)
            if other is None:
                self._writes.replace_segments(lambda snapshot: without_segments(snapshot, segment.start))
            else:
                other.scan = None
                self._writes.replace_segments(lambda snapshot: with_segment(snapshot, other))
        for file in gone:
            upkeep.notes.append(f"index {file.name} {damaged.damage}: it is built again")
            remove_segment_files(self._folder / "index", file)

    # --- another generation --------------------------------------------------------------------------------

    def seal_ahead(self, snapshot: Snapshot) -> tuple[Snapshot, tuple[SegmentFile, ...]]:
        """Scans over the rows of a generation that nobody uses yet: the snapshot with them, and their files. Rows that
        no scan reaches the recall on stay exact; graphs follow when it is in use."""
        files: list[SegmentFile] = []
        self._refused_ahead = {}
        place, generation = self._folder / "index", snapshot.store.generation
        threads = faiss.omp_get_max_threads()  # the setting of the calling thread, which may be a user's
        faiss.omp_set_num_threads(usable_threads(BUILD_THREADS))
        try:
            while self._scans and (task := self.seal_due(snapshot)) is not None:
                segment = self._construct(self._source_of(snapshot, task), self._scans)
                written = None if segment is None else self._write(place, segment, generation)
                if segment is None or written is None or not fits_memory(self._max_memory, snapshot, segment):
                    self._refused_ahead["seal", task.start] = task.stop - task.start
                    if written is not None:
                        remove_segment_files(place, written)
                    break
                files = [*(file for file in files if not segment.start <= file.start < segment.stop), written]
                snapshot = with_segment(snapshot, segment)
        finally:
            faiss.omp_set_num_threads(threads)
        return snapshot, tuple(files)

    def switched(self) -> None:
        """A new generation is in use: what is known of rows by their numbers means nothing any more."""
        self._refused, self._refused_ahead = self._refused_ahead, {}
        self._failures = {}


def _pays(graph: Segment, scan: Segment) -> bool:
    """Whether the graph is cheaper than the scan at some recall that is asked for."""
    for target in _GRAPH_TARGETS:
        length, scanned = graph.ef_for(10, target), scan.ef_for(10, target)
        if length is not None and (scanned is None or graph.cost.list_us(length) < scan.cost.list_us(scanned)):
            return True
    return False


def _fits_between(current: Sequence[Segment], segment: Segment) -> bool:
    """Whether the segment covers others whole or not at all, and leaves no gap."""
    edges = {0, *(old.stop for old in current)}
    return segment.start in edges and not any(old.start < segment.stop < old.stop for old in current)
