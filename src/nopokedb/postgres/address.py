"""Where a PostgreSQL collection is: `postgresql://user@host/database`, with `#collection` behind it or not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nopokedb.distribution import install_hint

_SCHEMES = ("postgresql://", "postgres://")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Database:
    """One collection of one database."""

    uri: str
    collection: str
    """"" stands for the database itself."""

    def __str__(self) -> str:
        """Without the password."""
        from nopokedb.postgres.connections import redacted

        return f"{redacted(self.uri)}#{self.collection}" if self.collection else redacted(self.uri)


def is_postgres(path: object) -> bool:
    """Whether a path names a PostgreSQL database."""
    return isinstance(path, str) and path.startswith(_SCHEMES)


def parse_database(text: str) -> Database:
    """The address in a `path` argument, whose words libpq has found in order."""
    require_driver()
    from nopokedb.postgres.connections import check_uri

    uri, _, name = text.rpartition("#")
    if not uri or not _NAME.fullmatch(name):  # a `#` in a password, or none
        uri, name = text, ""
    check_uri(uri)
    return Database(uri, name)


def require_driver() -> None:
    """Say how to install the engine where its driver is missing."""
    try:
        import psycopg_pool  # noqa: F401  # needs psycopg itself
    except ImportError as error:
        raise ImportError(f"a PostgreSQL address needs psycopg: {install_hint('postgres')}") from error
