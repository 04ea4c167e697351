"""The generation that a compaction or a reembedding makes: a copy of the live records, until it is in use.

It has no log. What it is brought to is always the state of one snapshot of the generation in use, first from nothing,
then from the difference to the snapshot before: labels that have come, and labels that are live no more.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nopokedb.embedded import named
from nopokedb.embedded.field_indexes import FieldIndexes
from nopokedb.embedded.leftovers import remove_generation
from nopokedb.embedded.recovery import make_durable
from nopokedb.embedded.search.options import Stopped
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import COMPUTED, NONE
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.manifest import Manifest, SegmentFile, Settings
from nopokedb.embedded.storage.metadata import Field
from nopokedb.embedded.store import Store
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.records import Id, Vectors

_log = logging.getLogger("nopokedb")

VectorsOf: TypeAlias = Callable[[Sequence[Id], Sequence[str | None]], Vectors]
SLICE_RECORDS = 1_024
_SLICE_BYTES = 8 * 2**20
"""A slice holds at most so many records, and vectors of so many bytes."""
_CHECKPOINT_SLICES = 32
"""So often SQLite's WAL is emptied, which would otherwise grow to the size of all metadata."""


class NewGeneration:
    """The generation under construction."""

    def __init__(
        self,
        folder: Path,
        old: Store,
        upkeep: Upkeep,
        fields: FieldIndexes,
        kept: Bitmap,
        *,
        settings: Settings | None = None,
        vectors_of: VectorsOf | None = None,
    ) -> None:
        """With other `settings`, and vectors that are made of ids and texts, it is one for another model."""
        self._folder = folder
        self._vectors_of = vectors_of
        self._upkeep = upkeep
        generation = old.generation + 1
        if not remove_generation(folder, generation):  # what an earlier attempt could not remove
            raise OSError(errno.EBUSY, f"files of an unfinished generation are in use: {folder}")
        self._manifest = Manifest(settings or upkeep.manifest.settings, upkeep.manifest.identity, generation)
        self.named = False
        """The manifest on the medium may name it."""
        try:
            self.store = Store(folder, self._manifest, writable=True)
        except BaseException:
            self._remove()
            raise
        self._files: tuple[SegmentFile, ...] = ()
        self._label_count = 0
        """How many labels of the old generation have been looked at."""
        self._kept = kept
        """Old labels that named snapshots need, live or not."""
        self._live = Bitmap()
        """Old labels that are copied and live here."""
        self._copied = np.empty(0, np.uint32)
        self._copied_count = 0
        """The old label of each new one, ascending; the array has room behind."""
        self._slices = 0
        try:
            assert self.store.writer is not None
            for field in fields.fields():
                if field.ready:
                    number = self.store.writer.add_field(field.path, automatic=field.automatic)
                    self.store.writer.finish_field(number)
            self.snapshot = self.store.load(self._manifest)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Remove all of it. What cannot be removed goes at the next attempt or open."""
        self.store.close()
        self._remove()

    def _remove(self) -> None:
        try:
            remove_generation(self._folder, self._manifest.generation)
        except OSError as error:
            _log.warning(
                "%s: an unfinished generation stays until the next open: %s",
                self._folder,
                error,
                extra={"event": "leftover_stays"},
            )

    def changes(self, source: Snapshot) -> int:
        """How many versions have come or gone since the last `catch_up`."""
        return source.label_count - self._label_count + len(self._live.missing_from(source.live))

    def catch_up(
        self,
        source: Snapshot,
        *,
        report: Callable[[int], object] = lambda count: None,
        to_the_end: bool = False,
    ) -> None:
        """Bring it to the state of this snapshot of the old generation, `to_the_end` also when the upkeep has been told
        to stop. `report` is told of each slice how many records it has."""
        for labels in self._slices_of(source):
            if self._upkeep.stopping and not to_the_end:
                raise Stopped
            self._copy(source, labels)
            report(len(labels))
        gone = self._live.missing_from(source.live)
        if len(gone):
            retired = np.searchsorted(self._copied[: self._copied_count], gone).astype(np.uint32)
            self._apply(_frame(self.snapshot, source, retired=retired))
        self._label_count, self._live = source.label_count, source.live
        self.snapshot = replace(self.snapshot, lsn=source.lsn, next_auto_id=source.next_auto_id)

    def _slices_of(self, source: Snapshot) -> Iterator[npt.NDArray[np.int64]]:
        labels = np.union1d(
            source.live.members(self._label_count, source.label_count),
            self._kept.members(self._label_count, source.label_count),
        )
        size = max(16, min(SLICE_RECORDS, _SLICE_BYTES // source.vectors[:0].strides[0]))
        for start in range(0, len(labels), size):
            yield labels[start : start + size]

    def _copy(self, source: Snapshot, labels: npt.NDArray[np.int64]) -> None:
        """Copy these versions, ascending; every byte is compared with its checksum."""
        reader = source.store.reader
        stored = reader.fetch_all(labels.tolist())
        rows = source.rows_of(labels)
        source.require_rows(stored, rows)
        texts = reader.texts(stored)
        if self._vectors_of is None:
            vectors, computed = source.verified_vectors(rows), (source.rows["flags"][rows] & COMPUTED).astype(np.uint8)
        else:
            vectors = self._vectors_of([item.id for item in stored], [texts.get(item.label) for item in stored])
            computed = np.full(len(rows), COMPUTED, np.uint8)
        first = self.snapshot.label_count
        frame = replace(
            _frame(self.snapshot, source),
            rows=np.arange(first, first + len(labels), dtype=np.uint32),
            previous=np.full(len(labels), NONE, np.uint32),
            ids=[item.id for item in stored],
            metadatas=[item.metadata for item in stored],
            texts=[texts.get(item.label) for item in stored],
            vectors=vectors,
            computed=computed,
            # What only a snapshot needs is no longer live.
            retired=np.array(
                [first + at for at, label in enumerate(labels.tolist()) if label not in source.live], np.uint32
            ),
        )
        self._apply(frame)
        stop = self._copied_count + len(labels)
        if stop > len(self._copied):
            self._copied = np.resize(self._copied, stop + stop // 4)
        self._copied[self._copied_count : stop] = labels
        self._copied_count = stop
        self._slices += 1
        if self._slices % _CHECKPOINT_SLICES == 0:
            assert self.store.writer is not None
            self.store.writer.checkpoint()

    def _apply(self, frame: Frame) -> None:
        self.snapshot = self.store.copy(self.snapshot, frame)

    def match_fields(self, wanted: Sequence[Field]) -> None:
        """Have an index on the fields that have one now: some may have come or gone since this was begun."""
        writer = self.store.writer
        assert writer is not None
        have = {field.path: field for field in self.store.reader.fields()}
        want = {field.path: field for field in wanted if field.ready}
        for path, field in want.items():
            if path not in have:
                number = writer.add_field(path, automatic=field.automatic)
                writer.fill_field(number, 0, self.snapshot.label_count)
                writer.finish_field(number)
            elif have[path].automatic and not field.automatic:
                writer.keep_field(have[path].number)
        for path, field in have.items():
            if path not in want:
                writer.drop_field(field.number)

    def shrink(self) -> None:
        """Empty SQLite's WAL, for a store that is opened on these files anew."""
        assert self.store.writer is not None
        self.store.writer.shrink()

    def seal(self) -> None:
        """Index the rows that are there."""
        self.snapshot, self._files = self._upkeep.sealing.seal_ahead(self.snapshot)

    def carry_snapshots(self, old: Manifest) -> None:
        """Write the named snapshots with the new numbers."""
        copied = self._copied[: self._copied_count]
        named.carry_over(
            self._folder,
            old,
            self.store.generation,
            lambda labels: np.searchsorted(copied, labels).astype(np.int64),
            self.snapshot.label_count,
            self.snapshot.row_count,
        )

    def make_durable(self, old: Manifest) -> Manifest:
        """Bring all that was copied so far to the medium; the manifest that names it, but for the log. The names of the
        files are durable once the folder is synced."""
        assert self.store.writer is not None
        self.store.writer.finish_copy(self.snapshot.lsn)
        before = self._manifest.live_file
        self._manifest = make_durable(self._folder, self._manifest, self.snapshot, first_log=old.first_log)
        if before and before != self._manifest.live_file:
            (self._folder / before).unlink(missing_ok=True)
        return replace(self._manifest, segments=self._files)


def _frame(here: Snapshot, source: Snapshot, *, retired: npt.NDArray[np.uint32] | None = None) -> Frame:
    """A frame that adds nothing yet, in the place where the new generation stands."""
    nothing = np.empty(0, np.uint32)
    return Frame(
        here.store.generation,
        here.label_count,
        here.row_count,
        source.next_auto_id,
        nothing,
        nothing,
        nothing if retired is None else retired,
        [],
        [],
        [],
        here.vectors[:0],
        source.lsn,
    )
