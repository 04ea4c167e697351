"""What the figures were measured on."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path

PACKAGES = ("nopokedb", "faiss-cpu", "hnswlib", "numpy", "apsw", "orjson", "tantivy", "wordllama")
SYNC_COUNT = 200
IDLE_SAMPLE_S = 1.0
QUIET_SHARE = 0.85
"""A machine that is less idle than this while nothing is measured disturbs what is."""


def processor_name() -> str:
    """The model name in /proc/cpuinfo, or what the platform module says where that file does not exist."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def filesystem_of(folder: Path) -> str:
    """Type of the filesystem a folder lies on, such as "ext4"; "unknown" without psutil.

    A sync on a tmpfs costs nothing, so durable rates mean little there.
    """
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        return "unknown"
    target = folder.resolve()
    mounts = {Path(part.mountpoint): str(part.fstype) for part in psutil.disk_partitions(all=True)}
    for parent in (target, *target.parents):
        if parent in mounts:
            return mounts[parent]
    return "unknown"


def syncs_per_second(folder: Path) -> float:
    """Appends of a kilobyte, each synced, that the disk takes a second: the ceiling of unshared writes."""
    descriptor, path = tempfile.mkstemp(dir=folder, prefix="sync-probe-")
    try:
        started = time.perf_counter()
        for _ in range(SYNC_COUNT):
            os.write(descriptor, b"\0" * 1024)
            os.fsync(descriptor)
        return SYNC_COUNT / (time.perf_counter() - started)
    finally:
        os.close(descriptor)
        Path(path).unlink()


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by distribution name; one that runs from a source tree has none and is left out."""
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def idle_share() -> float:
    """Share of the processors' time that nobody used over a second in which this process sleeps; 1 where unknown."""

    def ticks() -> list[int]:
        return [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]

    try:
        before = ticks()
        time.sleep(IDLE_SAMPLE_S)
        spent = [after - earlier for earlier, after in zip(before, ticks(), strict=True)]
    except OSError:
        return 1.0
    idle_and_waiting = spent[3] + spent[4]
    return idle_and_waiting / max(1, sum(spent))


def describe(folder: Path) -> dict[str, object]:
    """Processor, cores, memory, system, versions, disk and date, ready for JSON."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions_of(PACKAGES),
        "filesystem": filesystem_of(folder),
        "syncs_per_second": round(syncs_per_second(folder)),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
