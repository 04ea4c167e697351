"""Folders, databases and servers of collections: list them, drop one."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from nopokedb.errors import (
    CollectionNotFoundError,
    CorruptionError,
    InvalidInputError,
    NeedsRecoveryError,
    NewerFormatError,
)
from nopokedb.opening import check_name, refuse_key, resolve_folder
from nopokedb.postgres.address import is_postgres, require_driver
from nopokedb.remote.address import Address, is_address, parse_address

_DROPPED = ".dropped-"
"""How folders begin that are being deleted. No collection can have such a name."""


def list_collections(path: str | Path, *, api_key: str | None = None) -> list[str]:
    """Names of the collections in the folder or database `path`, or on the server there, as far as the key may see
    them; sorted. They open with `NoPokeDB(path=path, collection=name)`. A missing folder has none.
    """
    if is_address(path):
        return _ask_server(parse_address(str(path)), api_key, "list")  # type: ignore[no-any-return]
    refuse_key(api_key)
    if is_postgres(path):
        require_driver()
        from nopokedb.postgres import catalog

        return catalog.list_collections(str(path))
    folder = resolve_folder(path, None)
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.name[0] != "." and _is_collection(entry))


def drop_collection(path: str | Path, name: str, *, api_key: str | None = None) -> None:
    """Delete the collection `name` in the folder or database `path`, or on the server there, with all its records.

    Raises `CollectionNotFoundError` if there is none, `DatabaseLockedError` if a writer has it open.
    """
    if is_address(path):
        _ask_server(replace(parse_address(str(path)), collection=check_name(name)), api_key, "drop")
        return
    refuse_key(api_key)
    from nopokedb.embedded.storage.files import sync_folder
    from nopokedb.embedded.storage.lock import WriterLock

    if not isinstance(name, str):
        raise InvalidInputError(f"expected the name of a collection, got {name!r}")
    if is_postgres(path):
        require_driver()
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


def _ask_server(address: Address, api_key: str | None, operation: str) -> Any:
    """One question to a server, outside of any handle."""
    from nopokedb.remote.opening import connected

    with connected(address, api_key) as connection:
        return connection.ask(operation)


def _is_collection(folder: Path) -> bool:
    """Whether the folder has a manifest of ours: other programs have files of that name too."""
    from nopokedb.embedded.storage.manifest import read_manifest

    try:
        return read_manifest(folder) is not None
    except (NewerFormatError, NeedsRecoveryError):  # ours, of another format
        return True
    except CorruptionError:
        return False
