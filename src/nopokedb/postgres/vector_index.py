"""The HNSW index of a collection: when it is built, by whom, and how long its lists have to be.

Building after the load is several times faster than adding to a finished index, and few records need none. So under
index="auto" a background thread builds it once there are `INDEX_ROWS` records, without keeping writers out, and
`compact` builds it at once. Then it is measured: queries between stored vectors against exact search, for the
lengths of list in `_LENGTHS`. A query takes the shortest one that reached its recall, and if none did, exact search.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import numpy as np
import orjson
import psycopg
from psycopg import sql

from nopokedb.errors import NoPokeError, NotSupportedError
from nopokedb.postgres.codec import vector_bytes, vectors_of
from nopokedb.postgres.connections import Connection, Connections, Raw
from nopokedb.postgres.schema import Collection, Settings

_log = logging.getLogger("nopokedb")

INDEX_ROWS = 10_000
_ASKED_ROWS = 100
"""Where a graph was asked for. Fewer records cannot be measured."""
MAX_EF = 1_000
"""Of pgvector."""
_LENGTHS = (40, 80, 160, 320, 640, MAX_EF)
_PLAIN_DIM, _HALF_DIM = 2_000, 4_000
"""pgvector indexes vectors of so many dimensions, and halves of so many."""
_QUERIES = 128
_NEIGHBOURS = 10
_LOOK_EVERY_S = 5.0
_WORK_MEMORY = "256MB"
_LOCK_PAUSE_S = 0.1
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
_OPERATOR_CLASSES = {"cosine": "cosine_ops", "l2": "l2_ops", "ip": "ip_ops"}


def check_settings(settings: Settings) -> None:
    """Refuse what pgvector has no index for."""
    if settings.index == "scan":
        raise NotSupportedError(
            "expected index to be 'auto', 'exact', 'graph' or 'hnsw' with the engine PostgreSQL, got 'scan': it has no "
            "scan of short codes"
        )
    m, ef = settings.M, settings.ef_construction
    if m > 100 or not max(4, 2 * m) <= ef <= 1_000:
        raise NotSupportedError(
            "expected M of at most 100 and ef_construction from 2 * M to 1000 with the engine PostgreSQL, got "
            f"M={m} and ef_construction={ef}"
        )
    if settings.index in ("hnsw", "graph") and settings.dim > _HALF_DIM:
        raise NotSupportedError(
            f"expected dim of at most {_HALF_DIM} with index={settings.index!r} and the engine PostgreSQL, got "
            f"{settings.dim}"
        )


def distance_sql(settings: Settings, *, indexed: bool) -> sql.Composable:
    """The distance between the column and a bound vector, as the index has it or as it is exactly."""
    operator = sql.SQL(OPERATORS[settings.space])
    if indexed and settings.dim > _PLAIN_DIM:
        half = sql.SQL("halfvec({})").format(sql.Literal(settings.dim))
        return sql.SQL("vector::{half} {operator} %s::vector::{half}").format(half=half, operator=operator)
    return sql.SQL("vector {} %s").format(operator)


class VectorIndex:
    """The index of one handle's collection."""

    def __init__(self, connections: Connections, collection: Collection) -> None:
        self._connections = connections
        self._collection = collection
        self._name = sql.Identifier(f"vectors_{collection.number}")
        self._curve: list[tuple[int, float]] | None = None
        """Lengths of list and the recall that each reached; None where there is no index."""
        self._looked = -_LOOK_EVERY_S
        self._unseen = 0
        self._thread: threading.Thread | None = None
        self._building: Connection | None = None
        self._lock = threading.Lock()

    # --- use -----------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether this collection is to have an index once it is large."""
        settings = self._collection.settings
        return settings.index != "exact" and settings.dim <= _HALF_DIM

    @property
    def _threshold(self) -> int:
        """From so many records on there is an index."""
        return INDEX_ROWS if self._collection.settings.index == "auto" else _ASKED_ROWS

    @property
    def building(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def curve(self, connection: Connection) -> list[tuple[int, float]] | None:
        """What is known of the index; None where there is none. Another handle's index is seen after a while."""
        if self.wanted and self._curve is None and time.monotonic() - self._looked >= _LOOK_EVERY_S:
            self._look(connection)
        return self._curve

    def length_for(self, curve: Sequence[tuple[int, float]], k: int, recall: float) -> int | None:
        """The length of list that reaches the recall; None if none does."""
        for length, reached in curve:
            if reached >= recall:
                length = max(length, 4 * k)
                return length if length <= MAX_EF else None
        return None

    def written(self, count: int) -> None:
        """Records were written: build the index if there are enough of them by now."""
        if not self.wanted or self._curve is not None or self.building:
            return
        self._unseen += count
        if self._unseen >= self._threshold // 10:
            self._unseen = 0
            if self._connections.run(self._is_due):
                self.start()

    def start(self) -> None:
        """Build in the background."""
        with self._lock:
            if not self.building and not self._connections.closed:
                self._thread = threading.Thread(target=self._build_quietly, name="nopokedb index", daemon=True)
                self._thread.start()

    def opened(self, connection: Connection) -> None:
        """A handle was opened: what an earlier one left undone is begun again."""
        self._look(connection)
        if self._curve is None and self._is_due(connection):
            self.start()

    def close(self) -> None:
        """End a build that runs. What it has made so far is dropped by the next one."""
        thread = self._thread
        if thread is None:
            return
        while thread.is_alive():
            building = self._building
            if building is not None:
                building.cancel_safe()
            thread.join(0.1)

    # --- building ------------------------------------------------------------------------------------------

    def build(self, *, concurrently: bool, vacuum: bool = False) -> None:
        """Build the index where it is wanted, missing, and there are at least so many records. A vacuum goes first
        where one is asked for: beside a build that keeps nobody out it would be a deadlock."""
        connection = self._connections.dedicated()
        try:
            self._building = connection
            connection.execute("SET statement_timeout = 0")
            connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", (_WORK_MEMORY,))
            if not self._lock_builds(connection, wait=not concurrently):
                return
            if vacuum:
                connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(self._collection.records))
            if self.wanted:
                self._build_on(connection, concurrently=concurrently)
        finally:
            self._building = None
            connection.close()

    def _lock_builds(self, connection: Connection, *, wait: bool) -> bool:
        """A session's lock, so that one handle builds at a time. Asked for again and again: a statement that waits
        would hold up the very build that it waits for."""
        while True:
            row = connection.execute("SELECT pg_try_advisory_lock(%s, 2)", (self._collection.number,)).fetchone()
            if (row and row[0]) or not wait:
                return bool(row and row[0])
            time.sleep(_LOCK_PAUSE_S)

    def _build_on(self, connection: Connection, *, concurrently: bool) -> None:
        valid = self._state(connection)
        if not valid:
            if not self._has_rows(connection, self._threshold):
                return
            if valid is not None:
                connection.execute(sql.SQL("DROP INDEX nopokedb.{}").format(self._name))
            self._create(connection, concurrently=concurrently)
        if not valid or not self._stored_curve(connection):
            connection.execute(sql.SQL("ANALYZE {}").format(self._collection.records))
            self._measure(connection)
        self._look(connection)

    def _build_quietly(self) -> None:
        try:
            self.build(concurrently=True)
        except (psycopg.Error, NoPokeError) as error:
            if not self._connections.closed:  # queries are exact without it; the next handle tries again
                _log.warning(
                    "%s: the vector index was not built: %s",
                    self._collection.name,
                    error,
                    extra={"event": "build_failed"},
                )

    def _create(self, connection: Connection, *, concurrently: bool) -> None:
        settings = self._collection.settings
        family = _OPERATOR_CLASSES[settings.space]
        if settings.dim > _PLAIN_DIM:
            column = sql.SQL("(vector::halfvec({})) {}").format(
                sql.Literal(settings.dim), sql.Identifier(f"halfvec_{family}")
            )
        else:
            column = sql.SQL("vector {}").format(sql.Identifier(f"vector_{family}"))
        connection.execute(
            sql.SQL("CREATE INDEX {} {} ON {} USING hnsw ({}) WITH (m = {}, ef_construction = {})").format(
                sql.SQL("CONCURRENTLY" if concurrently else ""),
                self._name,
                self._collection.records,
                column,
                sql.Literal(settings.M),
                sql.Literal(settings.ef_construction),
            )
        )

    def _measure(self, connection: Connection) -> None:
        """Find out what recall each length of list reaches."""
        queries = self._queries(connection)
        exact = distance_sql(self._collection.settings, indexed=False)
        by_index = distance_sql(self._collection.settings, indexed=True)
        records = self._collection.records
        true = sql.SQL("SELECT ({} ) + 0 FROM {} ORDER BY 1 LIMIT {}").format(exact, records, sql.Literal(_NEIGHBOURS))
        found = sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT {}").format(
            exact, records, by_index, sql.Literal(_NEIGHBOURS)
        )
        limits = [connection.execute(true, (query,)).fetchall()[-1][0] for query in queries]
        curve = []
        for length in _LENGTHS:
            shares = []
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(length)))
                for query, limit in zip(queries, limits, strict=True):
                    near = connection.execute(found, (query, query)).fetchall()
                    shares.append(sum(distance <= limit for (distance,) in near) / len(near))
            # The mean less its standard error: a sample that was lucky promises no more than it can.
            error = float(np.std(shares)) / len(shares) ** 0.5
            curve.append((length, float(np.mean(shares)) - error))
        encoded = orjson.dumps(curve).decode()
        connection.execute(
            "UPDATE nopokedb.collections SET curve = %s WHERE number = %s", (encoded, self._collection.number)
        )

    def _queries(self, connection: Connection) -> list[Raw]:
        """Points between two stored vectors, in the middle or nearer to one: their neighbours are harder to find than
        those of stored ones."""
        rows = connection.execute(
            sql.SQL("SELECT vector FROM {} ORDER BY random() LIMIT %s").format(self._collection.records),
            (_QUERIES + 1,),
            binary=True,
        ).fetchall()
        vectors = vectors_of([vector for (vector,) in rows], self._collection.settings.dim)
        if self._collection.settings.space == "cosine":
            vectors = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None].astype(np.float32)
        near = np.where(np.arange(len(vectors) - 1) % 2, 0.7, 0.5).astype(np.float32)[:, None]
        points = vectors[1:] * near + vectors[:-1] * (1 - near)
        return [Raw(point) for point in vector_bytes(points.astype(np.float32))]

    # --- state ---------------------------------------------------------------------------------------------

    def _look(self, connection: Connection) -> None:
        self._looked = time.monotonic()
        self._curve = self._stored_curve(connection) if self._state(connection) else None

    def _stored_curve(self, connection: Connection) -> list[tuple[int, float]] | None:
        row = connection.execute(
            "SELECT curve FROM nopokedb.collections WHERE number = %s", (self._collection.number,), binary=True
        ).fetchone()
        return None if row is None or row[0] is None else [tuple(entry) for entry in orjson.loads(row[0])]

    def _state(self, connection: Connection) -> bool | None:
        """Whether the index is whole; None if there is none."""
        row = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)",
            (f"nopokedb.vectors_{self._collection.number}",),
        ).fetchone()
        return None if row is None else bool(row[0])

    def _is_due(self, connection: Connection) -> bool:
        return self.wanted and self._has_rows(connection, self._threshold)

    def _has_rows(self, connection: Connection, count: int) -> bool:
        statement = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS first").format(
            self._collection.records, sql.Literal(count)
        )
        row = connection.execute(statement).fetchone()
        return bool(row and row[0] >= count)
