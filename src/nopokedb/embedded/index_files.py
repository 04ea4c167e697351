"""Index files: written durably, compared with their checksums, loaded into snapshots.

They are derived: one that is missing, damaged or of another version is built again, and its rows are compared exactly
until then.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np

from nopokedb.embedded.search.curve import Cost
from nopokedb.embedded.search.segments import Segment, beside, load_segment
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.files import checksum, sync_folder, write_durably
from nopokedb.embedded.storage.manifest import Manifest, SegmentFile

LATER_BYTES = 16 * 2**20
"""Index files of this size are loaded after the opening (reading, comparing and copying them takes more than 10 ms)."""
_log = logging.getLogger("nopokedb")


def segment_name(generation: int, start: int, stop: int, kind: str) -> str:
    """Name of the index file over the rows [start, stop)."""
    return f"segment-{generation}-{start}-{stop}-{kind}.npk"


def write_segment(folder: Path, segment: Segment, name: str) -> SegmentFile:
    """Make the segment's files in this folder, durable when this returns."""
    path = folder / name
    data = segment.dump(beside(path))
    write_durably(path, data)
    sync_folder(folder)
    second = (beside(path).name, *checksum(beside(path))) if beside(path).exists() else ()
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
        (segment.cost.fixed_us, segment.cost.place_us, segment.cost.row_us),
        second,
    )


def read_segment(folder: Path, file: SegmentFile, space: str) -> Segment:
    """The segment of these files. ValueError says why they cannot be used.

    An index is only handed to native code if its bytes have the size and checksum that the manifest names.
    """
    path = folder / file.name
    second = beside(path)
    try:
        data = path.read_bytes()
        before = second.stat() if file.beside else None
        whole = len(data) == file.size_bytes and google_crc32c.value(data) == file.crc32c
        if not whole or (file.beside and file.beside != (second.name, *checksum(second))):
            raise ValueError("is damaged")
        segment = load_segment(file.kind, space, file.start, file.stop, data, path)
        after = second.stat() if file.beside else None
    except FileNotFoundError:
        raise ValueError("is missing") from None
    if before is not None and after is not None and _stamp(before) != _stamp(after):
        raise ValueError("was changed while it was loaded")
    _give_figures(segment, file)
    return segment


class Loading:
    """Indexes that are so large that nobody should wait for them: a thread loads them one after the other, and their
    rows are searched otherwise until then."""

    def __init__(self, folder: Path, space: str) -> None:
        self._folder = folder
        self._space = space
        self._waiting: list[tuple[Segment, SegmentFile]] = []

    def add(self, file: SegmentFile, dim: int) -> Segment:
        """The segment of a file, not ready yet."""
        empty = np.zeros(dim, "<f4")
        segment = Segment(file.kind, self._space, file.start, file.stop, None, empty, None)
        segment.size_bytes = sum(size for _, size, _ in file.parts)
        _give_figures(segment, file)
        self._waiting.append((segment, file))
        return segment

    def start(self) -> None:
        if self._waiting:
            # Not a daemon: where the interpreter ends under native code, C++ ends the process with an abort.
            threading.Thread(target=self._run, name="nopokedb-loading").start()

    def _run(self) -> None:
        for segment, file in self._waiting:
            if not threading.main_thread().is_alive():  # the program ends, and waits for this thread
                return
            try:
                segment.fill(read_segment(self._folder, file, self._space))
            except (ValueError, OSError, MemoryError, RuntimeError) as error:
                segment.damage = str(error)  # the upkeep reports it and builds the index again
                _log.warning("%s: index %s %s", self._folder, file.name, error, extra={"event": "index_dropped"})


def _give_figures(segment: Segment, file: SegmentFile) -> None:
    """What calibration found when it was sealed."""
    segment.set_curves(file.curve_at_10, file.curve_at_100, file.recall, (file.ef_at_10, file.ef_at_100))
    if file.cost:
        segment.cost = Cost(*file.cost)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def remove_segment_files(folder: Path, file: SegmentFile) -> None:
    """Remove the files of an index that no manifest names any more."""
    for name, _, _ in file.parts:
        (folder / name).unlink(missing_ok=True)


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


def without_segments(snapshot: Snapshot, start: int) -> Snapshot:
    """The snapshot with the segments below this row: they cover the rows from 0 on without a gap."""
    kept = tuple(segment for segment in snapshot.segments if segment.stop <= start)
    return replace(snapshot, segments=kept, _bits={})


def _large(file: SegmentFile) -> bool:
    return sum(size for _, size, _ in file.parts) >= LATER_BYTES


def _present(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def load_segments(
    folder: Path, manifest: Manifest, snapshot: Snapshot, max_memory: int | None
) -> tuple[Snapshot, tuple[SegmentFile, ...], list[str]]:
    """The snapshot with the stored segments, those that are usable, and what was dropped and why. Large ones become
    ready when a thread has loaded them; what it finds damaged says so in `Segment.damage`."""
    notes: list[str] = []
    loading = Loading(folder / "index", manifest.settings.space)
    usable: list[SegmentFile] = []
    fits = True
    # A scan comes before the graph that keeps it.
    for file in sorted(manifest.segments, key=lambda item: (item.start, item.kind != "scan")):
        again = bool(usable) and (file.start, file.stop) == (usable[-1].start, usable[-1].stop)
        if (file.start != (usable[-1].stop if usable else 0) and not again) or file.stop > snapshot.row_count:
            notes.append(f"index {file.name} does not fit to the rows and is built again")
            continue
        try:
            if all(_present(folder / "index" / name, size) for name, size, _ in file.parts) and _large(file):
                segment = loading.add(file, manifest.settings.dim)
            else:
                segment = read_segment(folder / "index", file, manifest.settings.space)
        except ValueError as error:
            notes.append(f"index {file.name} {error}: it is built again")
            continue
        usable.append(file)
        fits = fits and fits_memory(max_memory, snapshot, segment)
        if fits:
            segment.scan = next((old for old in snapshot.segments if segment.keeps(old)), None)
            snapshot = with_segment(snapshot, segment)
        else:  # segments in memory cover the rows from 0 on without a gap: those behind it wait too
            notes.append(f"index {file.name} exceeds max_memory: its rows are searched exactly")
    loading.start()
    for note in notes:
        _log.warning("%s: %s", folder, note, extra={"event": "index_dropped"})
    return snapshot, tuple(usable), notes
