"""Comparing everything that is stored with everything else, without changing a byte.

    manifest -> log -> live set, labels, rows against the manifest's checksums -> records and texts -> vectors
             -> search indexes -> leftovers

Nothing found stops the look at the rest, unless the rest cannot be understood without it. A folder is looked at either
alone (the caller holds a lock that keeps writers out) or through an open handle, whose state is then the measure.
Vectors of rows that no live label owns are looked at too, but damage to them is only a note: nothing reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from nopokedb.embedded import earlier, named
from nopokedb.embedded.check_metadata import MetadataFindings, inspect_metadata
from nopokedb.embedded.leftovers import leftovers
from nopokedb.embedded.raw_files import live_after, read_column, read_vectors, vectors_path
from nopokedb.embedded.recovery import decode_entries, require_collection
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import LABEL_TYPE, NONE, ROW_TYPE
from nopokedb.embedded.storage.files import checksum
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.lock import ReaderLock, read_published
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.oplog import LogContent, read_log
from nopokedb.embedded.write_path import WritePath
from nopokedb.errors import CorruptionError, NoPokeError, SnapshotNotFoundError
from nopokedb.filters import path_text
from nopokedb.problems import Problem, ProblemKind, Severity

_CHUNK_BYTES = 8 * 2**20
_TRIES = 5
"""Looks of a read-only handle whose writer makes checkpoints meanwhile."""


@dataclass(slots=True)
class Findings:
    """The problems, and what a repair has to know about them."""

    problems: list[Problem] = field(default_factory=list)
    broken: bool = False
    """The folder cannot be opened, or not be trusted, as it is: what is sound has to be carried over."""
    frames: list[Frame] = field(default_factory=list)
    unsynced: bool = False
    """The log was written with durability="os"."""
    live: Bitmap | None = None
    """The live set behind the last frame; None where it is damaged."""
    row_of: npt.NDArray[np.uint32] | None = None
    """The row of each label behind the last frame; None where that is damaged."""
    rows_sound: bool = False
    metadata: MetadataFindings | None = None
    damaged_rows: list[int] = field(default_factory=list)
    """Live rows whose vector differs from its checksum."""

    def add(
        self, kind: ProblemKind, severity: Severity, message: str, file: Path | str, offset: int | None = None
    ) -> None:
        self.problems.append(Problem(kind, severity, message, str(file), offset))

    def known_to_sqlite(self, label_count: int) -> int:
        """How many of the first labels SQLite has: what it has not applied yet waits in the frames."""
        applied = (self.metadata and self.metadata.applied_lsn) or 0
        return min(label_count, next((frame.first_label for frame in self.frames if frame.lsn > applied), label_count))


@dataclass(frozen=True, slots=True)
class Moment:
    """What an open handle knows, so that its files can be looked at while it writes on."""

    lsn: int
    """Every batch up to it is durable and applied."""
    live: Bitmap | None
    """The handle's live set, where it is known at just this lsn."""
    log: LogContent


def inspect(folder: Path, manifest: Manifest, *, deep: bool, moment: Moment | None = None) -> Findings:
    """Look at everything. Without a `moment` the caller keeps writers out."""
    found = Findings()
    _check_log(folder, manifest, found, moment)
    live = _check_live_set(folder, manifest, found)
    if live is not None:
        live = live_after(live, found.frames)
    if (
        live is not None
        and moment is not None
        and moment.live is not None
        and live.to_bytes() != moment.live.to_bytes()
    ):
        found.add("live_set", "error", "the open handle has another set of live labels than its folder", folder)
    labels = _check_column(
        folder, f"labels-{manifest.generation}.bin", LABEL_TYPE, manifest.label_count, manifest.labels_crc32c, "labels",
        found,
    )  # fmt: skip
    rows = _check_column(
        folder, f"rows-{manifest.generation}.bin", ROW_TYPE, manifest.row_count, manifest.rows_crc32c, "rows", found
    )
    found.rows_sound = rows is not None
    found.live, found.row_of = live, None if labels is None else _rows_of_labels(labels, found.frames)
    _check_metadata(folder, manifest, found, deep=deep, alone=moment is None)
    _check_vectors(folder, manifest, found, rows, deep=deep)
    if moment is not None:
        _check_frames_in_columns(folder, manifest, found)
    _check_indexes(folder, manifest, found, deep=deep)
    for name in named.names(folder, manifest):
        try:
            named.load(folder, name, manifest)
        except (CorruptionError, SnapshotNotFoundError) as error:
            path = named.path_of(folder, name, manifest)
            found.add("snapshot", "error", str(error), path, getattr(error, "offset", None))
    if moment is None:
        for path in leftovers(folder, manifest):
            found.add("leftover", "note", "a crash left this file behind; the next open for writing removes it", path)
        lock = folder / "LOCK"
        if lock.exists() and (read_published(lock) is None or any(lock.read_bytes()[44:])):
            found.add("lock", "note", "who opened the folder last cannot be read; the next open writes it anew", lock)
    return found


# --- log, live set, labels and rows ------------------------------------------------------------------------------


def _check_log(folder: Path, manifest: Manifest, found: Findings, moment: Moment | None) -> None:
    oplog = folder / "oplog"
    if moment is None and manifest.checkpoint_lsn and not any(oplog.glob("*.log")):
        found.broken = True
        found.add("missing", "error", "the operation log is missing", oplog)
        return
    try:
        log = moment.log if moment else read_log(oplog, manifest.checkpoint_lsn, first_file=manifest.first_log)
        frames = decode_entries(log.entries, manifest)
    except CorruptionError as error:
        found.broken = True
        found.add("log", "error", str(error), error.file or oplog, error.offset)
        return
    except (
        ValueError,
        IndexError,
        ArithmeticError,
    ) as error:  # a frame whose checksum holds and whose content does not
        found.broken = True
        found.add("log", "error", f"a batch cannot be read: {error}", oplog)
        return
    if moment is not None:
        frames = [frame for frame in frames if frame.lsn <= moment.lsn]
        end = frames[-1].lsn if frames else manifest.checkpoint_lsn
        if end < moment.lsn:
            found.add("log", "error", f"the log ends at lsn {end}, the handle is at {moment.lsn}", oplog)
    else:
        if log.cut:
            name, _, rest = log.cut.partition(" cut at byte ")
            found.add(
                "log_tail", "note", f"an unfinished end, which the next open drops: {log.cut}", oplog / name,
                int(rest.split(" ", 1)[0]),
            )  # fmt: skip
        if frames:
            found.add("unapplied", "note", f"{len(frames)} batches wait in the log for the next open", oplog)
    found.frames, found.unsynced = frames, log.unsynced


def _check_live_set(folder: Path, manifest: Manifest, found: Findings) -> Bitmap | None:
    if not manifest.live_file:
        return Bitmap()
    path = folder / manifest.live_file
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        found.broken = True
        found.add("missing", "error", "the live set is missing", path)
        return None
    if google_crc32c.value(data) != manifest.live_crc32c:
        found.broken = True
        found.add("live_set", "error", "the live set does not match its checksum", path)
        return None
    live = Bitmap.from_bytes(data)
    if live.members(manifest.label_count, len(data) * 8).size:
        found.broken = True
        found.add("live_set", "error", "labels are live that were never given", path)
        return None
    return live


def _check_column(
    folder: Path, name: str, dtype: Any, count: int, crc32c: int, kind: ProblemKind, found: Findings
) -> npt.NDArray[Any] | None:
    """The first `count` entries if they match the manifest's checksum."""
    path = folder / name
    entries = read_column(path, dtype, count)
    if not path.exists():
        found.add("missing", "error", f"the table of {kind} is missing", path)
    elif len(entries) < count:
        found.add(kind, "error", f"expected {count} entries, found {len(entries)}", path, len(entries) * dtype.itemsize)
    elif google_crc32c.value(entries.tobytes()) != crc32c:
        found.add(kind, "error", f"the entries up to {count} do not match their checksum", path)
    else:
        return entries
    found.broken = True
    return None


def _rows_of_labels(labels: npt.NDArray[Any], frames: list[Frame]) -> npt.NDArray[np.uint32]:
    if not frames:
        return labels["row"].astype(np.uint32)
    row_of = np.full(max(frames[-1].labels.stop, len(labels)), NONE, np.uint32)
    row_of[: len(labels)] = labels["row"]
    for frame in frames:
        row_of[frame.first_label : frame.labels.stop] = frame.rows
    return row_of


# --- records, vectors ------------------------------------------------------------------------------------------------


def _check_metadata(folder: Path, manifest: Manifest, found: Findings, *, deep: bool, alone: bool) -> None:
    path = folder / f"metadata-{manifest.generation}.db"
    if not path.exists():
        found.broken = True
        found.add("missing", "error", "the metadata are missing", path)
        return
    if not path.stat().st_size:
        # Not even looked at by SQLite, which would delete the WAL of an empty database.
        found.broken = True
        found.add("sqlite", "error", "the metadata's file is empty", path)
        return
    row_of = found.row_of
    count = manifest.label_count if row_of is None else len(row_of)
    live = found.live or Bitmap()
    wal = path.with_name(path.name + "-wal")
    immutable = alone and not (wal.exists() and wal.stat().st_size)
    metadata = found.metadata = inspect_metadata(path, count, live, deep=deep, immutable=immutable)
    for message in metadata.messages:
        found.broken = True
        found.add("sqlite", "error", f"SQLite reports: {message}", path)
    for wrong in metadata.wrong_fields.values():
        words = f"the index on the field {path_text(wrong)!r} says otherwise than the records"
        found.add("field_index", "warning", words, path)
    for message in metadata.index_messages:
        found.add("id_index", "warning", f"SQLite's index on ids is damaged: {message}", path)
    applied = metadata.applied_lsn
    if applied is None:
        return
    end = found.frames[-1].lsn if found.frames else manifest.checkpoint_lsn
    if applied < manifest.checkpoint_lsn:
        found.broken = True
        found.add("sqlite", "error", f"the metadata end at lsn {applied}, before the checkpoint at "
                  f"{manifest.checkpoint_lsn}", path)  # fmt: skip
    ahead = alone and applied > end and not found.broken
    if ahead:
        # `durability="os"` may lose the end of the log; opening then says so and goes on above it.
        found.broken = not found.unsynced
        words = f"the metadata have batches up to lsn {applied}, the log ends at {end}"
        found.add("log", "note" if found.unsynced else "error", words, folder / "oplog")
    if not deep or row_of is None or found.live is None or metadata.messages:
        return
    known = found.known_to_sqlite(count)
    alive = np.zeros(count, np.bool_)
    alive[found.live.members(0, count)] = True
    for label in np.flatnonzero((row_of[:known] != NONE) & ~metadata.sound[:known]).tolist():
        if alive[label]:
            found.add("record", "error", f"the record of label {label} is damaged or missing", path)
        elif metadata.present[label]:
            # `scan` reads retired versions too before it drops them, so this is no mere note.
            found.add("record", "warning", f"the retired record of label {label} is damaged", path)
    for label in np.flatnonzero(metadata.sound[:known] & (metadata.row_of[:known] != row_of[:known])).tolist():
        found.broken = True
        found.add(
            "labels", "error", f"label {label} names row {row_of[label]}, its record {metadata.row_of[label]}", path
        )
    for label in np.flatnonzero(metadata.lost_text[:known] & metadata.sound[:known] & alive[:known]).tolist():
        found.add("text", "error", f"the text of label {label} is damaged or missing", path)
    for label, words in metadata.doubles:
        if label < known:
            found.broken = True
            found.add("live_set", "error", words, path)
    if len(lost := np.flatnonzero(alive[:known] & (row_of[:known] == NONE))):
        found.broken = True
        found.add("live_set", "error", f"label {lost[0]} is live and has no row", path)
    if metadata.strays and alone and not ahead:
        found.broken = True
        found.add("sqlite", "error", f"{metadata.strays} records have labels that were never given", path)


def _check_vectors(
    folder: Path, manifest: Manifest, found: Findings, rows: npt.NDArray[Any] | None, *, deep: bool
) -> None:
    path = vectors_path(folder, manifest)
    dim, count = manifest.settings.dim, manifest.row_count
    vectors = read_vectors(folder, manifest, count)
    if not path.exists():
        found.broken = True
        found.add("missing", "error", "the vectors are missing", path)
        return
    if len(vectors) < count:
        found.broken = True
        found.add("vector", "error", f"expected {count} vectors, found {len(vectors)}", path, len(vectors) * dim * 4)
    if not deep or rows is None:
        return
    owned = np.zeros(count, np.bool_)
    if found.live is not None and found.row_of is not None:
        mine = found.row_of[found.live.members(0, len(found.row_of))]
        owned[mine[mine < count]] = True
    for row in damaged_vectors(vectors, rows["crc"]):
        if owned[row] or found.live is None:
            found.damaged_rows.append(row)
            found.add("vector", "error", f"the vector in row {row} does not match its checksum", path, row * dim * 4)
        else:
            found.add("vector", "note", f"the vector in row {row}, which no record uses any more, does not match its "
                      "checksum", path, row * dim * 4)  # fmt: skip


def damaged_vectors(vectors: npt.NDArray[np.float32], crcs: npt.NDArray[np.uint32], start: int = 0) -> list[int]:
    """Rows, counted from `start`, whose vector differs from its CRC-32C."""
    damaged = []
    width = vectors.shape[1] * 4
    step = max(1, _CHUNK_BYTES // width)
    checksum = google_crc32c.value
    for begin in range(0, len(vectors), step):
        data = vectors[begin : begin + step].tobytes()
        for at, crc in enumerate(crcs[begin : begin + len(data) // width].tolist()):
            if checksum(data[at * width : (at + 1) * width]) != crc:
                damaged.append(start + begin + at)
    return damaged


def _check_frames_in_columns(folder: Path, manifest: Manifest, found: Findings) -> None:
    """Beside an open handle: what the frames behind the checkpoint say stands in the columns, byte for byte."""
    path = folder / f"labels-{manifest.generation}.bin"
    for frame in found.frames:
        stored = read_vectors(folder, manifest, frame.first_row + len(frame.vectors))[frame.first_row :]
        if stored.tobytes() != frame.vectors.tobytes():
            found.add("vector", "error", f"the vectors of the batch at lsn {frame.lsn} differ from the log",
                      vectors_path(folder, manifest), frame.first_row * manifest.settings.dim * 4)  # fmt: skip
        entries = read_column(path, LABEL_TYPE, frame.labels.stop)[frame.first_label :]
        if entries["row"].tobytes() != frame.rows.astype("<u4").tobytes():
            found.add("labels", "error", f"the labels of the batch at lsn {frame.lsn} differ from the log", path,
                      frame.first_label * LABEL_TYPE.itemsize)  # fmt: skip


# --- what is derived -------------------------------------------------------------------------------------------------


def _check_indexes(folder: Path, manifest: Manifest, found: Findings, *, deep: bool) -> None:
    covered = (0, 0)
    for file in sorted(manifest.segments, key=lambda item: item.start):
        path = folder / "index" / file.name
        fits = file.start == covered[1] or (file.start, file.stop) == covered  # two kinds may cover the same rows
        if not fits or file.stop > manifest.row_count + sum(len(f.vectors) for f in found.frames):
            found.add(
                "index", "warning", f"the index covers rows {file.start} to {file.stop}, which does not fit", path
            )
        covered = file.start, file.stop
        for name, size, crc32c in file.parts:
            path = folder / "index" / name
            try:
                if (checksum(path) == (size, crc32c)) if deep else (path.stat().st_size == size):
                    continue
            except FileNotFoundError:
                found.add("index", "warning", "a search index is missing and will be built again", path)
                continue
            found.add("index", "warning", "a search index is damaged and will be built again", path)


def manifest_problem(folder: Path, error: NoPokeError) -> Problem:
    """A manifest that cannot be read: without it nothing else can be understood."""
    return Problem("manifest", "error", str(error), str(folder / manifests.NAME))


# --- through an open handle ------------------------------------------------------------------------------------------


def check_writing(folder: Path, manifest: Manifest, writes: WritePath, *, deep: bool) -> list[Problem]:
    """Look at the folder of a writing handle, which goes on writing; the caller holds its checkpoints back."""
    damaged: list[Problem] = []
    try:
        snapshot, log = writes.held_log(manifest.checkpoint_lsn, manifest.first_log)
    except CorruptionError as error:
        damaged.append(Problem("log", "error", str(error), error.file, error.offset))
        snapshot, log = writes.snapshot, LogContent([], None, False)
    problems = inspect(folder, manifest, deep=deep, moment=Moment(snapshot.lsn, snapshot.live, log)).problems
    return damaged + [problem for problem in problems if not (damaged and problem.kind in ("log", "live_set"))]


def check_reading(folder: Path, *, deep: bool) -> list[Problem]:
    """Look at a folder that others may write. Files may be replaced, and a frame be read half-written, meanwhile: what
    looks like damage of that sort is looked at again."""
    problems: list[Problem] = []
    for _ in range(_TRIES):
        lock = ReaderLock(folder / "LOCK")
        try:
            published = read_published(folder / "LOCK")
            manifest = require_collection(folder)
            moment = None
            if not lock.alone:
                log = read_log(folder / "oplog", manifest.checkpoint_lsn, first_file=manifest.first_log)
                moment = Moment(published.lsn if published else 0, None, log)
            problems = inspect(folder, manifest, deep=deep, moment=moment).problems
        except (FileNotFoundError, CorruptionError) as error:
            place = error.file if isinstance(error, CorruptionError) else str(error.filename)
            problems = [Problem("log", "error", str(error), place, getattr(error, "offset", None))]
        finally:
            lock.release()
        if not {"log", "live_set", "missing", "index"} & {problem.kind for problem in problems}:
            break
    return problems


def check_earlier(folder: Path, manifest: Manifest, *, deep: bool) -> list[Problem]:
    """Look at the collections that are kept from before the present model; what is dropped meanwhile is no problem."""
    problems: list[Problem] = []
    for kept in earlier.folders(folder, manifest):
        try:
            earlier.require_readable(kept, manifest)
            found = check_reading(kept, deep=deep)
        except NoPokeError as error:
            found = [manifest_problem(kept, error)]
        if found and kept in earlier.folders(folder, manifest):
            problems += found
    return problems
