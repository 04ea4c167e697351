"""Opening a folder: create it, or bring it to the last acknowledged batch.

    manifest -> stores at the checkpoint -> frames of the log behind it -> apply -> serve

Damage that an unsynced tail explains is cut and reported; any other raises `CorruptionError`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c
import numpy as np

from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.columns import LABEL_TYPE, NONE
from nopokedb.embedded.storage.files import TEMPORARY_SUFFIX, sync_folder, write_durably
from nopokedb.embedded.storage.frames import Frame, decode_frame
from nopokedb.embedded.storage.manifest import Manifest, Settings, read_manifest, write_manifest
from nopokedb.embedded.storage.oplog import (
    Entry,
    OplogWriter,
    drop_logs,
    log_numbers,
    read_log,
    remove_unfinished,
    write_base,
)
from nopokedb.embedded.store import Store, live_file_name
from nopokedb.errors import CollectionNotFoundError, CorruptionError, LegacyFolderError, NotADatabaseError

_log = logging.getLogger("nopokedb")

_FOLDERS = ("oplog", "index", "text")
_LEGACY_NAMES = ("hnsw_index.bin", "oplog.jsonl")
_REPLAY_FRAMES = 64
"""Frames applied together while replaying: few transactions, bounded memory."""


@dataclass(slots=True)
class Opened:
    """What opening for writing found."""

    manifest: Manifest
    store: Store
    snapshot: Snapshot
    log: OplogWriter
    notes: list[str]
    dirty: bool
    """Something was replayed or dropped: a checkpoint is due."""


def check_folder(folder: Path) -> Manifest | None:
    """The manifest of a collection, or None where one may be created: the folder is missing, empty, or holds
    what an interrupted creation left. Anything else raises and is left untouched."""
    if folder.exists() and not folder.is_dir():
        raise NotADatabaseError(f"expected a folder, got the file {folder}")
    manifest = read_manifest(folder)
    if manifest is not None or not folder.exists():
        return manifest
    names = {path.name for path in folder.iterdir()}
    if names & set(_LEGACY_NAMES) or (folder / "metadata.db").exists():
        raise LegacyFolderError(
            f"{folder} was written by the original nopokedb (0.5.1 or older) and is left untouched; choose another "
            "path for the new collection (a command `nopokedb import-legacy` for such folders is planned)"
        )
    ours = {"LOCK", *_FOLDERS, *(name for name in names if _is_ours(name))}
    strangers = sorted(names - ours)
    if strangers:
        raise NotADatabaseError(
            f"expected an empty folder or a NoPokeDB collection in {folder}, found {strangers[0]!r}"
            + (f" and {len(strangers) - 1} more" if len(strangers) > 1 else "")
        )
    # A creation writes the manifest before the first log file, so a log without a manifest is a damaged collection.
    if (folder / "oplog").exists() and log_numbers(folder / "oplog"):
        raise NotADatabaseError(f"{folder} holds the files of a collection, but {manifests.NAME} is missing")
    return None


def _is_ours(name: str) -> bool:
    stems = ("vectors-", "rows-", "labels-", "metadata-", "live-", manifests.NAME)
    return name.startswith(stems)


def require_collection(folder: Path) -> Manifest:
    """The manifest, or `CollectionNotFoundError`."""
    manifest = check_folder(folder)
    if manifest is None:
        raise CollectionNotFoundError(
            f"expected a collection in {folder}, found none; give dim= to create one, for example "
            f"NoPokeDB(dim=384, path={str(folder)!r})"
        )
    return manifest


def create(folder: Path, settings: Settings) -> Manifest:
    """Make a new collection in an empty folder; durable when this returns, with the manifest as its last step."""
    for path in folder.iterdir():
        if _is_ours(path.name):  # left by an interrupted creation
            path.unlink()
    for name in ("oplog", "index"):
        (folder / name).mkdir(exist_ok=True)
    manifest = Manifest(settings)
    store = Store(folder, manifest, writable=True)
    try:
        assert store.writer is not None
        store.sync_columns()
        store.writer.checkpoint()
    finally:
        store.close()
    write_manifest(folder, manifest)
    sync_folder(folder.parent)
    return manifest


def open_for_writing(folder: Path, manifest: Manifest) -> Opened:
    """The collection as of its last durable batch. The caller holds the writer lock."""
    oplog = folder / "oplog"
    for name in ("oplog", "index"):
        (folder / name).mkdir(exist_ok=True)
    _remove_leftovers(folder, manifest)
    remove_unfinished(oplog)
    numbers = log_numbers(oplog)
    if not numbers and manifest.checkpoint_lsn:
        raise CorruptionError(f"the operation log is missing: {oplog}", file=str(oplog))
    entries, cut = read_log(oplog, manifest.checkpoint_lsn, first_file=manifest.first_log)
    frames = decode_entries(entries, manifest)
    notes = []
    if cut:
        notes.append(f"the unfinished end of the log was dropped: {cut}")
        _log.warning("%s: %s", folder, notes[-1])
    for path in (folder / f"{stem}" for stem in _store_files(manifest)):
        if not path.exists():
            raise CorruptionError(f"a file of the collection is missing: {path}", file=str(path))
    store = Store(folder, manifest, writable=True)
    try:
        snapshot = store.load(manifest)
        assert store.writer is not None
        if store.writer.applied_lsn < manifest.checkpoint_lsn:
            raise CorruptionError(
                f"the metadata end at lsn {store.writer.applied_lsn}, before the checkpoint at "
                f"{manifest.checkpoint_lsn}: {store.reader.path}",
                file=str(store.reader.path),
            )
        number = max([manifest.first_log - 1, *numbers]) + 1
        if frames or cut:
            write_base(oplog, number, manifest.checkpoint_lsn + 1, entries)
            drop_logs(oplog, number)
            number += 1
        for at in range(0, len(frames), _REPLAY_FRAMES):
            snapshot = store.apply(snapshot, frames[at : at + _REPLAY_FRAMES])
        ahead = _step_over_lost_batches(store, snapshot)
        if ahead is not None:
            snapshot = ahead
            notes.append("batches were lost that only durability='os' had acknowledged; all others are there")
            _log.warning("%s: %s", folder, notes[-1])
            manifest = replace(manifest, segments=())
            # The log continues above what was lost, so the checkpoint must stand there before the first frame.
            manifest = save_state(folder, manifest, store, snapshot, first_log=number)
            drop_logs(oplog, number)
        log = OplogWriter(oplog, number, snapshot.lsn + 1)
        if not frames:
            drop_logs(oplog, number)
    except BaseException:
        store.close()
        raise
    return Opened(manifest, store, snapshot, log, notes, bool(frames or cut))


def decode_entries(entries: list[Entry], manifest: Manifest) -> list[Frame]:
    """The batches of these log entries."""
    frames = [decode_frame(entry.payload, entry.lsn) for entry in entries]
    for frame, entry in zip(frames, entries, strict=True):
        if frame.generation != manifest.generation or frame.vectors.shape[1] != manifest.settings.dim:
            raise CorruptionError(
                f"lsn {frame.lsn} belongs to another generation", file=str(entry.file), offset=entry.offset
            )
    return frames


def save_state(folder: Path, manifest: Manifest, store: Store, snapshot: Snapshot, *, first_log: int) -> Manifest:
    """A checkpoint: make the stores durable at the snapshot's lsn, then say so in the manifest.

    The order is the point: stores, live set, folder, manifest. Only after the manifest may logs be dropped.
    """
    assert store.writer is not None
    store.sync_columns()
    store.writer.checkpoint()
    live = snapshot.live.to_bytes()
    name = live_file_name(store.generation, snapshot.lsn)
    write_durably(folder / name, live)
    old = manifest.live_file
    manifest = replace(
        manifest,
        checkpoint_lsn=snapshot.lsn,
        label_count=snapshot.label_count,
        row_count=snapshot.row_count,
        next_auto_id=snapshot.next_auto_id,
        first_log=first_log,
        live_file=name,
        live_crc32c=google_crc32c.value(live),
    )
    write_manifest(folder, manifest)
    if old and old != name:
        (folder / old).unlink(missing_ok=True)
    return manifest


def _step_over_lost_batches(store: Store, snapshot: Snapshot) -> Snapshot | None:
    """Where SQLite knows batches that the log does not (durability="os", then a power cut): forget them there and
    continue above every lsn and label seen. None where nothing was lost."""
    assert store.writer is not None
    applied_lsn, label_end = store.reader.applied()
    if applied_lsn <= snapshot.lsn:
        return None
    gap = label_end - snapshot.label_count
    if gap > 0:
        store.labels.write(snapshot.label_count, np.full(2 * gap, NONE, "<u4").view(LABEL_TYPE))
    store.writer.forget(snapshot.label_count, applied_lsn)
    return replace(snapshot, lsn=applied_lsn, label_count=max(label_end, snapshot.label_count))


def _store_files(manifest: Manifest) -> tuple[str, ...]:
    generation = manifest.generation
    return (
        f"vectors-{generation}.f32",
        f"rows-{generation}.bin",
        f"labels-{generation}.bin",
        f"metadata-{generation}.db",
    )


def _remove_leftovers(folder: Path, manifest: Manifest) -> None:
    """Files that a crash left behind: unfinished ones, live sets and indexes that the manifest does not name."""
    wanted = {segment.name for segment in manifest.segments}
    for path in folder.iterdir():
        if path.name.endswith(TEMPORARY_SUFFIX) or (path.name.startswith("live-") and path.name != manifest.live_file):
            path.unlink()
    for path in (folder / "index").iterdir():
        if path.name not in wanted and path.is_file():
            path.unlink()
