"""`check`: whether what is derived agrees with what is true, and whether the statistics of texts add up.

That stored bytes are what was written is PostgreSQL's part: data checksums, and pg_amcheck for its own indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
from psycopg import sql

from nopokedb.postgres.codec import fields_of, id_of, unescape
from nopokedb.postgres.connections import Connection
from nopokedb.postgres.schema import Collection
from nopokedb.postgres.text import Indexer
from nopokedb.problems import Problem

_PAGE = 500


def check(
    connection: Connection, collection: Collection, indexer: Callable[[], Indexer], *, deep: bool
) -> list[Problem]:
    """The problems found, in a transaction of one state."""
    name = f"nopokedb.records_{collection.number}"
    found = [*_index(connection, collection, name), *_statistics(connection, collection)]
    if deep:
        found += _records(connection, collection, indexer, name)
    return found


def _index(connection: Connection, collection: Collection, name: str) -> Iterator[Problem]:
    row = connection.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)",
        (f"nopokedb.vectors_{collection.number}",),
    ).fetchone()
    if row is not None and not row[0]:
        yield Problem("index", "note", "the vector index was not finished; the next handle builds it anew", name)


def _statistics(connection: Connection, collection: Collection) -> Iterator[Problem]:
    noted, there = (
        connection.execute(statement).fetchone()
        for statement in (
            sql.SQL("SELECT coalesce(sum(documents), 0), coalesce(sum(length), 0) FROM {}").format(collection.batches),
            sql.SQL("SELECT count(length), coalesce(sum(length), 0) FROM {}").format(collection.records),
        )
    )
    if noted != there:
        assert noted is not None and there is not None
        yield Problem(
            "text",
            "warning",
            f"the statistics of texts say {noted[0]} texts of {noted[1]} terms, there are {there[0]} of {there[1]}; "
            "the table was changed by something else, and BM25 scores are off",
            f"nopokedb.batches_{collection.number}",
        )


def _records(
    connection: Connection, collection: Collection, indexer: Callable[[], Indexer], name: str
) -> Iterator[Problem]:
    for key, metadata, fields, document, places, has_vector in _rows(connection, collection):
        id_ = id_of(key)
        if metadata is None or not has_vector:
            yield Problem("record", "error", f"the record {id_!r} has no vector or no metadata", name)
            continue
        if fields is None or orjson.loads(fields_of(metadata)) != orjson.loads(fields):
            yield Problem("field_index", "warning", f"filters see other metadata than {id_!r} has", name)
        made = None if document is None else orjson.loads(indexer().index(unescape(document)).places)
        if made != (None if places is None else orjson.loads(places)):
            yield Problem("text", "warning", f"full-text search sees another text than {id_!r} has", name)


def _rows(connection: Connection, collection: Collection) -> Iterator[Any]:
    statement = sql.SQL(
        "SELECT id, metadata, fields, document, places, vector IS NOT NULL FROM {} WHERE id > %s ORDER BY id LIMIT {}"
    ).format(collection.records, sql.Literal(_PAGE))
    last = b""
    while rows := connection.execute(statement, (last,), binary=True).fetchall():
        yield from rows
        last = rows[-1][0]
