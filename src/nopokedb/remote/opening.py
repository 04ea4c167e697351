"""From the arguments of `NoPokeDB` to an open collection of a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nopokedb.agreement import check_fields, check_settings
from nopokedb.distribution import install_hint
from nopokedb.errors import NotSupportedError
from nopokedb.filters import path_text
from nopokedb.opening import TIMEOUT_S, Opening, check_connection
from nopokedb.records import Vectors, shown
from nopokedb.remote.address import Address
from nopokedb.remote.engine import Connection, RemoteEngine
from nopokedb.remote.transport import Transport
from nopokedb.server import requests
from nopokedb.server.results import Collection


def open_remote(address: Address, opening: Opening) -> tuple[RemoteEngine, Callable[[Sequence[str]], Vectors] | None]:
    """The engine, and what asks the server's model for vectors where the collection has one."""
    _check(opening)
    connection = Connection(make_transport(address, opening.api_key), address, opening.timeout_s)
    try:
        engine = RemoteEngine(connection, _opened(connection, opening), read_only=opening.read_only)
    except BaseException:
        connection.close()
        raise
    return engine, engine.embed if engine.embed_name else None


@contextmanager
def connected(address: Address, api_key: str | None) -> Iterator[Connection]:
    """A connection for what is asked outside of any handle."""
    check_connection(api_key, TIMEOUT_S)
    connection = Connection(make_transport(address, api_key), address, TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


def make_transport(address: Address, api_key: str | None) -> Transport:
    """What speaks to this address. Without a key, the one in the environment is sent: commands have no other way."""
    if api_key is None:
        api_key = os.environ.get("NOPOKEDB_API_KEY") or None
        check_connection(api_key, TIMEOUT_S)
    try:
        if address.scheme in ("grpc", "grpcs"):
            from nopokedb.remote.channel import ChannelTransport

            return ChannelTransport(address, api_key)
        from nopokedb.remote.rest import RestTransport

        return RestTransport(address, api_key)
    except ModuleNotFoundError as error:
        extra = "grpc" if address.scheme.startswith("grpc") else "client"
        raise ImportError(f"{address.scheme}:// needs {error.name}: {install_hint(extra)}") from error


def _check(opening: Opening) -> None:
    """Refuse what a server decides for itself, rather than to leave it out."""
    if opening.max_memory is not None:
        raise NotSupportedError("expected no max_memory for a collection of a server, which has one for all of them")
    if opening.embed is not None and not isinstance(opening.embed, str):
        raise NotSupportedError(
            f"expected embed to be the name of a model of the server, got {shown(opening.embed)}; give vectors that "
            "your model has made"
        )


def _opened(connection: Connection, opening: Opening) -> Collection:
    """The collection: made if it is missing and `dim` or `embed` is given, else compared with the settings."""
    creates = (opening.dim is not None or opening.embed is not None) and not opening.read_only
    if not creates:
        # A reader needs no more than a reader's key.
        found: Collection = connection.ask("describe")
        _compare(connection.address, found, opening)
        return found
    settings: Any = opening.settings
    created = connection.ask(
        "create",
        requests.CreateCollection(
            dim=opening.dim,
            indexed_fields=[path_text(field) for field in opening.fields],
            embed=opening.embed,  # type: ignore[arg-type]  # a str, see _check
            max_elements=opening.max_elements,
            **settings,
        ),
    )
    found = connection.ask("describe")
    if not created.created:
        _compare(connection.address, found, opening)
    return found


def _compare(address: Address, found: Collection, opening: Opening) -> None:
    """Raise `SettingsMismatchError` for a setting that is given and disagrees."""
    check_settings(address, found, {"dim": opening.dim, "embed": opening.embed} | opening.settings)
    check_fields(address, found.indexed_fields, opening.fields)
