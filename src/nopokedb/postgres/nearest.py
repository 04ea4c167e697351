"""The nearest vectors: by the HNSW index, or by comparing all that pass the filter. Distances are always exact.

Candidates come from PostgreSQL in the order of its float32 distances. Their vectors come along, and are ordered again
by the kernel that every engine uses, in float64. Exact search fetches further candidates until float32 cannot tell
any that are left out from the last one that is returned, so ties are broken by id and not by chance.

With a filter the index goes on until enough candidates pass (iterative scans). Where PostgreSQL expects few to pass,
all of them are compared instead; so they are where the index gives up before there are enough.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from psycopg import sql
from psycopg.pq import TransactionStatus

from nopokedb.distances import Doubles, Floats, final_order, rounding_slack
from nopokedb.filters import Filter, filter_key
from nopokedb.postgres.codec import vector_bytes, vectors_of
from nopokedb.postgres.connections import Connection, Raw
from nopokedb.postgres.filter_sql import condition_of
from nopokedb.postgres.schema import Collection
from nopokedb.postgres.vector_index import MAX_EF, VectorIndex, distance_sql

_SPARE = 8
"""Candidates fetched beyond the wanted ones: most ties end within them."""
_PASSING_PER_VISITED = 2
"""So many vectors are compared in the time in which the index visits one of its candidates."""
_ESTIMATES = 256
_ESTIMATE_AGE_S = 30.0


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a query will be answered."""

    kind: str
    """"graph" or "exact"."""
    why: str
    ef: int | None = None


@dataclass(slots=True)
class Near:
    """The candidates of a query, best first: rows of (id, vector, the parts that were asked for)."""

    rows: list[Any]
    vectors: Floats
    order: Doubles
    """What they are ordered by, as `distances.final_order` says."""


class Nearest:
    """Vector search in one collection."""

    def __init__(self, collection: Collection, index: VectorIndex) -> None:
        self._collection = collection
        self._index = index
        self._space = collection.settings.space
        self._dim = collection.settings.dim
        self._estimates: dict[bytes, tuple[float, float]] = {}
        """How many records pass a filter, estimated; and when."""
        self._statements: dict[tuple[str, int, str, str], bytes] = {}
        """Composing a statement takes as long as sending it."""
        self._lengths: weakref.WeakKeyDictionary[Connection, int] = weakref.WeakKeyDictionary()
        """The length of list that each session is set to."""

    def find(
        self,
        connection: Connection,
        vector: Floats,
        length: int,
        ef: int | None,
        recall: float,
        where: Filter | None,
        columns: sql.Composable,
    ) -> Near:
        """The `length` nearest, with all that tie with the last."""
        strategy = self.strategy(connection, length, ef, recall, where)
        if strategy.kind == "graph":
            assert strategy.ef is not None
            self.set_length(connection, strategy.ef)
            statement, values = self.statement(strategy, vector, length + _SPARE, where, columns)
            rows = connection.execute(statement, values, binary=True).fetchall()
            if len(rows) >= length:
                return self._ordered(vector, rows, length)
        return self._exact(connection, vector, length, where, columns)

    def strategy(
        self, connection: Connection, length: int, ef: int | None, recall: float, where: Filter | None
    ) -> Strategy:
        """The cheapest way that reaches what was asked for."""
        curve = self._index.curve(connection)
        if curve is None:
            return Strategy("exact", "there is no index")
        if ef is None and recall >= 1:
            return Strategy("exact", "exact search was asked for")
        wanted = self._index.length_for(curve, length, recall) if ef is None else max(ef, length + _SPARE)
        if wanted is None or wanted > MAX_EF:
            return Strategy("exact", "no list of the index is as long as this takes")
        if where is not None and self._few_pass(connection, where, length, wanted):
            return Strategy("exact", "few records are expected to pass the filter")
        why = "as long as asked for" if ef is not None else "the shortest list that reached the recall"
        return Strategy("graph", why, wanted)

    def statement(
        self, strategy: Strategy, vector: Floats, length: int, where: Filter | None, columns: sql.Composable
    ) -> tuple[bytes, list[Any]]:
        """The statement of a strategy and what it binds; exact ones have the distance as their last column."""
        condition = condition_of(where)
        shape = (strategy.kind, length, columns.as_string(), condition.sql.as_string())
        text = self._statements.get(shape)
        if text is None:
            if len(self._statements) >= _ESTIMATES:
                self._statements.clear()
            text = self._statements[shape] = self._text(strategy, length, condition.sql, columns)
        asked = Raw(vector_bytes(np.ascontiguousarray(vector, np.float32)[None, :])[0])
        if strategy.kind == "graph":
            return text, [*condition.values, asked]
        return text, [asked, *condition.values]

    def _text(self, strategy: Strategy, length: int, condition: sql.Composable, columns: sql.Composable) -> bytes:
        names: dict[str, sql.Composable] = {
            "columns": columns,
            "records": self._collection.records,
            "condition": condition,
            "distance": distance_sql(self._collection.settings, indexed=strategy.kind == "graph"),
            "limit": sql.Literal(length),
        }
        if strategy.kind == "graph":
            # Only a bare distance with a limit uses the index.
            text = sql.SQL(
                "SELECT id, vector{columns} FROM {records} WHERE {condition} ORDER BY {distance} LIMIT {limit}"
            )
        else:
            # Adding nothing keeps the index out.
            text = sql.SQL(
                "SELECT id, vector{columns}, ({distance}) + 0 AS far FROM {records} WHERE {condition} "
                "ORDER BY far, id LIMIT {limit}"
            )
        return text.format(**names).as_bytes()

    def set_length(self, connection: Connection, ef: int) -> None:
        """Set the length of the index's list for what follows in this session, or this transaction."""
        if self._collection.settings.distributed:
            # Workers get the settings of a transaction only.
            connection.execute("SET LOCAL citus.propagate_set_commands = 'local'")
            connection.execute("SET LOCAL hnsw.iterative_scan = 'relaxed_order'")
            connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(ef)))
        elif self._lengths.get(connection) != ef:
            self._lengths.pop(connection, None)  # a transaction that fails takes its settings back
            connection.execute("SELECT set_config('hnsw.ef_search', %s, false)", (str(ef),))
            if connection.info.transaction_status == TransactionStatus.IDLE:
                self._lengths[connection] = ef

    def _few_pass(self, connection: Connection, where: Filter, length: int, ef: int) -> bool:
        """Whether comparing all that pass is expected to be cheaper than to go on in the index until enough do."""
        if self._collection.settings.distributed:
            return False  # the plan of a distributed table does not say
        passing = max(self._passing(connection, where), 1.0)
        visited = max(ef, (length + _SPARE) * self._passing(connection, None) / passing)
        return passing <= _PASSING_PER_VISITED * visited

    def _passing(self, connection: Connection, where: Filter | None) -> float:
        """How many records PostgreSQL expects to pass a filter."""
        key = b"" if where is None else filter_key(where)
        known = self._estimates.get(key)
        if known is None or time.monotonic() - known[1] > _ESTIMATE_AGE_S:
            condition = condition_of(where)
            statement = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE {}").format(
                self._collection.records, condition.sql
            )
            row = connection.execute(statement, condition.values, binary=True).fetchone()
            assert row is not None
            if len(self._estimates) >= _ESTIMATES:
                self._estimates.clear()
            known = self._estimates[key] = orjson.loads(row[0])[0]["Plan"]["Plan Rows"], time.monotonic()
        return known[0]

    def order(self, vector: Floats, vectors: Floats) -> Doubles:
        """What candidates are ordered by."""
        return final_order(self._space, vector, vectors)

    # --- inside --------------------------------------------------------------------------------------------

    def _exact(
        self, connection: Connection, vector: Floats, length: int, where: Filter | None, columns: sql.Composable
    ) -> Near:
        size = length + _SPARE
        while True:
            statement, values = self.statement(Strategy("exact", ""), vector, size, where, columns)
            rows = connection.execute(statement, values, binary=True).fetchall()
            near = self._ordered(vector, rows, length)
            if len(rows) < size or self._settled(vector, near, rows[-1][-1], length):
                return near
            size *= 4

    def _settled(self, vector: Floats, near: Near, far: float, length: int) -> bool:
        """Whether all that are not fetched are farther than the last wanted one, beyond all rounding."""
        last = float(near.order[length - 1])
        if self._space == "l2":
            far *= far
        longest = float(np.sqrt(np.einsum("ij,ij->i", near.vectors, near.vectors, dtype=np.float64).max()))
        slack = rounding_slack(self._space, vector, longest) + 1e-6 * abs(last)
        return far - slack > last

    def _ordered(self, vector: Floats, rows: Sequence[Any], length: int) -> Near:
        if not rows:
            return Near([], np.empty((0, self._dim), np.float32), np.empty(0))
        vectors = vectors_of([row[1] for row in rows], self._dim)
        values = self.order(vector, vectors)
        order = sorted(range(len(rows)), key=lambda at: (values[at], rows[at][0]))
        if len(order) > length:
            last = values[order[length - 1]]
            order = [at for place, at in enumerate(order) if place < length or values[at] <= last]
        return Near([rows[at] for at in order], vectors[order], values[order])
