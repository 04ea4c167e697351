"""The operation log: the only place where a batch becomes durable.

A log is a folder of files `0000000001.log`, ... with rising numbers; a checkpoint starts a new one and drops
those it made superfluous. All integers are little-endian.

File header, 56 bytes, synced before the first frame is written:

    0   8s  magic "NPKLOG01"
    8   u32 version of this layout, 1
    12  u32 flags; bit 0: BASE, the file repeats all that older files hold, which are to be ignored;
            bit 1: UNSYNCED, frames were acknowledged before they were synced (durability="os")
    16  u64 number of the file
    24  u64 lsn that its first frame has or will have
    32  u64 synced_lsn: what was durable once the file had its name (of a BASE, its own frames too)
    40  u64 salt: a random number, repeated in each frame, so that bytes inside a payload cannot pass for one
    48  u32 CRC-32C of bytes 0..47
    52  u32 zero

Frame, 56 bytes and its payload:

    0   u32 magic "NPKF"
    4   u16 version of the payload's layout, 1
    6   u16 zero
    8   u64 salt of the file
    16  u64 lsn; consecutive
    24  u64 synced_lsn: what was known to be durable when the frame was written
    32  u64 length of the payload
    40  u32 CRC-32C of the payload
    44  u32 CRC field of the previous frame in the file (0 for the first): the chain
    48  u32 CRC-32C of bytes 0..47
    52  u32 zero
    56  payload (frames.py)

A file may end in zeros: room that was written ahead of small frames, because a sync that does not have to record a
new file size is cheaper (by a third to a half on ext4).

Reading after a stop. Several frames may have been unsynced at once, and a disk may persist them in any order.
So damage at lsn N is the end of the log, unless the file's header or a later valid frame says that N was durable:
then it is corruption. A file is synced in full before the next one is created, so damage in any but the last
file is corruption, and so is an unreadable header in front of a valid frame.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from nopokedb.embedded.storage.files import (
    TEMPORARY_SUFFIX,
    open_file,
    sync,
    sync_folder,
    write_at,
    write_durably,
)
from nopokedb.errors import CorruptionError

_FILE = struct.Struct("<8sIIQQQQ")
_FILE_CRC = struct.Struct("<II")
_FRAME = struct.Struct("<IHHQQQQII")
_FRAME_CRC = struct.Struct("<II")
_FILE_BYTES = _FILE.size + _FILE_CRC.size
_FRAME_BYTES = _FRAME.size + _FRAME_CRC.size
_FILE_MAGIC = b"NPKLOG01"
_FRAME_MAGIC = 0x464B504E
_FRAME_MAGIC_BYTES = b"NPKF"
_VERSION = 1
_BASE = 1
_UNSYNCED = 2
_MAX_PAYLOAD = 2**32
_AHEAD_BYTES = 512 * 1024
"""Room written ahead of small frames."""
_SMALL_BYTES = 64 * 1024
"""Larger frames come with their own room: zeros before them would only be written twice."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame as found in the log."""

    lsn: int
    synced_lsn: int
    payload: bytes
    file: Path
    offset: int


@dataclass(frozen=True, slots=True)
class LogContent:
    """What a log holds."""

    entries: list[Entry]
    cut: str | None
    """What was cut off at the end, if anything was."""
    unsynced: bool
    """The log was written with durability="os": the stores may know batches that it lost."""


class OplogWriter:
    """Appends frames to one new file at a time. Not thread-safe: the caller holds the writer mutex."""

    def __init__(self, folder: Path, number: int, next_lsn: int, *, durable: bool) -> None:
        self._folder = folder
        self._flags = 0 if durable else _UNSYNCED
        self.next_lsn = next_lsn
        self.synced_lsn = next_lsn - 1
        """Highest lsn known to be durable."""
        self._descriptor = self._create(number)

    def _create(self, number: int) -> int:
        """A new file, its header and its name durable; only then is it taken into use."""
        path, salt = log_path(self._folder, number), secrets.randbits(64)
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            header = _file_header(number, self.next_lsn, self.synced_lsn, salt, self._flags)
            write_at(descriptor, header, 0)
            sync(descriptor)
            sync_folder(self._folder)
        except BaseException:
            os.close(descriptor)
            raise
        self.number, self.path, self.size = number, path, len(header)
        self.first_lsn = self.next_lsn
        self._salt, self._chain = salt, 0
        self._written = len(header)
        return descriptor

    def append(self, payload: bytes) -> int:
        """Write one frame behind the last; its lsn. It is durable only after `sync`."""
        lsn = self.next_lsn
        header = _frame_header(self._salt, lsn, self.synced_lsn, payload, self._chain)
        end = self.size + len(header) + len(payload)
        room = b""
        if end - self.size > _SMALL_BYTES:  # a second write costs less than a copy of the payload
            write_at(self._descriptor, header, self.size)
            write_at(self._descriptor, payload, self.size + len(header))
        else:
            room = bytes(_AHEAD_BYTES) if end > self._written else b""
            write_at(self._descriptor, header + payload + room, self.size)
        self._chain = _FRAME_CRC.unpack_from(header, _FRAME.size)[0]
        self._written = max(self._written, end + len(room))
        self.size = end
        self.next_lsn = lsn + 1
        return lsn

    def sync(self, lsn: int) -> None:
        """Make every frame up to `lsn` durable. May run while another thread appends."""
        sync(self._descriptor)
        self.synced_lsn = max(self.synced_lsn, lsn)

    def rotate(self) -> None:
        """Continue in a new file. What the old one holds is synced first: the new file vouches for it."""
        sync(self._descriptor)
        self.synced_lsn = self.next_lsn - 1
        old, self._descriptor = self._descriptor, self._create(self.number + 1)
        os.close(old)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1  # the number may soon name another file
        if descriptor >= 0:
            os.close(descriptor)


def log_path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}.log"


def log_numbers(folder: Path) -> list[int]:
    """Numbers of the log files in the folder, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdigit())


def drop_logs(folder: Path, below: int) -> None:
    """Remove the files with a lower number, oldest first, so that what a crash leaves is a suffix."""
    for number in log_numbers(folder):
        if number < below:
            log_path(folder, number).unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove files that a crash left before their rename."""
    for path in folder.glob("*" + TEMPORARY_SUFFIX):
        path.unlink()


def write_base(folder: Path, number: int, first_lsn: int, content: LogContent) -> None:
    """Write what recovery keeps (it may be nothing) to a new file, durable before this returns.

    Old files are never appended to or trusted to a second sync: pages that an earlier sync failed to write may
    look clean in memory while the disk has something else. Bytes written to a new file go to the disk.
    """
    salt, chain = secrets.randbits(64), 0
    flags = _BASE | (_UNSYNCED if content.unsynced else 0)
    # The rename follows the sync, so a file that has its name is whole: the header says so.
    parts = [_file_header(number, first_lsn, first_lsn + len(content.entries) - 1, salt, flags)]
    for entry in content.entries:
        header = _frame_header(salt, entry.lsn, entry.lsn - 1, entry.payload, chain)
        chain = _FRAME_CRC.unpack_from(header, _FRAME.size)[0]
        parts += (header, entry.payload)
    write_durably(log_path(folder, number), b"".join(parts))
    sync_folder(folder)


def read_log(folder: Path, after_lsn: int, *, first_file: int = 0) -> LogContent:
    """All frames with an lsn above `after_lsn`, in order.

    Files below `first_file` are ignored: the manifest says that a checkpoint made them superfluous. Raises
    `CorruptionError` where damage cannot be explained by an unsynced tail.
    """
    numbers = [number for number in log_numbers(folder) if number >= first_file]
    files = [log_path(folder, number) for number in numbers]
    contents = [path.read_bytes() for path in files]
    bases = [at for at, data in enumerate(contents) if (header := _read_header(data)) and header.flags & _BASE]
    start = bases[-1] if bases else 0
    entries: list[Entry] = []
    cut: str | None = None
    unsynced = False
    expected = after_lsn + 1
    for path, data in zip(files[start:], contents[start:], strict=True):
        header = _read_header(data)
        if header and header.first_lsn > expected:
            raise CorruptionError(
                f"expected {path} to continue at lsn {expected}, but it starts at {header.first_lsn}: "
                "a log file is missing",
                file=str(path),
            )
        unsynced = unsynced or bool(header and header.flags & _UNSYNCED)
        found, damage_at = _read_frames(path, data, header.salt) if header else ([], 0)
        for entry in found:
            if entry.lsn == expected:
                entries.append(entry)
                expected += 1
        if damage_at is None:
            if header and header.synced_lsn >= expected:
                damage_at = len(data)  # shortened at the border of a frame
            else:
                continue
        later = list(_scan(path, data, damage_at + 1, header))
        durable = max([header.synced_lsn if header else 0, *(entry.synced_lsn for entry in later)])
        if durable >= expected or path != files[-1] or (header is None and later):
            raise CorruptionError(
                f"the log is damaged at lsn {expected}, which was durable: {path} at byte {damage_at}",
                file=str(path),
                offset=damage_at,
            )
        cut = f"{path.name} cut at byte {damage_at} of {len(data)}, after lsn {expected - 1}"
    return LogContent(entries, cut, unsynced)


def readable_entries(folder: Path, after_lsn: int) -> list[Entry]:
    """Every whole frame above `after_lsn` in any file, whatever is damaged before or behind it; for salvaging."""
    found: dict[int, Entry] = {}
    for number in log_numbers(folder):
        path = log_path(folder, number)
        data = path.read_bytes()
        for entry in _scan(path, data, 0, _read_header(data)):
            if entry.lsn > after_lsn:
                found[entry.lsn] = entry  # a later file repeats what recovery kept of an earlier one
    return [found[lsn] for lsn in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Header:
    flags: int
    first_lsn: int
    synced_lsn: int
    salt: int


def _file_header(number: int, first_lsn: int, synced_lsn: int, salt: int, flags: int) -> bytes:
    body = _FILE.pack(_FILE_MAGIC, _VERSION, flags, number, first_lsn, synced_lsn, salt)
    return body + _FILE_CRC.pack(google_crc32c.value(body), 0)


def _read_header(data: bytes) -> _Header | None:
    """The file's header, or None where it is torn or damaged."""
    if len(data) < _FILE_BYTES:
        return None
    magic, version, flags, _, first_lsn, synced_lsn, salt = _FILE.unpack_from(data)
    crc = google_crc32c.value(data[: _FILE.size])
    if magic != _FILE_MAGIC or _FILE_CRC.unpack_from(data, _FILE.size) != (crc, 0):
        return None
    if version != _VERSION:
        raise CorruptionError(f"expected a log of version {_VERSION}, got {version}")
    return _Header(flags, first_lsn, synced_lsn, salt)


def _frame_header(salt: int, lsn: int, synced_lsn: int, payload: bytes, chain: int) -> bytes:
    body = _FRAME.pack(
        _FRAME_MAGIC, _VERSION, 0, salt, lsn, synced_lsn, len(payload), google_crc32c.value(payload), chain
    )
    return body + _FRAME_CRC.pack(google_crc32c.value(body), 0)


def _read_frame(path: Path, data: bytes, offset: int) -> tuple[Entry, int, int, int] | None:
    """The frame at `offset` with its salt, previous CRC and own CRC; None where none is whole."""
    if offset + _FRAME_BYTES > len(data):
        return None
    magic, version, _, salt, lsn, synced_lsn, length, payload_crc, chain = _FRAME.unpack_from(data, offset)
    if magic != _FRAME_MAGIC or version != _VERSION or length > _MAX_PAYLOAD:
        return None
    crc = google_crc32c.value(data[offset : offset + _FRAME.size])
    begin = offset + _FRAME_BYTES
    if _FRAME_CRC.unpack_from(data, offset + _FRAME.size) != (crc, 0) or begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    if google_crc32c.value(payload) != payload_crc:
        return None
    return Entry(lsn, synced_lsn, payload, path, offset), salt, chain, crc


def _read_frames(path: Path, data: bytes, salt: int) -> tuple[list[Entry], int | None]:
    """The unbroken chain of frames from the file's start, and where it breaks (None: at the clean end)."""
    entries: list[Entry] = []
    offset, chain = _FILE_BYTES, 0
    while offset < len(data):
        frame = _read_frame(path, data, offset)
        if frame is None or frame[1:3] != (salt, chain):
            return entries, None if data.count(0, offset) == len(data) - offset else offset
        entry, _, _, chain = frame
        if entries and entry.lsn != entries[-1].lsn + 1:
            return entries, offset
        entries.append(entry)
        offset += _FRAME_BYTES + len(entry.payload)
    return entries, None


def _scan(path: Path, data: bytes, offset: int, header: _Header | None) -> Iterator[Entry]:
    """Every whole frame of this file at or behind `offset`, wherever it starts."""
    while (offset := data.find(_FRAME_MAGIC_BYTES, offset)) >= 0:
        frame = _read_frame(path, data, offset)
        if frame and (header is None or frame[1] == header.salt):
            yield frame[0]
            offset += _FRAME_BYTES + len(frame[0].payload)
        else:
            offset += 1
