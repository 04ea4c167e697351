"""Folders and databases of collections: list them, drop one."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from nopokedb.errors import (
    CollectionNotFoundError,
    CorruptionError,
    InvalidInputError,
    NeedsRecoveryError,
    NewerFormatError,
)
from nopokedb.opening import check_name, is_postgres, require_postgres, resolve_folder

_DROPPED = ".dropped-"
"""How folders begin that are being deleted. No collection can have such a name."""


def list_collections(path: str | Path) -> list[str]:
    """Names of the collections in the folder `path`, sorted; they open with `NoPokeDB(path=path, collection=name)`.

    A missing folder has none. With a PostgreSQL address: the collections in that database.
    """
    if is_postgres(path):
        require_postgres()
        from nopokedb.postgres import catalog

        return catalog.list_collections(str(path))
    folder = resolve_folder(path, None)
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.name[0] != "." and _is_collection(entry))


def drop_collection(path: str | Path, name: str) -> None:
    """Delete the collection `name` in the folder or database `path`, with all its records.

    Raises `CollectionNotFoundError` if there is none, `DatabaseLockedError` if a writer has it open.
    """
    from nopokedb.embedded.storage.files import sync_folder
    from nopokedb.embedded.storage.lock import WriterLock

    if not isinstance(name, str):
        raise InvalidInputError(f"expected the name of a collection, got {name!r}")
    if is_postgres(path):
        require_postgres()
        from nopokedb.postgres import catalog

        catalog.drop_collection(str(path), check_name(name))
        return
    folder = resolve_folder(path, name)
    if folder.is_symlink() or not _is_collection(folder):
        raise CollectionNotFoundError(f"expected a collection in {folder}, found none")
    lock = WriterLock(folder / "LOCK")
    try:
        # One rename makes it vanish whole; what a crash leaves of the hidden folder the next drop removes.
        folder.rename(folder.with_name(f"{_DROPPED}{name}-{secrets.token_hex(4)}"))
        sync_folder(folder.parent)
    finally:
        lock.abandon()
    for left in folder.parent.glob(_DROPPED + "*"):
        shutil.rmtree(left)


def _is_collection(folder: Path) -> bool:
    """Whether the folder has a manifest of ours: other programs have files of that name too."""
    from nopokedb.embedded.storage.manifest import read_manifest

    try:
        return read_manifest(folder) is not None
    except (NewerFormatError, NeedsRecoveryError):  # ours, of another format
        return True
    except CorruptionError:
        return False
