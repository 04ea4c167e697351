"""The stores of one generation, and `apply`: the only code that changes state.

Live writes, recovery and a reader that follows a writer all bring frames here, in lsn order. Every step is
idempotent by position or by lsn, so a frame may be applied again after a crash at any point.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from nopokedb.distances import row_blocks, squared_norms
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import COMPUTED, LABEL_TYPE, NONE, ROW_TYPE, Column
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.lock import GenerationHold
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.metadata import MetadataReader, MetadataWriter
from nopokedb.errors import CorruptionError


def live_file_name(generation: int, lsn: int) -> str:
    """Name of the live set saved by the checkpoint at `lsn`."""
    return f"live-{generation}-{lsn}.bits"


class Store:
    """Vectors, rows, labels, metadata and the live set. `writer` is None in a read-only handle.

    Snapshots refer to their store. It is closed when the last of them is gone, or by `close`.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, writable: bool, immutable: bool = False) -> None:
        self.folder = folder
        self.generation = generation = manifest.generation
        dim = manifest.settings.dim
        vector_type = np.dtype(("<f4", (dim,)))
        metadata = folder / f"metadata-{generation}.db"
        with ExitStack() as opened:
            if not writable:  # as long as it is there, no writer removes the files of this generation
                opened.callback(GenerationHold(folder / f"rows-{generation}.bin").release)

            def column(name: str, dtype: np.dtype[Any]) -> Column:
                made = Column(folder / name, dtype, writable=writable)
                opened.callback(made.close)
                return made

            self.vectors = column(f"vectors-{generation}.f32", vector_type)
            self.rows = column(f"rows-{generation}.bin", ROW_TYPE)
            self.labels = column(f"labels-{generation}.bin", LABEL_TYPE)
            self.writer = MetadataWriter(metadata) if writable else None
            if self.writer is not None:
                opened.callback(self.writer.close)
            self._readers = [MetadataReader(metadata, immutable=immutable)]
            opened.callback(_close_all, self._readers)
            self._closing = opened.pop_all()
            self._finalizer = weakref.finalize(self, self._closing.close)
            self._finalizer.atexit = False
        self.columns = (self.vectors, self.rows, self.labels)
        self.immutable = immutable

    @property
    def reader(self) -> MetadataReader:
        """Reads records and texts."""
        return self._readers[-1]

    def share(self) -> None:
        """Read SQLite with locks from now on: a writer has come, and what was read since without them means nothing."""
        if self.immutable:
            self._readers.append(MetadataReader(self.reader.path))
            self._readers[0].close()
            self.immutable = False

    def load(self, manifest: Manifest) -> Snapshot:
        """The state at the manifest's checkpoint, without segments."""
        live = Bitmap()
        if manifest.live_file:
            path = self.folder / manifest.live_file
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise CorruptionError(f"the live set is missing: {path}", file=str(path)) from error
            if google_crc32c.value(data) != manifest.live_crc32c:
                raise CorruptionError(f"the live set is damaged: {path}", file=str(path))
            live = Bitmap.from_bytes(data)
        count, row_count = manifest.label_count, manifest.row_count
        for column, number, crc32c in (
            (self.labels, count, manifest.labels_crc32c),
            (self.rows, row_count, manifest.rows_crc32c),
        ):
            if self.column_crc32c(column, 0, number, 0) != crc32c:
                raise CorruptionError(f"the entries up to {number} are damaged: {column.path}", file=str(column.path))
        row_of = self._view(self.labels, count)["row"]
        row_labels = np.full(row_count, NONE, np.uint32)
        known = np.flatnonzero(row_of != NONE)
        if len(known) and row_of[known].max() >= row_count:
            raise CorruptionError(f"{self.labels.path} names rows past the end", file=str(self.labels.path))
        row_labels[row_of[known]] = known  # ascending, so the newest label of a row stays
        alive = live.members(0, count)
        live_rows = (
            live
            if count == row_count == len(known) and not len(np.flatnonzero(row_of != np.arange(count)))
            else Bitmap().changed(row_of[alive].astype(np.int64), np.empty(0, np.int64))
        )
        return self._snapshot(
            manifest.checkpoint_lsn, count, row_count, manifest.next_auto_id, live, live_rows, row_labels, ()
        )

    def apply(self, before: Snapshot, frames: Sequence[Frame]) -> Snapshot:
        """The state after these frames, which follow `before` in lsn order."""
        row_count = before.row_count
        for frame in frames:
            if frame.first_label < before.label_count or frame.first_row != row_count:
                raise CorruptionError(f"the batch at lsn {frame.lsn} does not continue the state before it")
            row_count += len(frame.vectors)
        if self.writer is not None:
            self._write_columns(before.label_count, frames)
            self.writer.write(frames)
        return self._after(before, frames)

    def copy(self, before: Snapshot, frame: Frame) -> Snapshot:
        """`apply` for a part of an older generation that is copied into this one, which nobody uses yet: the records
        have no lsn of their own. `MetadataWriter.finish_copy` gives them that of the state that was copied."""
        assert self.writer is not None
        self._write_columns(before.label_count, [frame])
        self.writer.copy(frame)
        return self._after(before, [frame])

    def _write_columns(self, label_count: int, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.first_label > label_count:  # labels that recovery skipped never get a row
                self.labels.write(
                    label_count,
                    np.full(frame.first_label - label_count, NONE, "<u4").repeat(2).view(LABEL_TYPE),
                )
            label_count = frame.labels.stop
            self.vectors.write(frame.first_row, frame.vectors)
            self.rows.write(frame.first_row, _row_entries(frame))
            entries = np.empty(frame.label_count, LABEL_TYPE)
            entries["row"], entries["previous"] = frame.rows, frame.previous
            self.labels.write(frame.first_label, entries)

    def _after(self, before: Snapshot, frames: Sequence[Frame]) -> Snapshot:
        """The state in memory after these frames, which the files have."""
        label_count = frames[-1].labels.stop
        row_count = frames[-1].first_row + len(frames[-1].vectors)
        row_labels = _grown(before.row_labels, row_count)
        new_labels = [np.arange(frame.labels.start, frame.labels.stop) for frame in frames]
        for frame, labels_of_frame in zip(frames, new_labels, strict=True):
            row_labels[frame.rows] = labels_of_frame
        added = _joined(new_labels)
        retired = _joined([frame.retired for frame in frames])
        new_rows = _joined([frame.rows for frame in frames])
        labels = self._view(self.labels, label_count)
        freed = retired
        if len(retired):
            retired_rows = labels["row"][retired].astype(np.int64)
            # A retired label frees its row unless a newer label has taken the row over.
            freed = retired_rows[row_labels[retired_rows] == retired]
        return self._snapshot(
            frames[-1].lsn,
            label_count,
            row_count,
            max(before.next_auto_id, frames[-1].next_auto_id),
            before.live.changed(added, retired),
            before.live_rows.changed(new_rows, freed),
            row_labels,
            before.segments,
        )

    def _snapshot(
        self,
        lsn: int,
        label_count: int,
        row_count: int,
        next_auto_id: int,
        live: Bitmap,
        live_rows: Bitmap,
        row_labels: npt.NDArray[np.uint32],
        segments: tuple[Any, ...],
    ) -> Snapshot:
        vectors, rows = self._view(self.vectors, row_count), self._view(self.rows, row_count)
        return Snapshot(
            lsn,
            label_count,
            row_count,
            next_auto_id,
            live,
            live_rows,
            vectors,
            rows,
            row_labels,
            self.labels,
            self,
            segments,
        )

    def _view(self, column: Column, count: int) -> npt.NDArray[Any]:
        try:
            return column.view(count)
        except EOFError as error:
            raise CorruptionError(f"{column.path} is too short: {error}", file=str(column.path)) from error

    def sync_columns(self) -> None:
        """Make vectors, rows and labels durable."""
        for column in self.columns:
            column.sync()

    def column_crc32c(self, column: Column, start: int, stop: int, crc32c: int) -> int:
        """The CRC-32C of the entries up to `stop`, from that of the entries up to `start`."""
        return google_crc32c.extend(crc32c, self._view(column, stop)[start:].tobytes())  # type: ignore[no-any-return]

    def on_close(self, callback: Callable[[], object]) -> None:
        """Called when the files are released. It must not refer to the store."""
        self._closing.callback(callback)

    def close(self) -> None:
        """Release files and connections. Arrays of snapshots stay valid."""
        self._finalizer()


def _close_all(readers: list[MetadataReader]) -> None:
    for reader in readers:
        reader.close()


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)).astype(np.int64)


def _row_entries(frame: Frame) -> npt.NDArray[Any]:
    entries = np.zeros(len(frame.vectors), ROW_TYPE)
    entries["norm"] = np.sqrt(squared_norms(frame.vectors))
    if frame.computed is not None:
        entries["flags"] = frame.computed * np.uint32(COMPUTED)
    width = frame.vectors.shape[1] * 4
    checksums: list[int] = []
    for block in row_blocks(frame.vectors):
        data = frame.vectors[block].tobytes()
        checksums += [google_crc32c.value(data[at : at + width]) for at in range(0, len(data), width)]
    entries["crc"] = checksums
    return entries


def _grown(row_labels: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.uint32]:
    """The array with room for `count` rows. Grown copies keep spare room behind their end (`base`), so that
    single adds do not copy the whole array; older snapshots share the part they know."""
    spare = row_labels.base
    if count <= len(row_labels):
        return row_labels
    if not (isinstance(spare, np.ndarray) and len(spare) >= count):
        spare = np.full(max(1024, count + count // 4), NONE, np.uint32)
        spare[: len(row_labels)] = row_labels
    return spare[:count]
