"""The statements of writing.py, one text each, with the tables of a collection put in."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from nopokedb.postgres.schema import Collection

COLUMNS = ("id", "vector", "metadata", "fields", "document", "terms", "places", "length", "norm", "computed")
BINARY_TYPES = (*["bytea"] * 7, "int4", "int4", "bool")
"""What COPY is told of the columns. `bytea` goes as it is, so the server reads each value as the column's type."""


def statements(collection: Collection) -> dict[str, sql.Composed]:
    """All statements, by name."""
    names: dict[str, sql.Composable] = {
        "records": collection.records,
        "batches": collection.batches,
        "columns": sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
        "holes": sql.SQL(", ").join([sql.Placeholder()] * len(COLUMNS)),
        "changes": sql.SQL(", ").join(
            sql.SQL("{0} = coalesce(EXCLUDED.{0}, stored.{0})").format(sql.Identifier(name)) for name in COLUMNS[1:]
        ),
        "ids": sql.Literal(f"nopokedb.ids_{collection.number}"),
        "stage": sql.Identifier(f"nopokedb_stage_{collection.number}"),
    }
    return {name: sql.SQL(text).format(**names) for name, text in _STATEMENTS.items()}


_STATEMENTS: dict[str, LiteralString] = {
    "done": "SELECT added FROM {batches} WHERE key = %s",
    "note": "INSERT INTO {batches} (key, documents, length) VALUES (%s, %s, %s)",
    "insert": "INSERT INTO {records} ({columns}) VALUES ({holes})",
    "add one": (
        "WITH made AS (INSERT INTO {records} ({columns}) VALUES ('\\x00'::bytea || "
        "int8send(nextval({ids}::regclass) # (-9223372036854775808)), %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "RETURNING id) INSERT INTO {batches} (key, added, documents, length) SELECT %s, id, %s, %s FROM made "
        "RETURNING added"
    ),
    "copy": "COPY {records} ({columns}) FROM STDIN (FORMAT binary)",
    "lock": "SELECT id, metadata, length, computed FROM {records} WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
    "look": "SELECT id, metadata, length, computed FROM {records} WHERE id = ANY(%s) ORDER BY id",
    "upsert": (
        "INSERT INTO {records} AS stored ({columns}) VALUES ({holes}) ON CONFLICT (id) DO UPDATE SET {changes} "
        "RETURNING (xmax = 0)::int"
    ),
    "stage": "CREATE TEMP TABLE IF NOT EXISTS {stage} (LIKE {records}) ON COMMIT DELETE ROWS",
    "empty stage": "DELETE FROM {stage}",
    "copy to stage": "COPY {stage} ({columns}) FROM STDIN (FORMAT binary)",
    "upsert from stage": (
        "WITH done AS (INSERT INTO {records} AS stored ({columns}) SELECT {columns} FROM {stage} "
        "ON CONFLICT (id) DO UPDATE SET {changes} RETURNING (xmax = 0)::int AS added) "
        "SELECT coalesce(sum(added), 0)::bigint FROM done"
    ),
    "take ids": "SELECT nextval({ids}::regclass) FROM generate_series(1, %s)",
    "raise counter": (
        "SELECT setval({ids}::regclass, %s) FROM (SELECT pg_sequence_last_value({ids}::regclass) AS last) AS counter "
        "WHERE last IS NULL OR last < %s"
    ),
    "fold": (
        "WITH old AS (DELETE FROM {batches} WHERE at < now() - %s::interval RETURNING count, documents, length) "
        "INSERT INTO {batches} (count, documents, length) SELECT sum(count), sum(documents), sum(length) FROM old "
        "HAVING count(*) > 0"
    ),
}
