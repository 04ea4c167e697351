"""Planted bugs of the operation log, and of its recovery."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from crash.plants import Replace, nothing, plant, written_unsynced
from nopokedb.embedded import engine, recovery, write_path
from nopokedb.embedded.storage import oplog


@plant("one_batch", 2)
def log_never_synced(put: Replace) -> None:
    def sync(self: Any, lsn: int) -> None:
        self.synced_lsn = max(self.synced_lsn, lsn)

    put(oplog.OplogWriter, "sync", sync)


@plant("one_batch", 2)
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


@plant("one_failed_sync", 2)
def failed_sync_repeated(put: Replace) -> None:
    """The second attempt succeeds, without what the first one lost."""
    real = oplog.sync

    def sync(descriptor: int) -> None:
        try:
            real(descriptor)
        except OSError:
            real(descriptor)

    put(oplog, "sync", sync)


@plant("one_batch", 2)
def name_of_a_log_file_not_synced(put: Replace) -> None:
    put(oplog, "sync_folder", nothing)


@plant("one_batch", 2)
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


@plant("one_checkpoint", 4)
def deletions_not_logged(put: Replace) -> None:
    real = write_path.encode_frame
    put(write_path, "encode_frame", lambda frame: real(replace(frame, retired=frame.retired[:0])))


@plant("two_batches", 4)
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


@plant("one_checkpoint", 5)
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


@plant("one_unsynced_rotation", 5)
def rotation_without_a_sync(put: Replace) -> None:
    """Shows with durability="os": the new file vouches for frames of the old one that are not durable."""

    def rotate(self: Any) -> None:
        self.synced_lsn = self.next_lsn - 1
        old, self._descriptor = self._descriptor, self._create(self.number + 1)
        os.close(old)

    put(oplog.OplogWriter, "rotate", rotate)


@plant("two_batches", 2, in_recovery=True)
def base_file_not_synced(put: Replace) -> None:
    put(oplog, "write_durably", written_unsynced)


@plant("two_batches", 2, in_recovery=True)
def old_logs_dropped_before_the_base_file(put: Replace) -> None:
    real = recovery.write_base

    def write_base(folder: Path, number: int, *args: Any) -> None:
        recovery.drop_logs(folder, number)
        real(folder, number, *args)

    put(recovery, "write_base", write_base)


@plant("one_kill", 4)
def recovery_goes_on_with_the_old_log(put: Replace) -> None:
    """What it read is served, and only the page cache may have it."""
    put(recovery, "write_base", nothing)
    put(recovery, "drop_logs", nothing)
    real = recovery.open_for_writing

    def open_for_writing(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        found.dirty = False  # no checkpoint either
        return found

    put(recovery, "open_for_writing", open_for_writing)
