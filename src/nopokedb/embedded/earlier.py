"""Collections as they were before they got another model, read through the named snapshots in `earlier/<generation>/`.

A named snapshot is a set of labels of the present generation, and so cannot keep vectors of another dimension. What a
reembedding leaves behind is therefore a collection of its own: the files of the old generation, which nobody writes any
more, under second names (hard links; copies where the file system has none), with its manifest and its snapshots. It
is read like any folder that was closed cleanly. Nothing of it is ever changed but the snapshots in it, and without one
it is superfluous.

Which snapshots are there follows from the names of files and the present manifest, whose identity it has. Its own
manifest is read when somebody opens it: one that is damaged bars that, and nothing else.

`earlier/<generation>` counts only when the present generation is a later one: one that was made before a switch that
did not come is a leftover.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nopokedb.embedded import named
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.files import TEMPORARY_SUFFIX, open_file, sync, sync_folder
from nopokedb.embedded.storage.manifest import Manifest, read_manifest
from nopokedb.engine import NamedSnapshot
from nopokedb.errors import CorruptionError, NoPokeError

FOLDER = "earlier"


def keep(folder: Path, manifest: Manifest, snapshot: Snapshot, stores: Sequence[str], name: str) -> NamedSnapshot:
    """Keep the collection as it is, closed and durable, with its named snapshots and one more that has this name; all
    of it durable when this returns. `stores` are the names of its generation's files."""
    place = folder / FOLDER
    if not place.exists():
        place.mkdir()
        sync_folder(folder)
    kept = place / str(manifest.generation)
    unfinished = kept.with_name(kept.name + TEMPORARY_SUFFIX)
    for old in (kept, unfinished):  # of an attempt that did not come to its switch
        shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir()
    folders = {unfinished}
    for path in _files(folder, manifest, stores):
        target = unfinished / path.relative_to(folder)
        if target.parent not in folders:
            target.parent.mkdir()
            folders.add(target.parent)
        _second_name(path, target)
    made = named.create(unfinished, name, manifest, snapshot)
    for each in folders:
        sync_folder(each)
    unfinished.rename(kept)
    sync_folder(place)
    return made


def _files(folder: Path, manifest: Manifest, stores: Sequence[str]) -> Iterator[Path]:
    """What the collection is made of."""
    yield folder / manifests.NAME
    metadata = folder / f"metadata-{manifest.generation}.db-wal"
    if metadata.exists() and metadata.stat().st_size:  # a reader in another process kept it from being emptied
        yield metadata
    yield from (folder / name for name in stores)
    if manifest.live_file:
        yield folder / manifest.live_file
    yield from sorted((folder / "oplog").glob("*.log"))
    yield from (folder / "index" / name for segment in manifest.segments for name, _, _ in segment.parts)
    yield from (named.path_of(folder, name, manifest) for name in named.names(folder, manifest))


def _second_name(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
        return
    except OSError:  # no links here, or no more of them; an error that a copy meets too comes out of it
        target.unlink(missing_ok=True)
    shutil.copyfile(path, target)
    descriptor = open_file(target, os.O_RDWR)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def folders(folder: Path, manifest: Manifest) -> list[Path]:
    """Those that count, the latest first."""
    found = [path for path in _all(folder) if _counts(path, manifest)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def leftovers(folder: Path, manifest: Manifest) -> list[Path]:
    """Those that do not: unfinished, of a switch that did not come, or without a snapshot that somebody could read."""
    return [path for path in sorted(_all(folder)) if not _counts(path, manifest)]


def _all(folder: Path) -> list[Path]:
    place = folder / FOLDER
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def _counts(path: Path, manifest: Manifest) -> bool:
    return path.name.isdecimal() and int(path.name) < manifest.generation and any((path / named.FOLDER).glob("*@*"))


def _known(path: Path, manifest: Manifest) -> Manifest:
    """What the snapshots in it are told by, in place of its own manifest."""
    return replace(manifest, generation=int(path.name))


def require_readable(path: Path, manifest: Manifest) -> None:
    """Raise `CorruptionError` if its manifest is missing or damaged: then nothing in it can be understood."""
    file = path / manifests.NAME
    try:
        if read_manifest(path) is not None:
            return
        words = f"the manifest of an earlier collection is missing: {file}"
    except CorruptionError as error:
        words = str(error)
    lost = ", ".join(map(repr, named.names(path, _known(path, manifest))))
    raise CorruptionError(f"{words}; bring that file back, or drop what cannot be read: {lost}", file=str(file))


def notes(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with them at first sight."""
    found = []
    for path in folders(folder, manifest):
        try:
            require_readable(path, manifest)
        except (OSError, NoPokeError) as error:
            found.append(str(error))
    return found


def names(folder: Path, manifest: Manifest) -> list[str]:
    """Names of the snapshots in them, sorted."""
    return sorted(name for path in folders(folder, manifest) for name in named.names(path, _known(path, manifest)))


def listed(folder: Path, manifest: Manifest) -> list[NamedSnapshot]:
    """The snapshots in them, by name."""
    found = [item for path in folders(folder, manifest) for item in named.listed(path, _known(path, manifest))]
    return sorted(found, key=lambda item: item.name)


def find(folder: Path, name: str, manifest: Manifest) -> Path | None:
    """The one that has the snapshot of this name."""
    for path in folders(folder, manifest):
        if name in named.names(path, _known(path, manifest)):
            return path
    return None


def is_last(path: Path, name: str, manifest: Manifest) -> bool:
    """Whether it has no other snapshot."""
    return named.names(path, _known(path, manifest)) == [name]


def drop(path: Path, name: str, manifest: Manifest) -> bool:
    """Forget a snapshot in it, and all of it if that was the last; whether it is gone."""
    known = _known(path, manifest)
    named.drop(path, name, known)  # without one it does not count any more, whatever comes now
    if named.names(path, known):
        return False
    shutil.rmtree(path)
    sync_folder(path.parent)
    return True
