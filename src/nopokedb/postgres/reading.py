"""Reads of records: by id, counted, in order, by value."""

from __future__ import annotations

import base64
import binascii
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from nopokedb.engine import Order
from nopokedb.errors import InvalidInputError
from nopokedb.filters import Filter, Path, Scalar
from nopokedb.metadata_json import decode_metadata
from nopokedb.postgres.codec import escape, id_of, key_of, shown_scalar, unescape, vectors_of
from nopokedb.postgres.connections import Connection, Connections
from nopokedb.postgres.filter_sql import Condition, condition_of, json_path
from nopokedb.postgres.schema import Collection
from nopokedb.records import Id, Part, Record, check_id

_PAGE = 1_000
_MISSING = 3
PART_COLUMNS: dict[str, str] = {"metadata": "metadata", "vector": "vector", "text": "document"}
"""The column of each part of a record."""


def part_columns(include: Sequence[Part]) -> sql.Composable:
    """The columns of these parts, each with a comma before it."""
    return sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(PART_COLUMNS[part])) for part in include)


def get(connection: Connection, collection: Collection, ids: Sequence[Id], include: Sequence[Part]) -> list[Any]:
    """The record of each id, None where there is none."""
    keys = [key_of(id_) for id_ in ids]
    statement = sql.SQL("SELECT id{} FROM {} WHERE id = ANY(%s)").format(part_columns(include), collection.records)
    rows = connection.execute(statement, (keys,), binary=True).fetchall()
    found = {row[0]: row for row in rows}
    # Made for each place anew: what a caller does to one record is not done to another.
    return [None if key not in found else record_of(found[key], include, collection.settings.dim) for key in keys]


def exists(connection: Connection, collection: Collection, id_: Id) -> bool:
    statement = sql.SQL("SELECT 1 FROM {} WHERE id = %s").format(collection.records)
    return connection.execute(statement, (key_of(id_),)).fetchone() is not None


def count(connection: Connection, collection: Collection, where: Filter | None) -> int:
    condition = condition_of(where)
    statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(collection.records, condition.sql)
    row = connection.execute(statement, condition.values).fetchone()
    assert row is not None
    return int(row[0])


def record_of(row: Sequence[Any], include: Sequence[Part], dim: int, cursor: str | None = None) -> Record:
    """A record of its id and the columns of its parts."""
    parts = dict(zip(include, row[1:], strict=False))
    text = parts.get("text")
    return Record(
        id_of(row[0]),
        decode_metadata(parts["metadata"]) if "metadata" in parts else None,
        vectors_of([parts["vector"]], dim)[0] if "vector" in parts else None,
        None if text is None else unescape(text),
        cursor,
    )


# --- scans --------------------------------------------------------------------------------------------------


class Scan(Iterator[Record]):
    """The records of one state, page by page, from a cursor on the server. A scan of one page leaves nothing open."""

    def __init__(
        self,
        connections: Connections,
        statement: sql.Composed,
        values: Sequence[Any],
        include: Sequence[Part],
        dim: int,
        *,
        ordered: bool,
    ) -> None:
        self._connections = connections
        self._include = include
        self._dim = dim
        self._ordered = ordered
        self._cursor, self._page = connections.persist(lambda: self._begin(statement, values))

    def _begin(
        self, statement: sql.Composed, values: Sequence[Any]
    ) -> tuple[psycopg.Cursor[TupleRow], Iterator[TupleRow]]:
        """The state is that of the first statement: now, not when the first record is asked for."""
        connection = self._connections.take()
        self._give_back = weakref.finalize(self, self._connections.give_back, connection)
        try:
            cursor = connection.cursor(binary=True)
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(sql.SQL("DECLARE scan NO SCROLL CURSOR FOR {}").format(statement), values)
            return cursor, self._fetch(cursor)
        except BaseException:
            self._give_back()
            raise

    def _fetch(self, cursor: psycopg.Cursor[TupleRow]) -> Iterator[TupleRow]:
        rows = cursor.execute(sql.SQL("FETCH {} FROM scan").format(sql.Literal(_PAGE)), binary=True).fetchall()
        if len(rows) < _PAGE:
            cursor.execute("COMMIT")
            self._give_back()
        return iter(rows)

    def __next__(self) -> Record:
        row = next(self._page, None)
        if row is None:
            if not self._give_back.alive:
                raise StopIteration
            try:
                self._page = self._fetch(self._cursor)
            except psycopg.Error as error:  # the state is lost with the connection: no other has it
                self._give_back()
                raise self._connections.translated(error) from error
            return next(self)
        if not self._ordered:
            return record_of(row, self._include, self._dim)
        *parts, rank, number, text = row
        return record_of(parts, self._include, self._dim, _encode_cursor(rank, number, text, id_of(row[0])))


def scan(
    connections: Connections,
    collection: Collection,
    where: Filter | None,
    order: Order | None,
    after: Id | str | None,
    limit: int | None,
    include: Sequence[Part],
) -> Iterator[Record]:
    """See `nopokedb.engine.Moment.scan`."""
    condition = condition_of(where)
    start = Condition(sql.SQL("true"))
    source: sql.Composable = collection.records
    values: list[Any] = []
    keys: sql.Composable = sql.SQL("")
    by: sql.Composable = sql.SQL("id")
    path = () if order is None else order.path
    if order is not None and path is None:
        # The order of ids is that of their bytes.
        keys = sql.SQL(", get_byte(id, 0), NULL, NULL")
        by = sql.SQL("id DESC" if order.descending else "id")
        if after is not None:
            further = sql.SQL("id < %s" if order.descending else "id > %s")
            start = Condition(further, [key_of(_decode_cursor(after)[2])])
    elif order is not None and path is not None:
        source, values = _with_sort_key(collection, path)
        keys = sql.SQL(", rank, number, string")
        direction = sql.SQL(" DESC" if order.descending else "")
        by = sql.SQL('rank = 3, rank{0}, number{0}, string COLLATE "C"{0}, id').format(direction)
        if after is not None:
            start = _behind(_decode_cursor(after), order.descending)
    elif after is not None:
        start = Condition(sql.SQL("id > %s"), [key_of(after)])
    statement = sql.SQL("SELECT id{}{} FROM {} WHERE ({}) AND {} ORDER BY {}{}").format(
        part_columns(include),
        keys,
        source,
        condition.sql,
        start.sql,
        by,
        sql.SQL("") if limit is None else sql.SQL(" LIMIT {}").format(sql.Literal(limit)),
    )
    values += [*condition.values, *start.values]
    return Scan(connections, statement, values, include, collection.settings.dim, ordered=order is not None)


def _with_sort_key(collection: Collection, path: Sequence[str]) -> tuple[sql.Composable, list[Any]]:
    """The records with what they are sorted by: the kind of the first value of the field, and its value."""
    key = sql.SQL(
        "SELECT CASE jsonb_typeof(first) WHEN 'number' THEN 0 WHEN 'string' THEN 1 WHEN 'boolean' THEN 2 ELSE 3 "
        "END AS rank, CASE jsonb_typeof(first) WHEN 'number' THEN first::numeric WHEN 'boolean' THEN "
        "first::boolean::int ELSE 0 END AS number, CASE jsonb_typeof(first) WHEN 'string' THEN first #>> '{{}}' "
        "ELSE '' END AS string FROM (SELECT jsonb_path_query_first(fields, %s::jsonpath) AS first) AS found"
    ).format()
    kinds = " || ".join(f'@.type() == "{kind}"' for kind in ("number", "string", "boolean"))
    source = sql.SQL("({} CROSS JOIN LATERAL ({}) AS key)").format(collection.records, key)
    return source, [f"{json_path(path)} ? ({kinds})"]


def _behind(mark: tuple[int, Any, Id], descending: bool) -> Condition:
    rank, value, id_ = mark
    key = key_of(id_)
    if rank == _MISSING:
        return Condition(sql.SQL("(rank = 3 AND id > %s)"), [key])
    text = isinstance(value, str)
    place = (
        rank,
        "0" if text else repr(int(value) if isinstance(value, bool) else value),
        escape(value) if text else "",
    )
    here = sql.SQL('(rank, number, string COLLATE "C")')
    there = sql.SQL("(%s::int, %s::numeric, %s::text)")
    if descending:
        further = sql.SQL("(rank = 3 OR {} < {})").format(here, there)
    else:
        further = sql.SQL("{} > {}").format(here, there)
    return Condition(sql.SQL("({} OR ({} = {} AND id > %s))").format(further, here, there), [*place, *place, key])


def _encode_cursor(rank: int, number: Any, text: str | None, id_: Id) -> str:
    """As the embedded engine writes it: the kind, the value, and the id."""
    if text is None:
        value: Any = id_
    elif rank == 0:
        value = int(number) if number == int(number) and abs(number) < 2**63 else float(number)
    else:
        value = {1: unescape(text), 2: bool(number), _MISSING: 0}[rank]
    return base64.urlsafe_b64encode(orjson.dumps([rank, value, id_])).decode()


def _decode_cursor(cursor: Id | str) -> tuple[int, Any, Id]:
    try:
        rank, value, id_ = orjson.loads(base64.urlsafe_b64decode(str(cursor)))
        kinds: dict[int, Any] = {0: (int, float), 1: str, 2: bool, _MISSING: int}
        if not isinstance(value, kinds[rank]) or (rank != 2 and isinstance(value, bool)):
            raise ValueError("another kind of value")
        return rank, value, check_id(id_)
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise InvalidInputError(
            f"expected after to be the cursor of a record from a scan with order_by, got {cursor!r:.80} ({error})"
        ) from None


# --- values -------------------------------------------------------------------------------------------------


def facet(
    connection: Connection, collection: Collection, path: Path, where: Filter | None, limit: int
) -> list[tuple[Scalar, int]]:
    """How many records have each value."""
    condition = condition_of(where)
    if path is None:
        ranked = sql.SQL("SELECT id, 1 FROM {} WHERE {} ORDER BY id LIMIT %s").format(collection.records, condition.sql)
        rows = connection.execute(ranked, [*condition.values, limit], binary=True).fetchall()
        return [(id_of(key), number) for key, number in rows]
    statement = sql.SQL(
        "SELECT value, count(*) AS number FROM (SELECT DISTINCT id, value FROM {records} CROSS JOIN LATERAL "
        "jsonb_path_query(fields, %s::jsonpath) AS value WHERE ({condition}) AND jsonb_typeof(value) IN "
        "('string', 'number', 'boolean')) AS found GROUP BY value ORDER BY number DESC, CASE jsonb_typeof(value) "
        "WHEN 'number' THEN 0 WHEN 'string' THEN 1 ELSE 2 END, CASE jsonb_typeof(value) WHEN 'string' THEN NULL "
        "ELSE value END, (value #>> '{{}}') COLLATE \"C\" LIMIT %s"
    ).format(records=collection.records, condition=condition.sql)
    values = [f"{json_path(path)}[*]", *condition.values, limit]
    return [(shown_scalar(value), number) for value, number in connection.execute(statement, values, binary=True)]
