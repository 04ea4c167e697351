"""Where a server is: `http://`, `https://`, `grpc://` or `grpcs://`, a host and a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from nopokedb.errors import InvalidInputError

Scheme: TypeAlias = Literal["http", "https", "grpc", "grpcs"]
PORTS: dict[str, int] = {"http": 7331, "https": 7331, "grpc": 7332, "grpcs": 7332}
"""What `nopokedb serve` listens on unless told otherwise, by scheme."""


@dataclass(frozen=True, slots=True)
class Address:
    """One collection of one server."""

    scheme: str
    host: str
    port: int
    collection: str = ""
    """"" stands for the server itself."""

    @property
    def secure(self) -> bool:
        """By TLS."""
        return self.scheme in ("https", "grpcs")

    @property
    def target(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server(self) -> str:
        """Without the collection."""
        return f"{self.scheme}://{self.target}"

    def __str__(self) -> str:
        return f"{self.server}/{self.collection}" if self.collection else self.server


def is_address(path: object) -> bool:
    """Whether a path names a server."""
    return isinstance(path, str) and path.partition("://")[0].lower() in PORTS and "://" in path


def parse_address(text: str) -> Address:
    """The address in a `path` argument. A collection may stand behind the port, as in `NoPokeDB.path`."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInputError(f"expected an address like http://127.0.0.1:7331, got {text!r:.200}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError("expected an address without a name or a password; keys are given as api_key=")
    collection = parts.path.strip("/")
    if not host or "/" in collection or parts.query or parts.fragment:
        raise InvalidInputError(
            "expected an address like http://127.0.0.1:7331, and nothing behind the port but a collection, got "
            f"{text!r:.200}"
        )
    scheme = parts.scheme.lower()
    return Address(scheme, host, PORTS[scheme] if port is None else port, collection)
