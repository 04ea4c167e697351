"""Writing a backup while writing and reading go on.

    one snapshot (immutable, so nothing has to be held) -> its records in order of their labels, each compared with its
    checksums -> a temporary file, synced -> the file read back from its beginning to its end, all checksums compared
    -> renamed, folder synced

A full backup has every live record of one lsn. An incremental one has the records whose label is live now and was not
at the earlier moment, and the ids that are gone since. What was live then it learns from the earlier backup file, or,
where only an lsn is given, from the frames behind it, as long as the log has them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from nopokedb.backups import Backup
from nopokedb.embedded.archive import DELETED, LIVE, RECORDS, ArchiveReader, ArchiveWriter, Description
from nopokedb.embedded.read_path import ReadPath
from nopokedb.embedded.recovery import decode_entries
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import COMPUTED, NONE
from nopokedb.embedded.storage.files import TEMPORARY_SUFFIX, sync, sync_folder
from nopokedb.embedded.storage.frames import Frame, encode_frame
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.metadata import Field, Stored
from nopokedb.embedded.storage.oplog import LogContent, read_log
from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.records import Id, Vectors, id_order

_PAGE = 256
_BLOCK_BYTES = 16 * 2**20
"""A block is ended when its vectors, or its metadata and texts, reach this."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
"""What file systems without hard links say."""
_TEXTS = 16
"""Texts may be 16 MiB long: so many are fetched at once."""
_OVERHEAD = 560
"""What an id may take, and the lengths."""
Labels: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """The collection as one handle sees it."""

    folder: Path
    manifest: Manifest
    snapshot: Snapshot
    read: Callable[[Callable[[ReadPath], Any]], Any]
    """Runs a read on the stores of the handle."""
    log: LogContent | None = None
    """The log behind the checkpoint, where the handle could read it while nobody appended."""

    def fetch(self, labels: Sequence[int]) -> list[Stored]:
        """The record versions of these labels, in order, verified."""
        found: list[Stored] = self.read(lambda reads: reads.reader.fetch_all(labels))
        return found

    def texts(self, stored: Sequence[Stored]) -> list[str | None]:
        """Their texts, verified."""
        found: dict[int, str] = self.read(lambda reads: reads.reader.texts(stored))
        return [found.get(item.label) for item in stored]

    def fields(self) -> list[Field]:
        """The fields that have an index."""
        found: list[Field] = self.read(lambda reads: reads.reader.fields())
        return [field for field in found if field.ready]

    def computed(self, stored: Sequence[Stored]) -> npt.NDArray[np.uint8] | None:
        """Which of their vectors were computed from the texts."""
        flags = self.snapshot.rows["flags"][[item.row for item in stored]] & COMPUTED
        return flags.astype(np.uint8) if flags.any() else None

    def vectors(self, stored: Sequence[Stored]) -> Vectors:
        """Their vectors, verified."""
        rows = np.array([item.row for item in stored], np.int64)
        found: Vectors = self.read(lambda _: self.snapshot.verified_vectors(rows))
        return found


def write_backup(source: Source, target: Path, since: int | Path | None) -> Backup:
    """Write one backup file; see `NoPokeDB.backup`."""
    if target.exists():
        raise InvalidInputError(f"expected the name of a new file, but {target} exists")
    if not target.parent.is_dir():
        raise InvalidInputError(f"expected a file in an existing folder, got {target}")
    snapshot, manifest = source.snapshot, source.manifest
    since_lsn: int | None = None
    labels = snapshot.live.members(0, snapshot.label_count)
    deleted: list[Id] = []
    if since is not None:
        since_lsn, before = _live_before(source, since)
        then = before.members(0, snapshot.label_count)
        gone = np.setdiff1d(then, labels, assume_unique=True)
        labels = np.setdiff1d(labels, then, assume_unique=True)
        deleted = sorted(_ids(source, gone) - _ids(source, labels), key=id_order)
    description = Description(
        manifest.settings,
        manifest.identity,
        manifest.generation,
        snapshot.lsn,
        since_lsn,
        snapshot.label_count,
        snapshot.next_auto_id,
        len(labels),
        len(deleted),
        tuple(field.path for field in source.fields() if not field.automatic),
    )
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            _write(file, description, source, labels, deleted)
            file.flush()
            sync(file.fileno())
        for _ in ArchiveReader(temporary).blocks():
            pass  # every byte is compared with its checksum
        _name(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return Backup(str(target), snapshot.lsn, since_lsn, len(labels), len(deleted), target.stat().st_size)


def _name(temporary: Path, target: Path) -> None:
    """Give the file its name. A link, unlike a rename, never replaces a file that came meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise InvalidInputError(f"expected the name of a new file, but {target} exists") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temporary.rename(target)
    else:
        temporary.unlink()


def _write(file: BinaryIO, description: Description, source: Source, labels: Labels, deleted: list[Id]) -> None:
    snapshot = source.snapshot
    archive = ArchiveWriter(file, description)
    archive.write(LIVE, snapshot.live.to_bytes())
    for start in range(0, len(deleted), 10_000):
        archive.write(DELETED, orjson.dumps(deleted[start : start + 10_000]))
    for block in _blocks(source, labels):
        stored = [item for item, _ in block]
        count = len(stored)
        vectors = source.vectors(stored)
        payload = encode_frame(
            Frame(
                description.generation,
                0,
                0,
                0,
                np.arange(count, dtype=np.uint32),
                np.full(count, NONE, np.uint32),
                np.empty(0, np.uint32),
                [item.id for item in stored],
                [item.metadata for item in stored],
                [text for _, text in block],
                vectors,
                computed=source.computed(stored),
            )
        )
        border = len(payload) - vectors.nbytes
        archive.write(RECORDS, payload[:border], payload[border:])
    archive.finish()


def _blocks(source: Source, labels: Labels) -> Iterator[list[tuple[Stored, str | None]]]:
    """The record versions of these labels with their texts, in pieces of about `_BLOCK_BYTES`."""
    width = source.manifest.settings.dim * 4
    block: list[tuple[Stored, str | None]] = []
    size = 0
    for start in range(0, len(labels), _PAGE):
        page = source.fetch(labels[start : start + _PAGE].tolist())
        for at in range(0, len(page), _TEXTS):
            part = page[at : at + _TEXTS]
            for item, text in zip(part, source.texts(part), strict=True):
                block.append((item, text))
                size += width + len(item.metadata) + len(text or "") + _OVERHEAD
                if size >= _BLOCK_BYTES:
                    yield block
                    block, size = [], 0
    if block:
        yield block


def _ids(source: Source, labels: Labels) -> set[Id]:
    return {item.id for at in range(0, len(labels), _PAGE) for item in source.fetch(labels[at : at + _PAGE].tolist())}


def _live_before(source: Source, since: int | Path) -> tuple[int, Bitmap]:
    """The earlier moment: its lsn, and what was live then."""
    manifest, snapshot = source.manifest, source.snapshot
    if isinstance(since, Path):
        earlier = ArchiveReader(since)
        said = earlier.description
        if (said.identity, said.generation) != (manifest.identity, manifest.generation) or said.lsn > snapshot.lsn:
            raise ArchiveError(
                f"expected an earlier backup of {source.folder}, but {since} is one of another collection, of one that "
                "was repaired since, or a later one; make a full backup",
                file=str(since),
            )
        return said.lsn, Bitmap.from_bytes(earlier.live_bytes())
    if not 0 <= since <= snapshot.lsn:
        raise InvalidInputError(f"expected since to be an lsn from 0 to {snapshot.lsn}, got {since}")
    if since < manifest.checkpoint_lsn:
        raise InvalidInputError(
            f"expected an lsn that the log still reaches, {manifest.checkpoint_lsn} or later, got {since}; give the "
            "earlier backup file as since"
        )
    log = source.log or read_log(source.folder / "oplog", manifest.checkpoint_lsn, first_file=manifest.first_log)
    live = snapshot.live
    frames = [frame for frame in decode_entries(log.entries, manifest) if since < frame.lsn <= snapshot.lsn]
    if len(frames) != snapshot.lsn - since:
        raise InvalidInputError(
            f"expected the batches from lsn {since} on in the log, but a checkpoint has dropped some meanwhile; give "
            "the earlier backup file as since"
        )
    for frame in reversed(frames):  # backwards in time: what a batch retired was live before it
        new = np.arange(frame.labels.start, frame.labels.stop)
        live = live.changed(frame.retired.astype(np.int64), np.empty(0, np.int64)).changed(np.empty(0, np.int64), new)
    return since, live
