"""Named snapshots: which labels were live at a moment, kept in one small file each.

A label never changes its meaning, so keeping a moment costs its live set, and that a compaction keeps the versions in
it. In a new generation labels have other numbers: the compaction writes each snapshot anew before its switch, under
the generation's own name; files of another generation than the manifest's are leftovers.

File `snapshots/NAME@GENERATION.npks`, little-endian, written whole and never changed:

    0   8s  magic "NPKSNAP1"
    8   u32 version 1
    12  u32 generation of the collection
    16  u64 identity of the collection
    24  u64 lsn
    32  u32 label_count, u32 row_count
    40  u64 next automatic id
    48  f64 seconds since 1970 when it was made
    56  u32 CRC-32C of the live set
    60  u32 CRC-32C of bytes 0..59
    64  the live set (bitmap.py)
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import CHUNK_BITS, Bitmap
from nopokedb.embedded.storage.columns import NONE
from nopokedb.embedded.storage.files import sync_folder, write_durably
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.engine import NamedSnapshot
from nopokedb.errors import CorruptionError, InvalidInputError, SnapshotNotFoundError

_log = logging.getLogger("nopokedb")

FOLDER = "snapshots"
Labels: TypeAlias = npt.NDArray[np.int64]
_SUFFIX = ".npks"
_HEAD = struct.Struct("<8sIIQQIIQdI")
_CRC = struct.Struct("<I")
_MAGIC = b"NPKSNAP1"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file of a named snapshot says."""

    named: NamedSnapshot
    label_count: int
    row_count: int
    next_auto_id: int
    live: Bitmap


def create(folder: Path, name: str, manifest: Manifest, snapshot: Snapshot) -> NamedSnapshot:
    """Keep the snapshot, which is durable, under a new name; kept durably when this returns."""
    if name in names(folder, manifest):
        raise InvalidInputError(f"expected the name of a new snapshot, but {name!r} exists; drop it first")
    named = NamedSnapshot(name, snapshot.lsn, snapshot.live.count, datetime.fromtimestamp(time.time(), UTC))
    stored = Stored(named, snapshot.label_count, snapshot.row_count, snapshot.next_auto_id, snapshot.live)
    _write(folder, manifest.identity, manifest.generation, stored)
    return named


def _write(folder: Path, identity: int, generation: int, stored: Stored) -> None:
    place = folder / FOLDER
    if not place.exists():
        place.mkdir()
        sync_folder(folder)
    live = stored.live.to_bytes()
    head = _HEAD.pack(
        _MAGIC,
        1,
        generation,
        identity,
        stored.named.lsn,
        stored.label_count,
        stored.row_count,
        stored.next_auto_id,
        stored.named.created_at.timestamp(),
        google_crc32c.value(live),
    )
    path = place / f"{stored.named.name}@{generation}{_SUFFIX}"
    write_durably(path, head + _CRC.pack(google_crc32c.value(head)) + live)
    sync_folder(place)


def names(folder: Path, manifest: Manifest) -> list[str]:
    """Names of the snapshots kept, sorted."""
    ending = f"@{manifest.generation}{_SUFFIX}"
    return sorted(path.name.removesuffix(ending) for path in (folder / FOLDER).glob("*" + ending))


def listed(folder: Path, manifest: Manifest) -> list[NamedSnapshot]:
    """The snapshots kept, by name. One that is damaged is logged and left out: it must not hide the others."""
    found = []
    for name in names(folder, manifest):
        try:
            found.append(load(folder, name, manifest).named)
        except CorruptionError as error:
            _log.warning(
                "%s: the snapshot %r is not listed: %s", folder, name, error, extra={"event": "snapshot_damaged"}
            )
    return found


def leftovers(folder: Path, manifest: Manifest) -> list[Path]:
    """Files of other generations: of a compaction that did not come to its switch, or of the time before it."""
    ending = f"@{manifest.generation}{_SUFFIX}"
    return [path for path in sorted((folder / FOLDER).glob("*@*" + _SUFFIX + "*")) if not path.name.endswith(ending)]


def kept_labels(folder: Path, manifest: Manifest) -> Bitmap:
    """All labels that some snapshot needs."""
    members = [load(folder, name, manifest).live for name in names(folder, manifest)]
    kept = Bitmap()
    for live in members:
        kept = kept.changed(live.members(0, len(live.chunks) * CHUNK_BITS), np.empty(0, np.int64))
    return kept


def carry_over(
    folder: Path,
    manifest: Manifest,
    generation: int,
    new_labels: Callable[[Labels], Labels],
    label_count: int,
    row_count: int,
) -> None:
    """Write every snapshot anew for the next generation, in which `new_labels` are the numbers of old labels."""
    for name in names(folder, manifest):
        old = load(folder, name, manifest)
        live = Bitmap().changed(new_labels(old.live.members(0, old.label_count)), np.empty(0, np.int64))
        _write(folder, manifest.identity, generation, Stored(old.named, label_count, row_count, old.next_auto_id, live))


def path_of(folder: Path, name: str, manifest: Manifest) -> Path:
    """The file of a snapshot; `SnapshotNotFoundError` if there is none."""
    path = folder / FOLDER / f"{name}@{manifest.generation}{_SUFFIX}"
    if not path.is_file():
        there = ", ".join(map(repr, names(folder, manifest))) or "none"
        raise SnapshotNotFoundError(f"expected a snapshot named {name!r} in {folder}, found {there}")
    return path


def load(folder: Path, name: str, manifest: Manifest) -> Stored:
    """The snapshot of that name, its checksums compared."""
    path = path_of(folder, name, manifest)
    data = path.read_bytes()
    size = _HEAD.size + _CRC.size
    if len(data) < size or _CRC.unpack_from(data, _HEAD.size)[0] != google_crc32c.value(data[: _HEAD.size]):
        raise CorruptionError(f"the snapshot does not match its checksum: {path}", file=str(path), offset=0)
    fields = _HEAD.unpack_from(data)
    magic, version, generation, identity, lsn, label_count, row_count, next_auto_id, created, crc = fields
    if magic != _MAGIC or version != 1:
        raise CorruptionError(f"expected a snapshot of version 1, got {magic!r} {version}: {path}", file=str(path))
    if (generation, identity) != (manifest.generation, manifest.identity):
        raise CorruptionError(
            f"the snapshot is one of another collection, or of another generation of this one: {path}", file=str(path)
        )
    if google_crc32c.value(data[size:]) != crc:
        words = f"the live set of the snapshot does not match its checksum: {path}"
        raise CorruptionError(words, file=str(path), offset=size)
    live = Bitmap.from_bytes(data[size:])
    named = NamedSnapshot(name, lsn, live.count, datetime.fromtimestamp(created, UTC))
    return Stored(named, label_count, row_count, next_auto_id, live)


def drop(folder: Path, name: str, manifest: Manifest) -> None:
    """Forget a snapshot; its records stay in the stores until the next compaction."""
    path_of(folder, name, manifest).unlink()
    sync_folder(folder / FOLDER)


def as_snapshot(stored: Stored, now: Snapshot, path: Path) -> Snapshot:
    """The state as readers know it, from the stores of now."""
    if stored.label_count > now.label_count or stored.row_count > now.row_count:
        raise CorruptionError(f"the snapshot knows more than the collection: {path}", file=str(path))
    labels = now.labels.view(stored.label_count)
    rows = labels["row"][stored.live.members(0, stored.label_count)].astype(np.int64)
    if len(rows) and int(rows.max()) >= stored.row_count and int(rows.max()) != NONE:
        raise CorruptionError(f"the snapshot names rows past its end: {path}", file=str(path))
    segments = tuple(segment for segment in now.segments if segment.stop <= stored.row_count)
    return Snapshot(
        stored.named.lsn,
        stored.label_count,
        stored.row_count,
        stored.next_auto_id,
        stored.live,
        Bitmap().changed(rows, np.empty(0, np.int64)),
        now.vectors[: stored.row_count],
        now.rows[: stored.row_count],
        now.row_labels,
        now.labels,
        now.store,
        segments,
    )
