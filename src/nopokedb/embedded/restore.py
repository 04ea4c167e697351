"""From backup files to a collection, all or nothing.

    every file read to its end and everything in it checked, nothing written -> the chain fits -> the disk has room
    -> a hidden folder beside the target, filled through the write path -> closed, synced -> renamed

What comes out of a file is handled like what a caller hands in: ids, vectors, metadata and texts pass the checks of
records.py. Indexes are built anew by the upkeep.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson

from nopokedb.embedded.archive import DELETED, RECORDS, ArchiveReader, Block
from nopokedb.embedded.engine import EmbeddedEngine
from nopokedb.embedded.new_folder import built_beside, require_empty
from nopokedb.embedded.recovery import make_folder
from nopokedb.embedded.storage.columns import NONE
from nopokedb.embedded.storage.files import has_room
from nopokedb.embedded.storage.frames import Frame, decode_frame, encode_frame
from nopokedb.engine import Write
from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.metadata_json import decode_metadata, encode_metadata
from nopokedb.records import Id, check_ids, check_text, check_vectors

_ROOM = 1.5
"""Free space asked for, in sizes of what the files unpack to: columns, SQLite with its index, and the log meanwhile."""


def restore_backups(sources: Sequence[Path], target: Path) -> int:
    """See `nopokedb.restore`."""
    require_empty(target, "restore")
    readers = [ArchiveReader(source) for source in sources]
    _check_chain(readers)
    needed = 0
    for reader in readers:
        needed += _checked_size(reader)
    make_folder(target.absolute().parent)
    if not has_room(target.absolute().parent, int(needed * _ROOM)):
        raise OSError(errno.ENOSPC, f"expected {int(needed * _ROOM)} free bytes for {target}, found fewer")
    with built_beside(target, "restoring") as building:
        return _fill(building, readers)


def _check_chain(readers: Sequence[ArchiveReader]) -> None:
    """One full backup, then incremental ones, each of which continues the one before it."""
    if not readers:
        raise InvalidInputError("expected at least one backup file, got none")
    first = readers[0].description
    if first.since_lsn is not None:
        raise ArchiveError(
            f"expected a full backup first, got the incremental {readers[0].path} since lsn {first.since_lsn}; give "
            "the full one and all incremental ones in order",
            file=str(readers[0].path),
        )
    lsn = first.lsn
    for reader in readers[1:]:
        said = reader.description
        if (said.identity, said.generation, said.settings) != (first.identity, first.generation, first.settings):
            raise ArchiveError(f"expected a backup of the same collection, got {reader.path}", file=str(reader.path))
        if said.since_lsn != lsn:
            raise ArchiveError(
                f"expected an incremental backup since lsn {lsn}, got {reader.path} since lsn {said.since_lsn}",
                file=str(reader.path),
            )
        lsn = said.lsn


def _checked_size(reader: ArchiveReader) -> int:
    """Read all of a file and check what is in it; how many bytes it unpacks to."""
    said, size, count, deleted = reader.description, 0, 0, 0
    for block in reader.blocks():
        size += len(block.head) + len(block.vectors)
        if block.kind == RECORDS:
            count += sum(write.count for write in _records(reader, block))
        elif block.kind == DELETED:
            deleted += len(_deleted(reader, block))
    if (count, deleted) != (said.count, said.deleted_count):
        raise ArchiveError(
            f"expected {said.count} records and {said.deleted_count} deletions in {reader.path}, "
            f"got {count} and {deleted}",
            file=str(reader.path),
        )
    return size


def _fill(folder: Path, readers: Sequence[ArchiveReader]) -> int:
    last = readers[-1].description
    engine = EmbeddedEngine(
        # Nothing is acknowledged before the end, so nothing is synced before: the checkpoint of closing does it.
        folder, settings=last.settings, indexed_fields=last.fields, durability="os", read_only=False, max_memory=None,
    )  # fmt: skip
    try:
        for at, reader in enumerate(readers):
            for writes in _batches(reader, incremental=at > 0):
                engine.write(writes)
        engine.raise_auto_ids(last.next_auto_id)
        count = engine.count(None)
    finally:
        engine.close()
    return count


def _batches(reader: ArchiveReader, *, incremental: bool) -> Iterator[list[Write]]:
    for block in reader.blocks():
        if block.kind == DELETED:
            ids = _deleted(reader, block)
            yield [Write("delete", ids, len(ids))]
        elif block.kind == RECORDS:
            writes = _records(reader, block)
            # Deleted first: an upsert would keep a text that the record no longer has.
            deletes = [Write("delete", write.ids, write.count) for write in writes]
            yield [*deletes, *writes] if incremental else writes


def _records(reader: ArchiveReader, block: Block) -> list[Write]:
    """The records of a block as checked writes: those whose vectors were computed from texts, and the others."""
    settings = reader.description.settings
    try:
        frame = decode_frame(block.head + block.vectors, 0)
        count = frame.label_count
        if (
            encode_frame(frame) != block.head + block.vectors
            or frame.vectors.shape != (count, settings.dim)
            or not _is_plain(frame)
        ):
            raise ValueError("its parts do not fit together")
        ids = check_ids(frame.ids)
        vectors = check_vectors(frame.vectors, settings.dim, settings.space)
        for metadata in frame.metadatas:
            # Written again from what was read: only what this package would write passes.
            if encode_metadata(decode_metadata(metadata)) != metadata:
                raise ValueError("metadata are not as they are written")
        for text in frame.texts:
            check_text(text)
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, struct.error) as error:
        raise _wrong(reader, block, error) from None
    computed = np.zeros(count, np.bool_) if frame.computed is None else frame.computed != 0
    writes = []
    for kind in (False, True):
        chosen = np.flatnonzero(computed == kind).tolist()
        if chosen:
            writes.append(
                Write(
                    "add",
                    [ids[at] for at in chosen],
                    len(chosen),
                    vectors[chosen],
                    [frame.metadatas[at] for at in chosen],
                    [frame.texts[at] for at in chosen],
                    computed=[True] * len(chosen) if kind else None,
                )
            )
    return writes


def _is_plain(frame: Frame) -> bool:
    """As a backup writes it: one new row per record, nothing retired."""
    count = frame.label_count
    return (
        not len(frame.retired)
        and np.array_equal(frame.rows, np.arange(count))
        and bool((frame.previous == NONE).all())
        and (frame.first_label, frame.first_row, frame.next_auto_id) == (0, 0, 0)
    )


def _deleted(reader: ArchiveReader, block: Block) -> list[Id]:
    try:
        ids = orjson.loads(block.head)
        if not isinstance(ids, list) or not ids:
            raise ValueError("expected a list of ids")
        return check_ids(ids)
    except (ValueError, KeyError) as error:
        raise _wrong(reader, block, error) from None


def _wrong(reader: ArchiveReader, block: Block, error: BaseException) -> ArchiveError:
    return ArchiveError(
        f"a block holds what no backup writes ({error}): {reader.path} at byte {block.offset}",
        file=str(reader.path),
        offset=block.offset,
    )
