"""Folders of collections: list them, drop one."""

from __future__ import annotations

import shutil
from pathlib import Path

from nopokedb.database import resolve_folder
from nopokedb.errors import CollectionNotFoundError


def list_collections(path: str | Path) -> list[str]:
    """Names of the collections in the folder `path`, sorted; they open with `NoPokeDB(path=path, collection=name)`.

    A missing folder has none.
    """
    folder = resolve_folder(path, None)
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _is_collection(entry))


def drop_collection(path: str | Path, name: str) -> None:
    """Delete the collection `name` in the folder `path`, with all its records.

    Raises `CollectionNotFoundError` if there is none, `DatabaseLockedError` if a writer has it open.
    """
    from nopokedb.embedded.storage.lock import WriterLock

    folder = resolve_folder(path, name)
    if not _is_collection(folder):
        raise CollectionNotFoundError(f"expected a collection in {folder}, found none")
    lock = WriterLock(folder / "LOCK")
    try:
        # Without its manifest a folder is no collection: first that, then the rest, so a crash leaves no half of one.
        (folder / "manifest.json").unlink()
        shutil.rmtree(folder / "oplog")
        shutil.rmtree(folder)
    finally:
        lock.abandon()


def _is_collection(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()
