"""One writer per folder: an advisory lock on `LOCK`, which also says who holds it and how far they are.

Layout of `LOCK`, little-endian, 48 bytes, all of it rewritten by each publish:

    0   8s  magic "NPKLOCK1"
    8   u64 process id of the writer
    16  u64 session: a random number per opened writer; it stays when the writer is gone
    24  u64 published lsn: every batch up to it is applied to all stores and visible
    32  u64 state: 0 closed, 1 opening (the stores may lack batches that the log has), 2 serving
    40  u32 CRC-32C of bytes 0..39
    44  u32 zero

The lock itself is `flock` where it exists: it belongs to the open file description, so a second open by the
same process is refused too, and closing an unrelated descriptor of the file does not release it. A forked
child inherits the description and must close its copy (`abandon`), else it would keep the lock alive.
"""

from __future__ import annotations

import os
import secrets
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from nopokedb.embedded.storage.files import open_file, write_at
from nopokedb.errors import DatabaseLockedError

_LAYOUT = struct.Struct("<8sQQQQ")
_CRC = struct.Struct("<II")
_MAGIC = b"NPKLOCK1"
CLOSED, OPENING, SERVING = 0, 1, 2
_WAIT_S = 5.0
"""How long a writer waits for read-only handles that are just opening; a live writer is reported at once."""

if sys.platform == "win32":
    import msvcrt

    _REGION = 2**30  # a byte far behind the content: Windows locks are mandatory and would hide what they cover

    def _try_lock(descriptor: int, *, shared: bool) -> bool:
        os.lseek(descriptor, _REGION, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _REGION, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int, *, shared: bool) -> bool:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@dataclass(frozen=True, slots=True)
class Published:
    """What the writer last announced."""

    pid: int
    session: int
    lsn: int
    state: int


class WriterLock:
    """The writer's hold on a folder, from construction to `release`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + _WAIT_S
        while not _try_lock(self._descriptor, shared=False):
            only_readers = _try_lock(self._descriptor, shared=True)
            if only_readers:
                _unlock(self._descriptor)
            if not only_readers or time.monotonic() > deadline:
                holder = read_published(path)
                os.close(self._descriptor)
                who = f"process {holder.pid}" if holder else "another process"
                error = DatabaseLockedError(
                    f"expected to be the only writer of {path.parent}, but {who} has it open for writing; "
                    "close it there, or open with read_only=True"
                )
                error.pid = holder.pid if holder else None
                raise error
            time.sleep(0.005)  # a read-only handle holds its shared lock for the milliseconds of its open
        self.session = secrets.randbits(64)
        try:
            self._write(0, OPENING)
        except BaseException:
            self.abandon()
            raise

    def publish(self, lsn: int) -> None:
        """Announce that every batch up to `lsn` is visible. Not synced: it only matters while we live."""
        self._write(lsn, SERVING)

    def _write(self, lsn: int, state: int) -> None:
        body = _LAYOUT.pack(_MAGIC, os.getpid(), self.session, lsn, state)
        write_at(self._descriptor, body + _CRC.pack(google_crc32c.value(body), 0), 0)

    def release(self, lsn: int) -> None:
        """Give the folder up after a clean close at `lsn`."""
        try:
            self._write(lsn, CLOSED)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give the folder up after a failure: for whoever opens next it looks like a crash."""
        # Unlocking acts on the description that a child forked meanwhile may share; closing alone would not.
        _unlock(self._descriptor)
        self.leave_to_parent()

    def leave_to_parent(self) -> None:
        """In a forked child: close our copy of the descriptor; the lock stays with the parent."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


class ReaderLock:
    """A shared hold that keeps writers out while a read-only handle looks at a folder nobody writes."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            self._descriptor = -1  # a copied folder without its LOCK: nobody can be writing it
            self.alone = True
            return
        self.alone = _try_lock(self._descriptor, shared=True)
        """True when no writer is alive. Until `release`, none can start."""

    def release(self) -> None:
        if self._descriptor >= 0:
            if self.alone:
                _unlock(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class GenerationHold:
    """A shared lock on a file of one generation: until `release`, no writer removes the files of that generation.

    The lock comes before a look at the manifest: whoever holds it and then still finds the generation there may rely
    on the files. FileNotFoundError while they are being removed. (Windows needs no lock: it removes no open file.)
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = open_file(path, os.O_RDONLY)
        if sys.platform != "win32" and not _try_lock(self._descriptor, shared=True):
            self.release()
            raise FileNotFoundError(f"the files of this generation are being removed: {path}")

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def remove_unless_held(path: Path) -> bool:
    """Remove the file on which a generation is held. False: somebody holds it."""
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        if sys.platform != "win32" and not _try_lock(descriptor, shared=False):
            return False
        if sys.platform == "win32":  # it removes no file that is open, by us neither
            os.close(descriptor)
            descriptor = -1
        try:
            path.unlink()
        except PermissionError:
            if sys.platform == "win32":
                return False
            raise
        return True
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def read_published(path: Path) -> Published | None:
    """What the writer last announced, or None where nothing readable was written."""
    size = _LAYOUT.size + _CRC.size
    for _ in range(100):  # a read may meet the middle of a write; the checksum tells
        try:
            data = path.read_bytes()[:size]
        except FileNotFoundError:
            return None
        if len(data) < size:
            return None
        magic, pid, session, lsn, state = _LAYOUT.unpack_from(data)
        if magic == _MAGIC and _CRC.unpack_from(data, _LAYOUT.size)[0] == google_crc32c.value(data[: _LAYOUT.size]):
            return Published(pid, session, lsn, state)
    return None
