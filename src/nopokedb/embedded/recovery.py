"""Opening a folder: create it, or bring it to the last acknowledged batch.

    manifest -> stores at the checkpoint -> frames of the log behind it -> apply -> serve

Damage that an unsynced tail explains is cut and reported; any other raises `CorruptionError`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c
import numpy as np

from nopokedb.embedded.leftovers import is_created, remove_leftovers, store_files
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.columns import LABEL_TYPE, NONE
from nopokedb.embedded.storage.files import rewrite, sync_folder, write_durably
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
    for parent in folder.parents:
        if parent.exists() and not parent.is_dir():
            raise NotADatabaseError(f"expected {folder} to be a folder, but {parent} is a file")
    manifest = read_manifest(folder)
    if manifest is not None or not folder.exists():
        return manifest
    names = {path.name for path in folder.iterdir()}
    if names & set(_LEGACY_NAMES) or (folder / "metadata.db").exists():
        raise LegacyFolderError(
            f"{folder} was written by the original nopokedb (0.5.1 or older) and is left untouched; make a new "
            f"collection of it with `nopokedb import-legacy {folder} NEW_FOLDER`"
        )
    # A creation writes the manifest before the first log file, so a log without a manifest is a damaged collection.
    if (folder / "oplog").is_dir() and log_numbers(folder / "oplog"):
        raise NotADatabaseError(f"{folder} holds the files of a collection, but {manifests.NAME} is missing")
    strangers = sorted(name for name in names if name not in ("LOCK", *_FOLDERS) and not is_created(name))
    if strangers:
        raise NotADatabaseError(
            f"expected an empty folder or a NoPokeDB collection in {folder}, found {strangers[0]!r}"
            + (f" and {len(strangers) - 1} more" if len(strangers) > 1 else "")
        )
    return None


def require_collection(folder: Path) -> Manifest:
    """The manifest, or `CollectionNotFoundError`."""
    manifest = check_folder(folder)
    if manifest is None:
        raise CollectionNotFoundError(
            f"expected a collection in {folder}, found none; give dim= to create one, for example "
            f"NoPokeDB(dim=384, path={str(folder)!r})"
        )
    return manifest


def make_folder(folder: Path) -> None:
    """Make the folder and its parents; each new name is durable when this returns."""
    folder = folder.absolute()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def create(folder: Path, settings: Settings, fields: Sequence[tuple[str, ...]] = ()) -> Manifest:
    """Make a new collection in an empty folder; durable when this returns, with the manifest as its last step."""
    for path in folder.iterdir():
        if is_created(path.name):  # left by an interrupted creation
            path.unlink()
    for name in ("oplog", "index"):
        (folder / name).mkdir(exist_ok=True)
    manifest = Manifest(settings, identity=secrets.randbits(53))
    store = Store(folder, manifest, writable=True)
    try:
        assert store.writer is not None
        for field in dict.fromkeys(fields):
            store.writer.finish_field(store.writer.add_field(field, automatic=False))
        store.sync_columns()
        store.writer.checkpoint()
    finally:
        store.close()
    sync_folder(folder.absolute().parent)  # an interrupted creation may have made the folder and no more
    write_manifest(folder, manifest)
    return manifest


def open_for_writing(folder: Path, manifest: Manifest, *, durable: bool) -> Opened:
    """The collection as of its last durable batch. The caller holds the writer lock."""
    # The manifest may be visible without being durable, if its writer was killed between the rename and the sync;
    # what it makes superfluous is removed below.
    sync_folder(folder)
    oplog = folder / "oplog"
    for name in ("oplog", "index"):
        (folder / name).mkdir(exist_ok=True)
    remove_leftovers(folder, manifest)
    remove_unfinished(oplog)
    numbers = log_numbers(oplog)
    if not numbers and manifest.checkpoint_lsn:
        raise CorruptionError(f"the operation log is missing: {oplog}", file=str(oplog))
    found = read_log(oplog, manifest.checkpoint_lsn, first_file=manifest.first_log)
    frames = decode_entries(found.entries, manifest)
    dirty = bool(frames or found.cut)
    notes = []
    if found.cut:
        notes.append(f"the unfinished end of the log was dropped: {found.cut}")
    for path in (folder / name for name in store_files(manifest.generation)):
        if not path.exists():
            raise CorruptionError(f"a file of the collection is missing: {path}", file=str(path))
    wal = folder / f"metadata-{manifest.generation}.db-wal"
    if wal.exists():
        # A sync of it may have failed under the last writer. SQLite would go on with it as if it were durable, and
        # copy pages into the database file that a power cut could tear.
        rewrite(wal)
    with ExitStack() as opened:
        store = Store(folder, manifest, writable=True)
        opened.callback(store.close)
        _check_metadata(store, manifest, frames, unsynced=found.unsynced)
        snapshot = store.load(manifest)
        number = max([manifest.first_log - 1, *numbers]) + 1
        if dirty:
            write_base(oplog, number, manifest.checkpoint_lsn + 1, found)
            drop_logs(oplog, number)
            number += 1
        for at in range(0, len(frames), _REPLAY_FRAMES):
            snapshot = store.apply(snapshot, frames[at : at + _REPLAY_FRAMES])
        ahead = _step_over_lost_batches(store, snapshot)
        if ahead is not None:
            snapshot = ahead
            notes.append("batches were lost that only durability='os' had acknowledged; all others are there")
            # The log continues above what was lost, so the checkpoint must stand there before the first frame.
            manifest = save_state(folder, replace(manifest, segments=()), snapshot, first_log=number)
        log = OplogWriter(oplog, number, snapshot.lsn + 1, durable=durable)
        if not frames or ahead is not None:
            drop_logs(oplog, number)
        opened.pop_all()
    for note in notes:
        _log.warning("%s: %s", folder, note, extra={"event": "recovered"})
    return Opened(manifest, store, snapshot, log, notes, dirty)


def _check_metadata(store: Store, manifest: Manifest, frames: list[Frame], *, unsynced: bool) -> None:
    """The metadata know the checkpoint, and no batch that the log should have and has not."""
    assert store.writer is not None
    applied, path = store.writer.applied_lsn, store.reader.path
    if applied < manifest.checkpoint_lsn:
        raise CorruptionError(
            f"the metadata end at lsn {applied}, before the checkpoint at {manifest.checkpoint_lsn}: {path}",
            file=str(path),
        )
    end = frames[-1].lsn if frames else manifest.checkpoint_lsn
    if applied > end and not unsynced:
        # With durability="full" a batch is applied only after it is durable in the log.
        raise CorruptionError(
            f"the metadata have batches up to lsn {applied}, the log ends at {end}: its end is damaged or missing",
            file=str(store.folder / "oplog"),
        )


def decode_entries(entries: list[Entry], manifest: Manifest) -> list[Frame]:
    """The batches of these log entries."""
    frames = [decode_frame(entry.payload, entry.lsn) for entry in entries]
    for frame, entry in zip(frames, entries, strict=True):
        if frame.generation != manifest.generation or frame.vectors.shape[1] != manifest.settings.dim:
            raise CorruptionError(
                f"lsn {frame.lsn} belongs to another generation", file=str(entry.file), offset=entry.offset
            )
    return frames


def save_state(folder: Path, manifest: Manifest, snapshot: Snapshot, *, first_log: int) -> Manifest:
    """A checkpoint: make the stores durable at the snapshot's lsn, then say so in the manifest.

    The order is the point: stores, live set, folder, manifest. Only after the manifest may logs be dropped.
    """
    old = manifest.live_file
    manifest = make_durable(folder, manifest, snapshot, first_log=first_log)
    write_manifest(folder, manifest)
    if old and old != manifest.live_file:
        (folder / old).unlink(missing_ok=True)
    return manifest


def make_durable(folder: Path, manifest: Manifest, snapshot: Snapshot, *, first_log: int) -> Manifest:
    """Make the stores durable at the snapshot's lsn; the manifest that says so. `manifest` is one of the same
    generation, whose checksums are extended. Names are durable only after the folder is synced."""
    store = snapshot.store
    assert store.writer is not None
    store.sync_columns()
    store.writer.checkpoint()
    live = snapshot.live.to_bytes()
    name = live_file_name(store.generation, snapshot.lsn)
    write_durably(folder / name, live)
    return replace(
        manifest,
        checkpoint_lsn=snapshot.lsn,
        label_count=snapshot.label_count,
        row_count=snapshot.row_count,
        next_auto_id=snapshot.next_auto_id,
        first_log=first_log,
        live_file=name,
        live_crc32c=google_crc32c.value(live),
        labels_crc32c=store.column_crc32c(
            store.labels, manifest.label_count, snapshot.label_count, manifest.labels_crc32c
        ),
        rows_crc32c=store.column_crc32c(store.rows, manifest.row_count, snapshot.row_count, manifest.rows_crc32c),
    )


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
