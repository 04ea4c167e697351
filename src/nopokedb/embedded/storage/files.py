"""The few file operations that durability rests on, one small function each for every system.

`sync` is what makes bytes survive a power cut; `sync_folder` does it for names (creations, renames, removals).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

_PART_BYTES = 1 << 20
TEMPORARY_SUFFIX = ".tmp"
"""Files with this suffix are unfinished; a writer removes them when it opens the folder."""

if TYPE_CHECKING or hasattr(os, "pwrite"):

    def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`. Raises OSError (a full disk, say) with part of it written."""
        view = memoryview(data).cast("B")
        while view:
            written = os.pwrite(descriptor, view, offset)
            view = view[written:]
            offset += written

else:  # Windows has no pwrite; only one thread ever writes a file here

    def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
        os.lseek(descriptor, offset, os.SEEK_SET)
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(descriptor, view) :]


def sync(descriptor: int) -> None:
    """Make the file's bytes and length durable. After an OSError the file must not be synced again: the
    kernel may have dropped the unwritten pages, and a second call would report success for them."""
    if sys.platform == "darwin":
        import fcntl

        # On macOS fsync leaves the data in the drive's cache; only this waits for the medium.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def rewrite(path: Path) -> None:
    """Make a file durable whatever earlier syncs of it said. Where one failed, the page cache may hold bytes that no
    later sync writes, since their pages count as written: here each byte is written again, over itself."""
    with path.open("r+b", buffering=0) as file:
        offset = 0
        while part := file.read(_PART_BYTES):
            write_at(file.fileno(), part, offset)
            offset += len(part)
            file.seek(offset)
        sync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable. (Windows has no such call; NTFS journals names itself.)"""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: Path, flags: int) -> int:
    """`os.open` with what every descriptor here needs: not inherited by programs started later, binary."""
    return os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o644)


def has_room(folder: Path, needed: int) -> bool:
    """Whether the file system has so many bytes left. One that does not tell its size (some in user space) is
    believed to."""
    usage = shutil.disk_usage(folder)
    return usage.total == 0 or usage.free >= needed


def write_durably(path: Path, data: bytes) -> None:
    """Create or replace `path` so that a crash leaves the old file or the whole new one.

    The name itself is durable only after `sync_folder`, which the caller does once for several files.
    """
    write_temporary(path, data)
    adopt_temporary(path)


def write_temporary(path: Path, data: bytes) -> None:
    """The first half of `write_durably`: the bytes are on the medium, `path` is as it was."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    descriptor = open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        write_at(descriptor, data, 0)
        sync(descriptor)
    finally:
        os.close(descriptor)


def adopt_temporary(path: Path) -> None:
    """The second half: give the bytes their name."""
    path.with_name(path.name + TEMPORARY_SUFFIX).replace(path)


def checksum(path: Path) -> tuple[int, int]:
    """Size and CRC-32C of a file, which is read in parts."""
    size, crc32c = 0, 0
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            crc32c = google_crc32c.extend(crc32c, part)
            size += len(part)
    return size, crc32c
