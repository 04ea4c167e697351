"""The collections of a database: list them, drop one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nopokedb.errors import CollectionNotFoundError
from nopokedb.postgres import schema
from nopokedb.postgres.connections import Connection, Connections, check_uri

T = TypeVar("T")
_TIMEOUT_S = 30.0


def list_collections(uri: str) -> list[str]:
    """See `nopokedb.list_collections`."""
    return _with(uri, schema.names)


def drop_collection(uri: str, name: str) -> None:
    """See `nopokedb.drop_collection`. Handles that have it open get errors from then on."""
    if not _with(uri, lambda connection: schema.drop(connection, name)):
        raise CollectionNotFoundError(f"expected a collection {name!r} in this database, found none")


def _with(uri: str, work: Callable[[Connection], T]) -> T:
    check_uri(uri)
    connections = Connections(uri, timeout_s=_TIMEOUT_S, read_only=False)
    try:
        return connections.run(work)
    finally:
        connections.close()
