"""What a server keeps beside its collections: their backups, and its jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nopokedb.backups import StoredBackup
from nopokedb.errors import InvalidInputError, NotSupportedError
from nopokedb.jobs import Job
from nopokedb.opening import check_name
from nopokedb.records import shown
from nopokedb.remote.address import Address, is_address, parse_address


def list_backups(path: str | Path, *, api_key: str | None = None) -> list[StoredBackup]:
    """The backups that a server keeps of the collection at the address `path` (`http://host:port/collection`), sorted
    by name. The collection may be gone by now: its backups outlive it.

    The key needs the role admin. Raises `NotSupportedError` for a folder, whose backups are where you wrote them.
    """
    from nopokedb.remote.documents import stored_backups_of

    return stored_backups_of(_ask(_collection_at(path), api_key, "backups"))


def drop_backup(path: str | Path, name: str, *, api_key: str | None = None) -> None:
    """Delete the backup `name` that a server keeps of the collection at the address `path`. Incremental backups that
    continue it cannot be restored any more.

    The key needs the role admin. Raises `NoSuchThingError` (of `nopokedb.server.refusals`) if there is none of that
    name, `NotSupportedError` for a folder.
    """
    from nopokedb.server.requests import Name

    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"expected the name of a backup, got {shown(name)}")
    _ask(_collection_at(path), api_key, "drop_backup", Name(name))


def list_jobs(path: str | Path, *, api_key: str | None = None) -> list[Job]:
    """The jobs of the server at the address `path`, the newest first: those that wait, run, and the last thousand that
    ended, as far as the key may see their collections. A server that stops forgets them.

    With a collection in the address, those of this collection. Raises `NotSupportedError` for a folder.
    """
    from nopokedb.remote.documents import jobs_of

    address = _server_at(path)
    jobs = jobs_of(_ask(address, api_key, "jobs"))
    return [job for job in jobs if address.collection in ("", job.collection)]


def _server_at(path: str | Path) -> Address:
    if not is_address(path):
        raise NotSupportedError(f"expected the address of a server (http:// or grpc://), got {shown(path)}")
    return parse_address(str(path))


def _collection_at(path: str | Path) -> Address:
    address = _server_at(path)
    check_name(address.collection)
    return address


def _ask(address: Address, api_key: str | None, operation: str, *request: Any) -> Any:
    from nopokedb.remote.opening import connected

    with connected(address, api_key) as connection:
        return connection.ask(operation, *request)
