"""Batches that bring an earlier state back: undo, rollback and repair.

An earlier state is a set of labels, and labels never change their meaning. So going back is: retire the labels that
are live now and were not then, and write new labels for those that were live then and are not now, with the content
of the old ones, on the rows that hold their vectors already. No vector is written again, and the batch is a frame
like any other: atomic, durable, replayed by recovery, and undone by the next undo.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.resolve import Position
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import MAX_ENTRIES
from nopokedb.embedded.storage.frames import Frame, decode_frame
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.storage.oplog import read_log
from nopokedb.embedded.store import Store
from nopokedb.embedded.write_path import Drafted, WritePath
from nopokedb.errors import CorruptionError, InvalidInputError, NothingToUndoError
from nopokedb.records import Id, check_batch_bytes, id_order


def undo_frame(frame: Frame, position: Position, snapshot: Snapshot) -> tuple[Drafted | None, int]:
    """The batch that takes back `frame`, the last one, and how many records it changes."""
    retire = [label for label in frame.labels if label in snapshot.live]
    # Labels that the batch both wrote and retired never were visible.
    restore = [label for label in frame.retired.tolist() if label < frame.first_label]
    return exchange_frame(retire, restore, position, snapshot)


def undo_last(writes: WritePath, store: Store) -> int:
    """Take the last batch back; how many records that changes. The caller holds checkpoints back."""
    changed = 0

    def draft(position: Position, snapshot: Snapshot) -> Drafted | None:
        nonlocal changed
        frame = _last_frame(writes, store, snapshot)
        drafted, changed = undo_frame(frame, position, snapshot)
        return drafted

    writes.write_drafted(draft)
    return changed


def _last_frame(writes: WritePath, store: Store, snapshot: Snapshot) -> Frame:
    """The frame of the last batch, from the log."""
    if not snapshot.lsn:
        raise NothingToUndoError("expected a last batch to undo, but nothing was written to this collection")
    if writes.log.first_lsn > snapshot.lsn:
        raise NothingToUndoError(
            f"expected the last batch (lsn {snapshot.lsn}) in the log, but a checkpoint has dropped it; undo reaches "
            "back only until a checkpoint (save, close, 30 s without a write, or a log of 64 MiB)"
        )
    log = read_log(store.folder / "oplog", snapshot.lsn - 1, first_file=writes.log.number)
    entry = log.entries[0]
    return decode_frame(entry.payload, entry.lsn)


def rollback_frame(live: Bitmap, position: Position, snapshot: Snapshot) -> tuple[Drafted | None, int]:
    """The batch that makes exactly the content of the labels `live` visible again, and how many records change."""
    now = snapshot.live.members(0, snapshot.label_count)
    then = live.members(0, snapshot.label_count)
    retire: npt.NDArray[np.int64] = np.setdiff1d(now, then, assume_unique=True)
    restore: npt.NDArray[np.int64] = np.setdiff1d(then, now, assume_unique=True)
    return exchange_frame(retire.tolist(), restore.tolist(), position, snapshot)


def exchange_frame(
    retire: Sequence[int],
    restore: Sequence[int],
    position: Position,
    snapshot: Snapshot,
) -> tuple[Drafted | None, int]:
    """The batch that retires live labels and brings the content of retired ones back, and how many records change."""
    reader = snapshot.store.reader
    if not retire and not restore:
        return None, 0
    old = {item.label: item for item in reader.fetch_all(restore)}
    gone = {item.label: item for item in reader.fetch_all(retire)}
    texts = reader.texts([*old.values(), *gone.values()])
    # A version that an earlier rollback wrote again says the same as the one it was made of: it stays.
    now = {item.id: item for item in gone.values()}
    same = {
        label: now[item.id].label
        for label, item in old.items()
        if item.id in now
        and (item.row, item.metadata, texts.get(label))
        == (now[item.id].row, now[item.id].metadata, texts.get(now[item.id].label))
    }
    kept = set(same.values())
    restore = [label for label in restore if label not in same]
    retire = [label for label in retire if label not in kept]
    if not retire and not restore:
        return None, 0
    back = {old[label].id for label in restore}
    if len(back) != len(restore):
        raise CorruptionError("two labels of one id are to come back", file=str(reader.path))
    drafted = frame_of(
        retire,
        [(old[label], texts.get(label)) for label in restore],
        position,
        snapshot,
    )
    ids: set[Id] = {gone[label].id for label in retire}
    return (drafted, sorted(ids - back, key=id_order)), len(ids | back)


def frame_of(
    retire: Sequence[int],
    versions: Sequence[tuple[Stored, str | None]],
    position: Position,
    snapshot: Snapshot,
) -> Frame:
    """A frame that retires labels and writes these versions again, each on the row that it names."""
    if position.next_label + len(versions) >= MAX_ENTRIES:
        raise InvalidInputError(f"expected at most {MAX_ENTRIES} record versions in a collection")
    check_batch_bytes(sum(len(item.metadata) + len((text or "").encode()) for item, text in versions))
    rows = np.array([item.row for item, _ in versions], np.uint32)
    return Frame(
        snapshot.store.generation,
        position.next_label,
        position.next_row,
        position.next_auto_id,
        rows,
        # The newest label of the row, so that older snapshots find theirs by stepping back from the new one.
        snapshot.row_labels[rows].astype(np.uint32),
        np.array(retire, np.uint32),
        [item.id for item, _ in versions],
        [item.metadata for item, _ in versions],
        [text for _, text in versions],
        np.empty((0, snapshot.vectors.shape[1]), np.float32),
    )
