"""Which files of a collection's folder are superfluous, and their removal.

A crash leaves unfinished files, live sets and indexes that no manifest names, and files of a generation that the
manifest does not name: one that was never finished, or the one before. Only names that this package gives are touched.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from nopokedb.embedded import earlier, named
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.files import TEMPORARY_SUFFIX
from nopokedb.embedded.storage.lock import remove_unless_held
from nopokedb.embedded.storage.manifest import Manifest

# Exactly the names that a creation makes: a user's own files are never taken for its leftovers.
_CREATED = re.compile(
    r"(vectors-1\.f32|rows-1\.bin|labels-1\.bin|metadata-1\.db(-wal|-shm|-journal)?|manifest\.json\.tmp)"
)
_STORE_FILE = re.compile(r"(?:vectors-(\d+)\.f32|(?:rows|labels)-(\d+)\.bin|metadata-(\d+)\.db(?:-wal|-shm|-journal)?)")
_LIVE_FILE = re.compile(r"live-(\d+)-\d+\.bits(\.tmp)?")
_BUILD_FOLDER = re.compile(r"build-[0-9a-f]{16}")
_SEGMENT_FILE = re.compile(r"segment-(\d+)-\d+-\d+-[a-z]+\.(npk|graph)(\.tmp)?")


def is_created(name: str) -> bool:
    """Whether a creation makes a file of this name."""
    return _CREATED.fullmatch(name) is not None


def store_files(generation: int) -> tuple[str, ...]:
    """The files without which a generation is not one. The first is the one on which readers hold it."""
    return (
        f"rows-{generation}.bin",
        f"vectors-{generation}.f32",
        f"labels-{generation}.bin",
        f"metadata-{generation}.db",
    )


def leftovers(folder: Path, manifest: Manifest) -> list[Path]:
    """Files that a crash left behind: unfinished ones, live sets, indexes and snapshots that the manifest does not
    know, earlier collections of a switch that did not come, and other generations."""
    wanted = {manifest.live_file, *(name for segment in manifest.segments for name, _, _ in segment.parts)}
    found = named.leftovers(folder, manifest) + earlier.leftovers(folder, manifest)
    for place, pattern in (
        (folder, _LIVE_FILE),
        (folder / "index", _SEGMENT_FILE),
        (folder / "index", _BUILD_FOLDER),
    ):
        if place.is_dir():
            found += [path for path in place.iterdir() if pattern.fullmatch(path.name) and path.name not in wanted]
    unfinished = folder / (manifests.NAME + TEMPORARY_SUFFIX)
    found += [unfinished] if unfinished.exists() else []
    others = {None, manifest.generation}
    return [*found, *(path for path in folder.iterdir() if _generation_of(path.name) not in others)]


def remove_leftovers(folder: Path, manifest: Manifest) -> None:
    """Remove what a crash left behind; another generation only if no reader holds it."""
    generations = set()
    for path in leftovers(folder, manifest):
        generation = _generation_of(path.name) if path.parent == folder else None
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # a child that is just ending may still write there
        elif generation is None:
            path.unlink(missing_ok=True)
        else:
            generations.add(generation)
    for generation in generations:
        remove_generation(folder, generation)


def _generation_of(name: str) -> int | None:
    match = _STORE_FILE.fullmatch(name)
    return None if match is None else int(match[1] or match[2] or match[3])


def remove_generation(folder: Path, generation: int) -> bool:
    """Remove all files of a generation that the manifest on the medium does not name. False: a reader holds it, and
    nothing was removed.

    The file that readers lock goes first: from then on nobody can begin to use the others.
    """
    if not remove_unless_held(folder / store_files(generation)[0]):
        return False
    for path in folder.iterdir():
        live = _LIVE_FILE.fullmatch(path.name)
        if _generation_of(path.name) == generation or (live is not None and int(live[1]) == generation):
            path.unlink(missing_ok=True)
    for path in (folder / "index").iterdir():
        match = _SEGMENT_FILE.fullmatch(path.name)
        if match is not None and int(match[1]) == generation:
            path.unlink(missing_ok=True)
    return True
