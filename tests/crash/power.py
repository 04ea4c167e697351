"""Power cuts on real file systems: ext4 and XFS on loop devices, told to shut down without writing their journals.

What a cut leaves is what the file system had handed to the device, brought back by its own recovery at the next mount.
Run as a program for many cuts: `python -m crash.power ext4 200`.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import test_crash
from crash_writer import DIM

from crash.pool import environment
from nopokedb import NoPokeDB

FILE_SYSTEMS = ("ext4", "xfs")
_SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN, which both file systems know."""
_WITHOUT_LOG = 2
"""Flag: nothing that is still in memory is written, not even the journal."""
_DISK_BYTES = 400 * 2**20
"""XFS refuses less than 300 MB. The file is sparse."""
_MOST_LINES = 240


class Disk:
    """A file system in a file, mounted."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._file = folder / f"{kind}.img"
        self.mount_point = folder / kind
        self.mount_point.mkdir()
        with self._file.open("wb") as file:
            file.truncate(_DISK_BYTES)
        quiet = ["-q", "-F"] if kind == "ext4" else ["-q", "-f"]
        subprocess.run([f"mkfs.{kind}", *quiet, str(self._file)], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._file), str(self.mount_point)], check=True, capture_output=True)

    def unmount(self) -> None:
        gc.collect()  # arrays keep their maps, and a map keeps the file system busy
        subprocess.run(["umount", str(self.mount_point)], check=True, capture_output=True)

    def cut(self) -> None:
        """From now on nothing reaches the medium."""
        import fcntl  # not everywhere, and needed only where power can be cut

        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
        finally:
            os.close(descriptor)


def why_not(kind: str, folder: Path) -> str | None:
    """The reason why no power can be cut here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting loop devices needs root on Linux"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is missing (Debian: {'xfsprogs' if kind == 'xfs' else 'e2fsprogs'})"
    probe = folder / "probe"
    probe.mkdir()
    try:
        disk = Disk(kind, probe)
        disk.unmount()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a loop device with {kind} cannot be mounted here: {getattr(error, 'stderr', error)!r}"
    return None


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Disk]:
    """A mounted disk, unmounted at the end whatever happens."""
    made = Disk(kind, folder)
    try:
        yield made
    finally:
        gc.collect()
        subprocess.run(["umount", "-l", str(made.mount_point)], check=False, capture_output=True)


def write_and_cut(disk: Disk, seed: int, threads: int, lines: int) -> list[str]:
    """Start a writer, cut the power after it printed `lines` lines, return all that it printed, also while the cut was
    made: what it acknowledged then it has to keep as well."""
    command = [sys.executable, str(test_crash.WRITER), str(disk.mount_point / "db"), str(seed), str(threads)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
    assert writer.stdout is not None
    watchdog = threading.Timer(120, writer.kill)
    watchdog.start()
    seen: list[str] = []
    for line in writer.stdout:
        seen.append(line)
        if len(seen) == lines:
            disk.cut()
            writer.kill()
    watchdog.cancel()
    writer.wait()
    writer.stdout.close()
    assert len(seen) >= lines, "the writer failed by itself"
    return [line.strip() for line in seen if line.endswith("\n") and line.count(" ") >= 2]


def cut_and_check(disk: Disk, cuts: int, seed: int) -> int:
    """Cut the power so often, each time while a writer is at work, and compare every record after the next mount.
    Returns how many batches had been acknowledged."""
    dice = random.Random(seed)
    acknowledged = 0
    for number in range(cuts):
        threads = dice.choice([1, 1, 2])
        lines = write_and_cut(disk, seed + number, threads, dice.randint(1, _MOST_LINES))
        acknowledged += sum(line.startswith("ack") for line in lines)
        disk.unmount()
        disk.mount()
        with NoPokeDB(dim=DIM, path=disk.mount_point / "db") as db:
            state = test_crash.check(db, lines, {}, threads)
            # The next round writes other ids into the same folder.
            db.delete_many(list(state))
        del db
        disk.unmount()
        disk.mount()
    return acknowledged


def main() -> None:
    """Arguments: file system, number of cuts, seed."""
    import tempfile

    kind, cuts = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(2**32)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nopokedb-power-") as folder:
        if (reason := why_not(kind, Path(folder))) is not None:
            print(f"{kind}: skipped, {reason}")
            return
        print(f"{kind}: {cuts} power cuts, seed {seed}", flush=True)
        with disk(kind, Path(folder)) as made:
            acknowledged = cut_and_check(made, cuts, seed)
    print(f"{kind}: {cuts} cuts, {acknowledged} acknowledged batches all there, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
