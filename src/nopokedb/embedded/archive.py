"""The backup file: one file, written once, read from its beginning to its end.

Why a format of our own and neither a tar nor an SQLite file: it has no names in it, so no path of it can lead anywhere;
every length is known before its bytes are read; vectors stand in it raw, as in the log (compressing float32 gains a few
percent and costs most of the time), metadata and texts compressed; and its records are log payloads, so they pass
through code that every write passes through. There is no index in it and nothing that native code would load.

    header, 24 bytes     8s magic "NPKBACK1", u32 version 1, u32 length of the description, u32 its CRC-32C,
                         u32 CRC-32C of the 20 bytes before
    description          JSON, see `Description`
    blocks, each         40 bytes and its content:
        0   u32 magic "NPKB"
        4   u32 kind: 1 records, 2 deleted ids, 3 live set, 4 end
        8   u64 length of the head once it is unpacked
        16  u64 length of the head as it is stored (zlib)
        24  u64 length of the vectors behind it (records only)
        32  u32 CRC-32C of the stored head and the vectors
        36  u32 CRC-32C of bytes 0..35

A records block is a frame's payload (frames.py), its last part, the vectors, stored as it is. Deleted ids are a JSON
list. The live set is its bytes (bitmap.py): an incremental backup of a later moment finds out from it what was deleted.
The end block holds JSON with the counts of everything before it and the CRC-32C of all block headers; nothing follows.

All integers are little-endian. Checksums protect against accidents, not against an author: whoever reads a file
checks everything in it as if a caller had handed it in.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import orjson

from nopokedb.embedded.storage.bitmap import CHUNK_BITS
from nopokedb.embedded.storage.columns import MAX_ENTRIES
from nopokedb.embedded.storage.manifest import Settings
from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.records import MAX_DIM, IndexKind, Space, check_choice, check_int

_HEADER = struct.Struct("<8sIII")
_CRC = struct.Struct("<I")
_BLOCK = struct.Struct("<IIQQQI")
_MAGIC = b"NPKBACK1"
_BLOCK_MAGIC = 0x424B504E
RECORDS, DELETED, LIVE, END = 1, 2, 3, 4
MAX_DESCRIPTION_BYTES = 64 * 1024
MAX_HEAD_BYTES = 192 * 2**20
"""Ids, metadata and texts of one block; the writer ends a block at a fraction of it."""
MAX_VECTOR_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Description:
    """What a backup file says at its beginning."""

    settings: Settings
    identity: int
    generation: int
    lsn: int
    since_lsn: int | None
    label_count: int
    next_auto_id: int
    count: int
    """Records in the file."""
    deleted_count: int
    fields: tuple[tuple[str, ...], ...] = ()
    """Paths that somebody asked to have an index on."""


@dataclass(frozen=True, slots=True)
class Block:
    """One checked block; `head` is unpacked."""

    kind: int
    head: bytes
    vectors: bytes
    offset: int


class ArchiveWriter:
    """Writes blocks behind a description."""

    def __init__(self, file: BinaryIO, description: Description) -> None:
        self._file = file
        self._crc = 0
        self._blocks = 0
        self._head_bytes = 0
        body = orjson.dumps(asdict(description))
        head = _HEADER.pack(_MAGIC, 1, len(body), google_crc32c.value(body))
        file.write(head + _CRC.pack(google_crc32c.value(head)) + body)

    def write(self, kind: int, head: bytes, vectors: bytes = b"") -> None:
        packed = zlib.compress(head, 1)
        crc = google_crc32c.extend(google_crc32c.value(packed), vectors)
        block = _BLOCK.pack(_BLOCK_MAGIC, kind, len(head), len(packed), len(vectors), crc)
        self._crc = google_crc32c.extend(self._crc, block)
        self._blocks += 1
        self._head_bytes += len(head)
        self._file.write(block + _CRC.pack(google_crc32c.value(block)))
        self._file.write(packed)
        self._file.write(vectors)

    def finish(self) -> None:
        """The end block: without it a file is incomplete."""
        totals = {"blocks": self._blocks, "head_bytes": self._head_bytes, "crc32c": self._crc}
        self.write(END, orjson.dumps(totals))


class ArchiveReader:
    """Reads a file that anybody may have written: every length is compared with its limit, and with what the file
    still has, before a byte is read or room is made for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ArchiveError(f"expected a backup file, found none at {path}", file=str(path))
        self.size_bytes = path.stat().st_size
        with path.open("rb") as file:
            self.description = self._read_description(file)
            self._start = file.tell()

    def _read_description(self, file: BinaryIO) -> Description:
        head = self._take(file, _HEADER.size + _CRC.size)
        magic, version, length, crc = _HEADER.unpack_from(head)
        if magic != _MAGIC:
            raise self._wrong("expected a backup file of this package, got something else", 0)
        if _CRC.unpack_from(head, _HEADER.size)[0] != google_crc32c.value(head[: _HEADER.size]):
            raise self._wrong("the header does not match its checksum", 0)
        if version != 1:
            raise self._wrong(f"expected a backup of version 1, got version {version}; update nopokedb", 8)
        if length > MAX_DESCRIPTION_BYTES:
            raise self._wrong(f"expected a description of at most {MAX_DESCRIPTION_BYTES} bytes, got {length}", 12)
        body = self._take(file, length)
        if google_crc32c.value(body) != crc:
            raise self._wrong("the description does not match its checksum", len(head))
        try:
            return _checked_description(orjson.loads(body))
        except (orjson.JSONDecodeError, TypeError, KeyError, InvalidInputError) as error:
            raise self._wrong(f"the description is not one of a backup: {error}", len(head)) from None

    def blocks(self) -> Iterator[Block]:
        """Every block in order, the end block left out; complete and without anything behind it."""
        crc = blocks = head_bytes = 0
        with self.path.open("rb") as file:
            file.seek(self._start)
            while True:
                offset = file.tell()
                raw = self._take(file, _BLOCK.size + _CRC.size)
                magic, kind, length, packed_length, vector_bytes, content_crc = _BLOCK.unpack_from(raw)
                if (
                    magic != _BLOCK_MAGIC
                    or _CRC.unpack_from(raw, _BLOCK.size)[0] != google_crc32c.value(raw[: _BLOCK.size])
                    or kind not in (RECORDS, DELETED, LIVE, END)
                ):
                    raise self._wrong("a block's header does not match its checksum", offset)
                limit = MAX_ENTRIES // 8 + CHUNK_BITS if kind == LIVE else MAX_HEAD_BYTES
                if length > limit or vector_bytes > MAX_VECTOR_BYTES or (vector_bytes and kind != RECORDS):
                    raise self._wrong(f"a block declares {length} and {vector_bytes} bytes, over the limit", offset)
                packed, vectors = self._take(file, packed_length), self._take(file, vector_bytes)
                if google_crc32c.extend(google_crc32c.value(packed), vectors) != content_crc:
                    raise self._wrong("a block's content does not match its checksum", offset)
                head = self._unpacked(packed, length, offset)
                if kind == END:
                    totals = {"blocks": blocks, "head_bytes": head_bytes, "crc32c": crc}
                    if head != orjson.dumps(totals) or file.read(1):
                        raise self._wrong("the end of the file does not fit to what stands before it", offset)
                    return
                crc = google_crc32c.extend(crc, raw[: _BLOCK.size])
                blocks += 1
                head_bytes += length
                yield Block(kind, head, vectors, offset)

    def live_bytes(self) -> bytes:
        """The live set of the backup's moment."""
        for block in self.blocks():
            if block.kind == LIVE:
                return block.head
        raise self._wrong("the live set is missing", self._start)

    def _unpacked(self, packed: bytes, length: int, offset: int) -> bytes:
        unpacker = zlib.decompressobj()
        try:
            head = unpacker.decompress(packed, length + 1)  # one more than declared shows a bomb, and no more than that
        except zlib.error as error:
            raise self._wrong(f"a block cannot be unpacked: {error}", offset) from None
        if len(head) != length or not unpacker.eof or unpacker.unused_data:
            raise self._wrong(f"a block does not unpack to the {length} bytes it declares", offset)
        return head

    def _take(self, file: BinaryIO, count: int) -> bytes:
        at = file.tell()
        if count > self.size_bytes - at:
            raise self._wrong(f"the file ends early: expected {count} more bytes, got {self.size_bytes - at}", at)
        data = file.read(count)
        if len(data) != count:
            raise self._wrong("the file was shortened while it was read", at)
        return data

    def _wrong(self, message: str, offset: int) -> ArchiveError:
        return ArchiveError(f"{message}: {self.path} at byte {offset}", file=str(self.path), offset=offset)


def _checked_description(fields: dict[str, Any]) -> Description:
    """The description if every field has its type and range; unknown and missing fields are refused."""
    given = fields["settings"]
    settings = Settings(**(given | {"embed_fingerprint": tuple(given.get("embed_fingerprint", ()))}))
    check_int("dim", settings.dim, 1, MAX_DIM)
    check_choice("space", settings.space, Space)
    check_choice("index", settings.index, IndexKind)
    check_int("M", settings.M, 2, 256)
    check_int("ef_construction", settings.ef_construction, 1, 10_000)
    fields["fields"] = tuple(tuple(path) for path in fields.get("fields", ()))
    if not all(isinstance(step, str) for path in fields["fields"] for step in path):
        raise ValueError("a path of an index is not made of strs")
    description = Description(**(fields | {"settings": settings}))
    for name in ("identity", "generation", "lsn"):
        check_int(name, getattr(description, name), 0, 2**62)
    for name in ("label_count", "count", "deleted_count"):
        check_int(name, getattr(description, name), 0, MAX_ENTRIES)
    check_int("next_auto_id", description.next_auto_id, 0, 2**63)
    if description.since_lsn is not None:
        check_int("since_lsn", description.since_lsn, 0, description.lsn)
    return description
