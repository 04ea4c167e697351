"""Bugs, planted to prove that the instrument finds such. Each replaces functions of the package in the processes of the
instrument; the package itself has no switch.

Tried and left out, because they are no bugs: not syncing the header of a new log file (the first commit syncs it, and
without one a log is an unfinished end), and not syncing an index file (its checksum is compared, and it is built again).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nopokedb.embedded import engine, recovery, upkeep, write_path
from nopokedb.embedded.storage import files, manifest, metadata, oplog
from nopokedb.embedded.store import Store

Replace = Callable[[Any, str, Any], None]


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug, and the smallest workload that shows it."""

    patch: Callable[[Replace], None]
    scenario: str
    skip: int
    """Marks of the workload before the first point that is looked at: it cannot show earlier, or shows later too."""
    in_recovery: bool
    """It shows only when a recovery is interrupted."""


PLANTS: dict[str, Plant] = {}


def _plant(
    scenario: str, skip: int = 0, *, in_recovery: bool = False
) -> Callable[[Callable[[Replace], None]], Callable[[Replace], None]]:
    def register(patch: Callable[[Replace], None]) -> Callable[[Replace], None]:
        PLANTS[patch.__name__] = Plant(patch, scenario, skip, in_recovery)
        return patch

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Within the block the package has this bug."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    try:
        PLANTS[name].patch(put)
        yield
    finally:
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)


def _nothing(*_: Any) -> None:
    """In place of a sync."""


def _written_unsynced(path: Path, data: bytes) -> None:
    """`write_durably` without its sync."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


# --- the log -------------------------------------------------------------------------------------------------


@_plant("one_batch", 2)
def log_never_synced(put: Replace) -> None:
    def sync(self: Any, lsn: int) -> None:
        self.synced_lsn = max(self.synced_lsn, lsn)

    put(oplog.OplogWriter, "sync", sync)


@_plant("one_batch", 2)
def acknowledged_before_the_sync(put: Replace) -> None:
    """The sync of a batch is done when the next one is written."""
    real_sync, real_append = oplog.OplogWriter.sync, oplog.OplogWriter.append
    late: list[int] = []

    def append(self: Any, payload: bytes) -> int:
        while late:
            real_sync(self, late.pop())
        return real_append(self, payload)

    put(oplog.OplogWriter, "sync", lambda self, lsn: late.append(lsn))
    put(oplog.OplogWriter, "append", append)


@_plant("one_batch", 2)
def name_of_a_log_file_not_synced(put: Replace) -> None:
    put(oplog, "sync_folder", _nothing)


@_plant("one_batch", 2)
def batch_in_two_frames(put: Replace) -> None:
    real = engine.EmbeddedEngine.write

    def write(self: Any, writes: Any) -> Any:
        (whole,) = writes
        if whole.ids is None or whole.count < 2:
            return real(self, writes)
        parts = [
            replace(
                whole,
                ids=whole.ids[at],
                count=len(whole.ids[at]),
                **{
                    name: None if getattr(whole, name) is None else getattr(whole, name)[at]
                    for name in ("vectors", "metadatas", "texts")
                },
            )
            for at in (slice(0, 1), slice(1, None))
        ]
        first, second = real(self, parts[:1]), real(self, parts[1:])
        return [first[0] + second[0]]

    put(engine.EmbeddedEngine, "write", write)


@_plant("one_checkpoint", 4)
def deletions_not_logged(put: Replace) -> None:
    real = write_path.encode_frame
    put(write_path, "encode_frame", lambda frame: real(replace(frame, retired=frame.retired[:0])))


@_plant("two_batches", 4)
def checksum_of_a_frame_not_compared(put: Replace) -> None:
    """Whatever the checksum says, a frame with a whole header counts."""
    real = oplog._read_frame

    def read(path: Path, data: bytes, offset: int) -> Any:
        head = data[offset : offset + oplog._FRAME_BYTES]
        if real(path, data, offset) is None and len(head) == oplog._FRAME_BYTES:
            magic, _, _, salt, lsn, synced_lsn, length, _, chain = oplog._FRAME.unpack_from(head)
            begin = offset + oplog._FRAME_BYTES
            if magic == oplog._FRAME_MAGIC and begin + length <= len(data):
                crc = oplog._FRAME_CRC.unpack_from(head, oplog._FRAME.size)[0]
                payload = data[begin : begin + length]
                return oplog.Entry(lsn, synced_lsn, payload, path, offset), salt, chain, crc
        return real(path, data, offset)

    put(oplog, "_read_frame", read)


@_plant("one_checkpoint", 5)
def log_file_recycled_too_early(put: Replace) -> None:
    """A rotation takes the old file under a new name, before the checkpoint made it superfluous."""
    real = oplog.OplogWriter._create

    def create(self: Any, number: int) -> int:
        old = oplog.log_path(self._folder, number - 1)
        made = real(self, number)
        if hasattr(self, "_descriptor") and old.exists():
            old.unlink()
        return made

    put(oplog.OplogWriter, "_create", create)


@_plant("one_unsynced_rotation", 5)
def rotation_without_a_sync(put: Replace) -> None:
    """Shows with durability="os": the new file vouches for frames of the old one that are not durable."""

    def rotate(self: Any) -> None:
        self.synced_lsn = self.next_lsn - 1
        old, self._descriptor = self._descriptor, self._create(self.number + 1)
        os.close(old)

    put(oplog.OplogWriter, "rotate", rotate)


# --- the checkpoint ------------------------------------------------------------------------------------------


def _save_state_is(put: Replace, save_state: Any) -> None:
    put(recovery, "save_state", save_state)
    put(upkeep, "save_state", save_state)


@_plant("one_checkpoint", 5)
def manifest_before_the_stores(put: Replace) -> None:
    real = recovery.save_state

    def save_state(folder: Path, state: Any, store: Store, snapshot: Any, *, first_log: int) -> Any:
        assert store.writer is not None
        with_syncs = (Store.sync_columns, metadata.MetadataWriter.checkpoint)
        Store.sync_columns = metadata.MetadataWriter.checkpoint = _nothing  # type: ignore[method-assign, assignment]
        try:
            made = real(folder, state, store, snapshot, first_log=first_log)
        finally:
            Store.sync_columns, metadata.MetadataWriter.checkpoint = with_syncs  # type: ignore[method-assign]
        store.sync_columns()
        store.writer.checkpoint()
        return made

    _save_state_is(put, save_state)


@_plant("one_checkpoint", 5)
def logs_dropped_before_the_manifest(put: Replace) -> None:
    real = recovery.save_state

    def save_state(folder: Path, *args: Any, first_log: int) -> Any:
        oplog.drop_logs(folder / "oplog", first_log)
        return real(folder, *args, first_log=first_log)

    _save_state_is(put, save_state)


@_plant("one_reopening", 7)
def old_live_set_removed_before_the_manifest(put: Replace) -> None:
    real = recovery.save_state

    def save_state(folder: Path, state: Any, *args: Any, first_log: int) -> Any:
        if state.live_file:
            (folder / state.live_file).unlink()
        return real(folder, state, *args, first_log=first_log)

    _save_state_is(put, save_state)


@_plant("one_checkpoint", 5)
def columns_not_synced(put: Replace) -> None:
    put(Store, "sync_columns", _nothing)


@_plant("one_checkpoint", 5)
def vectors_alone_not_synced(put: Replace) -> None:
    def sync_columns(self: Any) -> None:
        self.rows.sync()
        self.labels.sync()

    put(Store, "sync_columns", sync_columns)


@_plant("one_checkpoint", 5)
def sqlite_with_synchronous_off(put: Replace) -> None:
    real = metadata._connect

    def connect(path: Path, *, writable: bool, immutable: bool = False) -> Any:
        connection = real(path, writable=writable, immutable=immutable)
        connection.execute("PRAGMA synchronous=OFF").fetchall()
        return connection

    put(metadata, "_connect", connect)


@_plant("blocked_checkpoint", 6)
def wal_not_synced_when_a_reader_blocks_the_checkpoint(put: Replace) -> None:
    put(metadata, "sync", _nothing)


@_plant("one_checkpoint", 5)
def live_set_not_synced(put: Replace) -> None:
    put(recovery, "write_durably", _written_unsynced)


@_plant("one_checkpoint", 5)
def manifest_not_synced(put: Replace) -> None:
    put(manifest, "write_durably", _written_unsynced)


@_plant("one_checkpoint", 5)
def name_of_the_manifest_not_synced(put: Replace) -> None:
    put(manifest, "sync_folder", _nothing)


@_plant("one_checkpoint", 5)
def manifest_written_in_place(put: Replace) -> None:
    def write(path: Path, data: bytes) -> None:
        descriptor = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        files.write_at(descriptor, data, 0)
        files.sync(descriptor)
        os.close(descriptor)

    put(manifest, "write_durably", write)


@_plant("one_checkpoint", 5)
def checkpoint_claims_the_next_batch(put: Replace) -> None:
    real = recovery.replace

    def one_more(state: Any, **changes: Any) -> Any:
        if "checkpoint_lsn" in changes:
            changes["checkpoint_lsn"] += 1
        return real(state, **changes)

    put(recovery, "replace", one_more)


# --- applying ------------------------------------------------------------------------------------------------


@_plant("two_batches", 2)
def applied_lsn_in_a_transaction_of_its_own(put: Replace) -> None:
    """Written ahead of the records, so that replaying skips them."""
    real = metadata.MetadataWriter.write

    def write(self: Any, frames: Any) -> None:
        wanted = [frame for frame in frames if frame.lsn > self.applied_lsn]
        if wanted:
            self._connection.execute("UPDATE state SET value=? WHERE key='applied_lsn'", (wanted[-1].lsn,))
        real(self, frames)

    put(metadata.MetadataWriter, "write", write)


@_plant("one_batch", 1)
def name_of_the_collection_not_synced(put: Replace) -> None:
    put(recovery, "sync_folder", _nothing)


# --- recovery ------------------------------------------------------------------------------------------------


@_plant("two_batches", 2, in_recovery=True)
def base_file_not_synced(put: Replace) -> None:
    put(oplog, "write_durably", _written_unsynced)


@_plant("two_batches", 2, in_recovery=True)
def old_logs_dropped_before_the_base_file(put: Replace) -> None:
    real = recovery.write_base

    def write_base(folder: Path, number: int, *args: Any) -> None:
        recovery.drop_logs(folder, number)
        real(folder, number, *args)

    put(recovery, "write_base", write_base)


@_plant("one_checkpoint", 6, in_recovery=True)
def leftovers_removed_by_a_stale_manifest(put: Replace) -> None:
    """The live set in use is taken for a leftover while its successor is not written yet."""
    real = recovery._remove_leftovers

    def remove(folder: Path, state: Any) -> None:
        real(folder, state)
        if state.live_file:
            path = folder / state.live_file
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)

    put(recovery, "_remove_leftovers", remove)
