"""Bringing a folder of an older format to the present one, when it is opened for writing.

    the writer's lock -> a copy of the folder as it is, synced -> each step to the next version -> the new manifest

The copy is `before-format-<version>/` in the folder, a collection that the older version of the package opens. The
rename of the manifest is the moment at which the folder is of the new format; before it nothing that the old manifest
speaks of was changed, so whatever stops a migration leaves the old folder, and the next open begins it anew.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.files import TEMPORARY_SUFFIX, has_room, sync, sync_folder
from nopokedb.embedded.storage.lock import WriterLock
from nopokedb.embedded.storage.manifest import manifest_of, read_fields, write_manifest
from nopokedb.errors import NotADatabaseError

_log = logging.getLogger("nopokedb")

Step: TypeAlias = Callable[[Path, dict[str, Any]], dict[str, Any]]
"""From a folder and the fields of its manifest to those of the next version.

A step writes files under names that the manifest does not speak of, and syncs them; it changes and removes none that
the manifest speaks of, frames of the log included; done again after a crash it gives the same. Files that the new
manifest does not name any more are removed by the recovery that follows, as after a compaction.
"""

STEPS: dict[int, Step] = {}
"""By the version that a step starts from. Empty: there has been one format so far."""

_COPY = "before-format-"
_NOT_COPIED = ("LOCK", "quarantine-", _COPY)


def migrate(folder: Path) -> None:
    """Bring the folder to the present format; returns at once where it is, or where there is no collection.

    Raises `NotADatabaseError` where there is no way from the version found, `NewerFormatError`, `CorruptionError`,
    `DatabaseLockedError`, and OSError where there is no room for the copy.
    """
    if _older_version(folder) is None:
        return
    lock = WriterLock(folder / "LOCK")
    try:
        version = _older_version(folder)  # again: another process may have done it meanwhile
        if version is None:
            return
        target = manifests.FORMAT_VERSION
        if missing := [number for number in range(version, target) if number not in STEPS]:
            raise NotADatabaseError(
                f"expected a folder of format {target}, got format {version} in {folder}, and there is no way from "
                f"format {missing[0]} to {missing[0] + 1}"
            )
        kept = _keep_copy(folder, target)
        _, fields = read_fields(folder, (folder / manifests.NAME).read_bytes())
        for number in range(version, target):
            fields = STEPS[number](folder, fields)
        write_manifest(folder, manifest_of(folder, fields))
        _log.warning(
            "%s: brought from format %d to %d; as it was it is in %s",
            folder,
            version,
            target,
            kept,
            extra={"event": "migrated"},
        )
    finally:
        lock.abandon()


def _older_version(folder: Path) -> int | None:
    try:
        data = (folder / manifests.NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    version, _ = read_fields(folder, data)
    return version if version < manifests.FORMAT_VERSION else None


def _keep_copy(folder: Path, target: int) -> Path:
    """Copy every file; the copy has its name only once all of it is durable."""
    names = {path.name for path in folder.iterdir()}
    kept = folder / f"{_COPY}{target}"
    number = 1
    while kept.name in names:  # of a migration that was stopped after its copy
        number += 1
        kept = folder / f"{_COPY}{target}-{number}"
    files = list(_files(folder))
    needed = sum(path.stat().st_size for path in files)
    if not has_room(folder, needed):
        raise OSError(errno.ENOSPC, f"expected {needed} free bytes for a copy before the migration of {folder}")
    unfinished = kept.with_name(kept.name + TEMPORARY_SUFFIX)
    shutil.rmtree(unfinished, ignore_errors=True)
    folders = {unfinished}
    for path in files:
        copy = unfinished / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        folders.update(parent for parent in copy.parents if parent.is_relative_to(unfinished))
        shutil.copyfile(path, copy)
        descriptor = os.open(copy, os.O_RDWR)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    for each in folders:
        sync_folder(each)
    unfinished.rename(kept)
    sync_folder(folder)
    return kept


def _files(folder: Path) -> Iterator[Path]:
    """What belongs to the collection, without what only means something while it is open."""
    for path in sorted(folder.rglob("*")):
        top = path.relative_to(folder).parts[0]
        if path.is_file() and not top.startswith(_NOT_COPIED) and not top.endswith(("-shm", TEMPORARY_SUFFIX)):
            yield path
