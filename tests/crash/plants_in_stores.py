"""Planted bugs of the checkpoint, the stores and the names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from crash.plants import Replace, nothing, plant, written_unsynced
from nopokedb.embedded import backup, compaction, earlier, migration, new_generation, recovery, upkeep
from nopokedb.embedded.storage import files, manifest, metadata, oplog
from nopokedb.embedded.store import Store


def _save_state_is(put: Replace, save_state: Any) -> None:
    put(recovery, "save_state", save_state)
    put(upkeep, "save_state", save_state)


@plant("one_checkpoint", 5)
def manifest_before_the_stores(put: Replace) -> None:
    real = recovery.save_state

    def save_state(folder: Path, state: Any, snapshot: Any, *, first_log: int) -> Any:
        store = snapshot.store
        with_syncs = (Store.sync_columns, metadata.MetadataWriter.checkpoint)
        Store.sync_columns = metadata.MetadataWriter.checkpoint = nothing  # type: ignore[method-assign, assignment]
        try:
            made = real(folder, state, snapshot, first_log=first_log)
        finally:
            Store.sync_columns, metadata.MetadataWriter.checkpoint = with_syncs  # type: ignore[method-assign]
        store.sync_columns()
        store.writer.checkpoint()
        return made

    _save_state_is(put, save_state)


@plant("one_checkpoint", 5)
def logs_dropped_before_the_manifest(put: Replace) -> None:
    real = recovery.save_state

    def save_state(folder: Path, *args: Any, first_log: int) -> Any:
        oplog.drop_logs(folder / "oplog", first_log)
        return real(folder, *args, first_log=first_log)

    _save_state_is(put, save_state)


@plant("one_reopening", 7)
def old_live_set_removed_before_the_manifest(put: Replace) -> None:
    real = recovery.save_state

    def save_state(folder: Path, state: Any, *args: Any, first_log: int) -> Any:
        if state.live_file:
            (folder / state.live_file).unlink()
        return real(folder, state, *args, first_log=first_log)

    _save_state_is(put, save_state)


@plant("one_checkpoint", 5)
def columns_not_synced(put: Replace) -> None:
    put(Store, "sync_columns", nothing)


@plant("one_checkpoint", 5)
def vectors_alone_not_synced(put: Replace) -> None:
    def sync_columns(self: Any) -> None:
        self.rows.sync()
        self.labels.sync()

    put(Store, "sync_columns", sync_columns)


@plant("one_checkpoint", 5)
def sqlite_with_synchronous_off(put: Replace) -> None:
    real = metadata.connect

    def connect(path: Path, *, writable: bool, immutable: bool = False) -> Any:
        connection = real(path, writable=writable, immutable=immutable)
        connection.execute("PRAGMA synchronous=OFF").fetchall()
        return connection

    put(metadata, "connect", connect)


@plant("blocked_checkpoint", 6)
def wal_not_synced_when_a_reader_blocks_the_checkpoint(put: Replace) -> None:
    put(metadata, "sync", nothing)


@plant("one_failed_checkpoint", 5)
def wal_trusted_after_a_failed_sync(put: Replace) -> None:
    put(recovery, "rewrite", nothing)


@plant("one_checkpoint", 5)
def live_set_not_synced(put: Replace) -> None:
    put(recovery, "write_durably", written_unsynced)


@plant("one_checkpoint", 5)
def manifest_not_synced(put: Replace) -> None:
    put(manifest, "write_temporary", lambda path, data: path.with_name(path.name + ".tmp").write_bytes(data))


@plant("one_checkpoint", 5)
def name_of_the_manifest_not_synced(put: Replace) -> None:
    put(manifest, "sync_folder", nothing)


@plant("one_checkpoint", 5)
def manifest_written_in_place(put: Replace) -> None:
    def write(path: Path, data: bytes) -> None:
        descriptor = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        files.write_at(descriptor, data, 0)
        files.sync(descriptor)
        os.close(descriptor)

    put(manifest, "write_temporary", write)
    put(manifest, "adopt_temporary", nothing)


@plant("one_checkpoint", 5)
def checkpoint_claims_the_next_batch(put: Replace) -> None:
    real = recovery.replace

    def one_more(state: Any, **changes: Any) -> Any:
        if "checkpoint_lsn" in changes:
            changes["checkpoint_lsn"] += 1
        return real(state, **changes)

    put(recovery, "replace", one_more)


@plant("two_batches", 2)
def applied_lsn_in_a_transaction_of_its_own(put: Replace) -> None:
    """Written ahead of the records, so that replaying skips them."""
    real = metadata.MetadataWriter.write

    def write(self: Any, frames: Any) -> None:
        wanted = [frame for frame in frames if frame.lsn > self.applied_lsn]
        if wanted:
            self._connection.execute("UPDATE state SET value=? WHERE key='applied_lsn'", (wanted[-1].lsn,))
        real(self, frames)

    put(metadata.MetadataWriter, "write", write)


@plant("one_batch", 1)
def name_of_the_collection_not_synced(put: Replace) -> None:
    put(recovery, "sync_folder", nothing)


@plant("one_checkpoint", 6, in_recovery=True)
def leftovers_removed_by_a_stale_manifest(put: Replace) -> None:
    """The live set in use is taken for a leftover while its successor is not written yet."""
    real = recovery.remove_leftovers

    def remove(folder: Path, state: Any) -> None:
        real(folder, state)
        if state.live_file:
            path = folder / state.live_file
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)

    put(recovery, "remove_leftovers", remove)


@plant("one_compaction", 5)
def switch_before_the_new_stores_are_durable(put: Replace) -> None:
    put(new_generation, "make_durable", _made_without_syncs)


def _made_without_syncs(*args: Any, **kwargs: Any) -> Any:
    with_syncs = (Store.sync_columns, metadata.MetadataWriter.checkpoint)
    Store.sync_columns = metadata.MetadataWriter.checkpoint = nothing  # type: ignore[method-assign, assignment]
    try:
        return recovery.make_durable(*args, **kwargs)
    finally:
        Store.sync_columns, metadata.MetadataWriter.checkpoint = with_syncs  # type: ignore[method-assign]


@plant("one_compaction", 5)
def old_log_dropped_before_the_switch(put: Replace) -> None:
    def prepare(folder: Path, state: Any) -> None:
        oplog.drop_logs(folder / "oplog", state.first_log)
        manifest.prepare_manifest(folder, state)

    put(compaction, "prepare_manifest", prepare)


@plant("restoring", 1)
def restored_without_a_sync_of_the_checkpoint(put: Replace) -> None:
    put(metadata.MetadataWriter, "checkpoint", nothing)
    put(Store, "sync_columns", nothing)


@plant("backing_up", 1)
def backup_not_synced(put: Replace) -> None:
    put(backup, "sync", nothing)


@plant("backing_up", 1)
def name_of_the_backup_not_synced(put: Replace) -> None:
    put(backup, "sync_folder", nothing)


@plant("one_migration", 4)
def copy_before_a_migration_not_synced(put: Replace) -> None:
    put(migration, "sync", nothing)


@plant("one_migration", 4)
def migration_removes_a_file_in_use(put: Replace) -> None:
    """One that the old manifest, which is still in force, speaks of."""
    real = migration.manifest_of

    def manifest_of(folder: Path, fields: Any) -> Any:
        for path in folder.glob("live-*.bits"):
            if path.name != fields["live_file"]:
                path.unlink()
        return real(folder, fields)

    put(migration, "manifest_of", manifest_of)


@plant("one_reembedding", 5)
def state_before_kept_without_a_sync(put: Replace) -> None:
    put(earlier, "sync_folder", nothing)
