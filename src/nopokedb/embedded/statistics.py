"""What `stats` tells of a handle."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from nopokedb.embedded import earlier, named
from nopokedb.embedded.compaction import reclaimable_bytes
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.lock import ReaderLock, read_published
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.metadata import Field
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.engine import SegmentStats, Stats
from nopokedb.filters import path_text


def stats_of(
    folder: Path,
    manifest: Manifest,
    snapshot: Snapshot,
    notes: Sequence[str],
    fields: Sequence[Field],
    cache_bytes: int,
    upkeep: Upkeep | None,
) -> Stats:
    """The numbers of one moment; `upkeep` is None in a read-only handle."""
    sizes = _file_sizes(folder)
    derived = {folder / "index", folder / "text"}
    scrub = None if upkeep is None else upkeep.scrub
    return Stats(
        path=str(folder),
        dim=manifest.settings.dim,
        space=manifest.settings.space,
        index=manifest.settings.index,
        count=snapshot.live.count,
        label_count=snapshot.label_count,
        row_count=snapshot.row_count,
        tail_count=snapshot.row_count - snapshot.tail_start,
        segments=tuple(
            SegmentStats(
                segment.kind,
                segment.row_count,
                snapshot.live_count(segment.start, segment.stop),
                _memory_of(segment),
                segment.ef_at_10,
                segment.recall,
            )
            for segment in snapshot.segments
        ),
        sealing=upkeep is not None and upkeep.indexing,
        lsn=snapshot.lsn,
        checkpoint_lsn=manifest.checkpoint_lsn,
        log_bytes=sum(size for path, size in sizes.items() if path.parent.name == "oplog"),
        disk_bytes=sum(sizes.values()),
        index_bytes=sum(size for path, size in sizes.items() if not derived.isdisjoint(path.parents)),
        cache_bytes=cache_bytes,
        indexed_fields=tuple(path_text(field.path) for field in fields),
        read_only=upkeep is None,
        notes=tuple(notes),
        snapshots=tuple(sorted(named.names(folder, manifest) + earlier.names(folder, manifest))),
        generation=snapshot.store.generation,
        reclaimable_bytes=reclaimable_bytes(snapshot),
        scrub_progress=0.0 if scrub is None else scrub.progress(snapshot),
        scrub_passes=0 if scrub is None else scrub.passes,
        damaged_count=0 if scrub is None else len(scrub.damaged),
        retired_count=snapshot.retired_label_count,
        vectors_bytes=_size_of(sizes, folder, ("vectors-", "rows-", "labels-")),
        metadata_bytes=_size_of(sizes, folder, ("metadata-",)),
        index_memory_bytes=sum(_memory_of(segment) for segment in snapshot.segments),
        tables_memory_bytes=snapshot.row_labels.nbytes
        + sum(chunk.nbytes for live in (snapshot.live, snapshot.live_rows) for chunk in live.chunks),
        checkpoint_age_s=_age_of(folder / manifest.live_file) if manifest.live_file else None,
        lock_holder=_writer_of(folder) if upkeep is None else os.getpid(),
    )


def _size_of(sizes: dict[Path, int], folder: Path, names: tuple[str, ...]) -> int:
    return sum(size for path, size in sizes.items() if path.parent == folder and path.name.startswith(names))


def _memory_of(segment: Segment) -> int:
    return segment.size_bytes + (segment.scan.size_bytes if segment.scan is not None else 0)


def _age_of(path: Path) -> float | None:
    """Seconds since the file was written; each checkpoint writes its live set anew."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:  # the next checkpoint has just come
        return 0.0


def _writer_of(folder: Path) -> int | None:
    lock = ReaderLock(folder / "LOCK")
    try:
        published = None if lock.alone else read_published(folder / "LOCK")
        return None if published is None else published.pid
    finally:
        lock.release()


def _file_sizes(folder: Path) -> dict[Path, int]:
    """Sizes of all files below; one that goes away meanwhile is left out."""
    sizes = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:
                continue
    return sizes
