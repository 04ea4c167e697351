"""The tables of collections: made, found, checked, dropped. Everything lives in the schema `nopokedb`.

    collections          one line per collection: its number, settings, and the version of its tables
    records_<number>     the records, see codec.py; with an index on `fields` and one on `terms`
    batches_<number>     one line per batch: the key that keeps it from being written twice, and by how much it
                         changed the number and length of texts, which BM25 goes by
    ids_<number>         the counter of automatic ids

Names of tables hold numbers only, so a collection's name is never part of a statement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, LiteralString

import orjson
from psycopg import errors as pg
from psycopg import sql

from nopokedb.errors import (
    CollectionNotFoundError,
    NewerFormatError,
    NotADatabaseError,
    NotSupportedError,
)
from nopokedb.postgres.connections import Connection, table

VERSION = 1
"""Of the tables of a collection. Older ones are brought here by `_MIGRATIONS`, newer ones are refused."""
_MIGRATIONS: dict[int, LiteralString] = {}
"""From a version to the statement that makes the next one of it."""
_PGVECTOR = (0, 8)
"""Filtered searches need its iterative scans."""
_SERVER = 140_000
MAX_DIM = 16_000
"""Of pgvector's type."""
_LOCK = 0x6E6F706F6B65
"""Advisory lock of whoever makes or drops collections."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a collection was created with."""

    dim: int
    space: str = "cosine"
    index: str = "auto"
    M: int = 16
    ef_construction: int = 200
    text_language: str = "en"
    embed_name: str = ""
    embed_fingerprint: tuple[float, ...] = ()
    distributed: bool = False
    indexed_fields: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of this database."""

    name: str
    number: int
    settings: Settings

    @property
    def records(self) -> sql.Identifier:
        return table("records", self.number)

    @property
    def batches(self) -> sql.Identifier:
        return table("batches", self.number)

    @property
    def ids(self) -> sql.Identifier:
        return table("ids", self.number)


def find(connection: Connection, name: str) -> Collection | None:
    """The collection of this name, its tables brought to this version; None if there is none."""
    if not _has_schema(connection):
        return None
    row = connection.execute(
        "SELECT number, version, settings FROM nopokedb.collections WHERE name = %s", (name,)
    ).fetchone()
    if row is None:
        return None
    number, version, settings = row
    if version > VERSION:
        raise NewerFormatError(
            f"expected tables of version {VERSION} or older for the collection {name!r}, got version {version}; "
            "install a newer nopokedb"
        )
    if version < VERSION:
        _migrate(connection, name, number, version)
    return Collection(name, number, _settings_of(settings))


def create(connection: Connection, name: str, settings: Settings) -> Collection:
    """Make the tables of a new collection, or return what another process has made meanwhile."""
    if settings.dim > MAX_DIM:
        raise NotSupportedError(
            f"expected dim of at most {MAX_DIM} with the engine PostgreSQL, whose pgvector holds no more, got "
            f"{settings.dim}"
        )
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        found = find(connection, name)
        if found is not None:
            return found
        _make_schema(connection)
        settings = replace(settings, distributed=_distributed(connection, settings.distributed))
        row = connection.execute(
            "INSERT INTO nopokedb.collections (name, version, settings) VALUES (%s, %s, %s) RETURNING number",
            (name, VERSION, orjson.dumps(_plain(settings)).decode()),
        ).fetchone()
        assert row is not None
        made = Collection(name, row[0], settings)
        _make_tables(connection, made)
    return made


def names(connection: Connection) -> list[str]:
    """All collections, sorted."""
    if not _has_schema(connection):
        return []
    return sorted(name for (name,) in connection.execute("SELECT name FROM nopokedb.collections"))


def drop(connection: Connection, name: str) -> bool:
    """Drop a collection with all its records. False if there is none."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if not _has_schema(connection):
            return False
        row = connection.execute(
            "DELETE FROM nopokedb.collections WHERE name = %s RETURNING number", (name,)
        ).fetchone()
        if row is None:
            return False
        for kind in ("records", "batches"):
            connection.execute(sql.SQL("DROP TABLE {}").format(table(kind, row[0])))
        connection.execute(sql.SQL("DROP SEQUENCE {}").format(table("ids", row[0])))
    return True


def set_indexed(connection: Connection, collection: Collection, path: tuple[str, ...], *, wanted: bool) -> bool:
    """Note that a field is to have an index, or is not; whether that changed anything."""
    with connection.transaction():
        row = connection.execute(
            "SELECT settings FROM nopokedb.collections WHERE number = %s FOR UPDATE", (collection.number,)
        ).fetchone()
        if row is None:
            raise missing(collection.name)
        settings = _settings_of(row[0])
        if (path in settings.indexed_fields) == wanted:
            return False
        fields = [field for field in settings.indexed_fields if field != path] + [path] * wanted
        settings = replace(settings, indexed_fields=tuple(fields))
        connection.execute(
            "UPDATE nopokedb.collections SET settings = %s WHERE number = %s",
            (orjson.dumps(_plain(settings)).decode(), collection.number),
        )
    return True


def stored_settings(connection: Connection, collection: Collection) -> Settings:
    """The settings as they are now: another handle may have made an index."""
    row = connection.execute(
        "SELECT settings FROM nopokedb.collections WHERE number = %s", (collection.number,)
    ).fetchone()
    if row is None:
        raise missing(collection.name)
    return _settings_of(row[0])


def missing(name: str) -> CollectionNotFoundError:
    """The error for a collection that is not there."""
    return CollectionNotFoundError(
        f"expected a collection {name!r} in this database, found none; give dim= to create it"
    )


def check_server(connection: Connection) -> None:
    """The server can do what this engine needs."""
    if connection.info.server_version < _SERVER:
        raise NotSupportedError(
            f"expected PostgreSQL {_SERVER // 10_000} or newer, got {connection.info.server_version // 10_000}"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise NotSupportedError(f"expected a database in UTF8, got {encoding}; create one with ENCODING 'UTF8'")


# --- inside -------------------------------------------------------------------------------------------------


def _has_schema(connection: Connection) -> bool:
    row = connection.execute("SELECT to_regclass('nopokedb.collections') IS NOT NULL").fetchone()
    return bool(row and row[0])


def _make_schema(connection: Connection) -> None:
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (pg.UndefinedFile, pg.FeatureNotSupported) as error:
        raise NotSupportedError(
            "expected a PostgreSQL server with pgvector, but its extension 'vector' is not installed there"
        ) from error
    except pg.InsufficientPrivilege as error:
        raise NotADatabaseError(
            "expected the extension 'vector' in this database or the right to create it; ask its owner for "
            "CREATE EXTENSION vector"
        ) from error
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    assert row is not None
    if tuple(int(part) for part in row[0].split(".")[:2]) < _PGVECTOR:
        raise NotSupportedError(
            f"expected pgvector {'.'.join(map(str, _PGVECTOR))} or newer, got {row[0]}; run ALTER EXTENSION vector "
            "UPDATE once a newer one is installed"
        )
    connection.execute("CREATE SCHEMA IF NOT EXISTS nopokedb")
    connection.execute(
        'CREATE TABLE IF NOT EXISTS nopokedb.collections (name text COLLATE "C" PRIMARY KEY, '
        "number int NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE, version int NOT NULL, settings json NOT NULL, "
        "curve json, created_at timestamptz NOT NULL DEFAULT now())"
    )


def _make_tables(connection: Connection, made: Collection) -> None:
    dim = sql.Literal(made.settings.dim)
    statements = [
        sql.SQL(
            # Vector, metadata and fields are always there. They are not declared so: an upsert leaves out what it
            # keeps, and constraints are checked before it finds the record.
            "CREATE TABLE {records} (id bytea PRIMARY KEY, vector vector({dim}), metadata json, fields jsonb, "
            "document text, terms tsvector, places jsonb, length int, norm int, computed boolean)"
        ),
        sql.SQL("CREATE INDEX ON {records} USING gin (fields jsonb_path_ops)"),
        sql.SQL("CREATE INDEX ON {records} USING gin (terms) WHERE terms IS NOT NULL"),
        sql.SQL(
            "CREATE TABLE {batches} (key uuid UNIQUE, at timestamptz NOT NULL DEFAULT now(), "
            "count bigint NOT NULL DEFAULT 1, added bytea, "
            "documents bigint NOT NULL DEFAULT 0, length bigint NOT NULL DEFAULT 0)"
        ),
        sql.SQL("CREATE SEQUENCE {ids} MINVALUE 0 START 0"),
    ]
    names = {"records": made.records, "batches": made.batches, "ids": made.ids, "dim": dim}
    for statement in statements:
        connection.execute(statement.format(**names))
    if made.settings.distributed:
        connection.execute("SELECT create_distributed_table(%s, 'id')", (f"nopokedb.records_{made.number}",))


def _distributed(connection: Connection, wanted: bool) -> bool:
    """Whether a new collection is sharded: where Citus has workers, or because it was asked for."""
    row = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'").fetchone()
    if row is None:
        if wanted:
            raise NotSupportedError(
                "expected a database with the extension 'citus' for distributed=True, found none; see docs/scale-out.md"
            )
        return False
    if wanted:
        return True
    workers = connection.execute("SELECT count(*) FROM citus_get_active_worker_nodes()").fetchone()
    return bool(workers and workers[0])


def _migrate(connection: Connection, name: str, number: int, version: int) -> None:
    """Bring the tables of a collection to this version, all steps or none."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        row = connection.execute(
            "SELECT version FROM nopokedb.collections WHERE name = %s FOR UPDATE", (name,)
        ).fetchone()
        for step in range(row[0] if row else VERSION, VERSION):
            statement = _MIGRATIONS.get(step)
            if statement is None:
                raise NotADatabaseError(
                    f"expected tables of version {VERSION} for the collection {name!r}, got version {version}, from "
                    "which there is no way; copy it with the version of nopokedb that made it"
                )
            connection.execute(sql.SQL(statement).format(records=table("records", number)))
        connection.execute("UPDATE nopokedb.collections SET version = %s WHERE name = %s", (VERSION, name))


def _plain(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__slots__}


def _settings_of(encoded: bytes | dict[str, Any]) -> Settings:
    plain = encoded if isinstance(encoded, dict) else orjson.loads(encoded)
    plain["embed_fingerprint"] = tuple(plain["embed_fingerprint"])
    plain["indexed_fields"] = tuple(map(tuple, plain["indexed_fields"]))
    return Settings(**plain)
