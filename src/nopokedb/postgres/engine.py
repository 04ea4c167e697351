"""The PostgreSQL engine: joins the parts for one collection. See docs/engines.md for what it cannot do."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import sql

from nopokedb.agreement import check_fields, check_settings, settings_of
from nopokedb.backups import Backup
from nopokedb.embedding.embedder import Embedder
from nopokedb.engine import Answer, Moment, NamedSnapshot, Order, Query, SegmentStats, Stats, Write
from nopokedb.errors import CollectionNotFoundError, NotSupportedError, ReadOnlyError
from nopokedb.filters import Filter, Scalar, path_text
from nopokedb.filters import Path as FieldPath
from nopokedb.plan import Plan
from nopokedb.postgres import checking, reading, schema, vector_index
from nopokedb.postgres.codec import id_of, vectors_of
from nopokedb.postgres.connections import Connection, Connections
from nopokedb.postgres.explain import explained
from nopokedb.postgres.filter_sql import condition_of
from nopokedb.postgres.nearest import Nearest
from nopokedb.postgres.ranking import Ranking
from nopokedb.postgres.schema import Collection, Settings
from nopokedb.postgres.text import Indexer
from nopokedb.postgres.vector_index import VectorIndex
from nopokedb.postgres.writing import Results, Writer
from nopokedb.problems import Problem
from nopokedb.recall import Recall, measure
from nopokedb.records import Id, Part, Record, Vectors

T = TypeVar("T")
_OPENING_S = 5.0
"""An address that does not answer for so long is most likely wrong: a server that starts is back by then."""


class PostgresEngine:
    """One collection of a PostgreSQL database."""

    def __init__(
        self,
        uri: str,
        name: str,
        *,
        settings: Settings,
        dim: int | None,
        read_only: bool,
        timeout_s: float,
    ) -> None:
        self._connections = Connections(uri, collection=name, timeout_s=timeout_s, read_only=read_only)
        self.read_only = read_only
        self.shown = self._connections.shown
        try:
            self._collection = self._connections.persist(lambda: self._opened(name, settings, dim), _OPENING_S)
            stored = self._collection.settings
            self.dim, self.space = stored.dim, stored.space
            self.embed_name, self.embed_fingerprint = stored.embed_name, stored.embed_fingerprint
            # Made when a text is first written or asked for: it loads the analyzer's native library.
            self._indexer: Callable[[], Indexer] = functools.cache(lambda: Indexer(stored.text_language))
            self._index = VectorIndex(self._connections, self._collection)
            self._nearest = Nearest(self._collection, self._index)
            self._writer = Writer(self._connections, self._collection, self._indexer)
            if not read_only:
                self._connections.run(self._index.opened)
        except BaseException:
            self._connections.close()
            raise

    def _opened(self, name: str, given: Settings, dim: int | None) -> Collection:
        connection = self._connections.dedicated()
        try:
            schema.check_server(connection)
            found = schema.find(connection, name)
            if found is None:
                if dim is None:
                    raise schema.missing(name)
                if self.read_only:
                    raise CollectionNotFoundError(
                        f"expected a collection {name!r} to open with read_only=True, found none; create it without"
                    )
                vector_index.check_settings(given)
                found = schema.create(connection, name, given)
            if dim is None:
                space = given.space if given.space != "cosine" else found.settings.space
                given = replace(given, dim=found.settings.dim, space=space)
            check_settings(self.shown, found.settings, settings_of(given) | {"distributed": given.distributed})
            check_fields(self.shown, set(map(path_text, found.settings.indexed_fields)), given.indexed_fields)
            return found
        finally:
            connection.close()

    def settings_given(self) -> dict[str, Any]:
        """See `nopokedb.engine.Engine.settings_given`."""
        stored = self._read(lambda connection: schema.stored_settings(connection, self._collection))
        return settings_of(stored) | {"indexed_fields": list(map(path_text, stored.indexed_fields))}

    # --- writing -------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> Results:
        """See `nopokedb.engine.Engine.write`."""
        self._check_writable()
        results = self._writer.write(writes)
        self._index.written(sum(write.count for write in writes))
        return results

    def reserve_ids(self, count: int, above: int) -> list[int]:
        self._check_writable()
        return self._writer.reserve_ids(count, above)

    def create_index(self, path: tuple[str, ...]) -> None:
        self._check_writable()
        self._read(lambda connection: schema.set_indexed(connection, self._collection, path, wanted=True))

    def drop_index(self, path: tuple[str, ...]) -> bool:
        self._check_writable()
        return self._read(lambda connection: schema.set_indexed(connection, self._collection, path, wanted=False))

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.shown} was opened with read_only=True; open it without to write")

    # --- reading -------------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._connections.run(work)

    def _on_one_state(self, work: Callable[[Connection], T]) -> T:
        """All statements of `work` see the same state."""

        def together(connection: Connection) -> T:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return work(connection)

        return self._connections.run(together)

    def query(self, query: Query) -> list[Answer]:
        """See `nopokedb.engine.Moment.query`."""
        single = query.plain and query.vectors is not None and len(query.vectors) == 1
        if single and not self._collection.settings.distributed:
            return self._read(lambda connection: self._ranking(connection, query).answers())
        return self._on_one_state(lambda connection: self._ranking(connection, query).answers())

    def _ranking(self, connection: Connection, query: Query) -> Ranking:
        return Ranking(connection, self._collection, self._nearest, self._indexer, query)

    def explain(self, query: Query) -> Plan:
        return self._on_one_state(
            lambda connection: explained(
                connection, self._collection, self._nearest, query, lambda: self._ranking(connection, query)
            )
        )

    def measure_recall(self, query: Query, sample: int) -> Recall:
        return measure(self, query, sample)

    def answer_together(self, queries: Sequence[Query]) -> list[tuple[list[Answer], float]]:
        def answer(connection: Connection) -> list[tuple[list[Answer], float]]:
            found = []
            for query in queries:
                start = time.perf_counter()
                answers = self._ranking(connection, query).answers()
                found.append((answers, (time.perf_counter() - start) * 1e3))
            return found

        return self._on_one_state(answer)

    def sample(self, count: int, where: Filter | None) -> tuple[list[Id], Vectors]:
        condition = condition_of(where)
        statement = sql.SQL("SELECT id, vector FROM {} WHERE {} ORDER BY random() LIMIT {}").format(
            self._collection.records, condition.sql, sql.Literal(count)
        )
        rows = self._read(lambda connection: connection.execute(statement, condition.values, binary=True).fetchall())
        return [id_of(key) for key, _ in rows], vectors_of([vector for _, vector in rows], self.dim)

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        return self._read(lambda connection: reading.get(connection, self._collection, ids, include))

    def exists(self, id_: Id) -> bool:
        return self._read(lambda connection: reading.exists(connection, self._collection, id_))

    def count(self, where: Filter | None) -> int:
        return self._read(lambda connection: reading.count(connection, self._collection, where))

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        return reading.scan(self._connections, self._collection, where, order_by, after, limit, include)

    def facet(self, path: FieldPath, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]:
        return self._read(lambda connection: reading.facet(connection, self._collection, path, where, limit))

    # --- keeping -------------------------------------------------------------------------------------------

    def compact(self) -> int:
        """Vacuum the table, build the vector index where it is due, and drop old keys of batches."""
        self._check_writable()
        size = sql.SQL("SELECT pg_total_relation_size({}::regclass)").format(
            sql.Literal(f"nopokedb.records_{self._collection.number}")
        )
        before = self._read(lambda connection: connection.execute(size).fetchone())
        self._writer.fold()
        try:
            self._index.build(concurrently=False, vacuum=True)
        except psycopg.Error as error:
            raise self._connections.translated(error) from error
        after = self._read(lambda connection: connection.execute(size).fetchone())
        assert before is not None and after is not None
        freed: int = before[0] - after[0]
        return max(0, freed)

    def optimize(self, report: Callable[[int, int], object]) -> None:
        """`compact`, which is all that there is to put in order; PostgreSQL does not say how far it is."""
        count = self.count(None)
        report(0, count)
        self.compact()
        report(count, count)

    def save(self) -> None:
        """Every batch is durable when `write` returns: there is nothing to bring up to date."""
        self._check_writable()
        self._read(lambda connection: connection.execute("SELECT 1"))

    def refresh(self) -> None:
        """Every read sees the newest state that the server has: there is nothing to move forward to."""
        self._read(lambda connection: connection.execute("SELECT 1"))

    def check(self, deep: bool) -> list[Problem]:
        return self._on_one_state(
            lambda connection: checking.check(connection, self._collection, self._indexer, deep=deep)
        )

    def undo(self) -> int:
        self._not_supported("undo", "use point-in-time recovery")

    def backup(self, target: Path, since: int | Path | None) -> Backup:
        self._not_supported("backup", "use pg_basebackup or pg_dump, or `nopokedb copy` to a folder and back that up")

    def snapshot_create(self, name: str) -> NamedSnapshot:
        self._not_supported("snapshot", "use a backup of the server")

    def snapshots(self) -> list[NamedSnapshot]:
        self._not_supported("snapshots", "it keeps none")

    def at(self, name: str) -> tuple[Moment, NamedSnapshot]:
        self._not_supported("at", "it keeps no snapshots")

    def rollback(self, name: str) -> int:
        self._not_supported("rollback", "use point-in-time recovery")

    def reembedding(self, model: Embedder, snapshot: str | None) -> NoReturn:
        self._not_supported("reembed", "make a new collection with the other model, and add the texts to it")

    def drop_snapshot(self, name: str) -> None:
        self._not_supported("drop_snapshot", "it keeps no snapshots")

    def _not_supported(self, what: str, instead: str) -> NoReturn:
        self._connections.check_usable()
        raise NotSupportedError(f"{what} is not supported by the engine PostgreSQL: {instead}")

    def stats(self) -> Stats:
        number = self._collection.number
        statement = sql.SQL(
            "SELECT (SELECT count(*) FROM {records}), pg_total_relation_size({name}::regclass), "
            "pg_indexes_size({name}::regclass), coalesce(pg_relation_size(to_regclass({index})), 0), "
            "(SELECT coalesce(sum(count), 0)::bigint FROM {batches})"
        ).format(
            batches=self._collection.batches,
            records=self._collection.records,
            name=sql.Literal(f"nopokedb.records_{number}"),
            index=sql.Literal(f"nopokedb.vectors_{number}"),
        )

        def read(connection: Connection) -> Stats:
            row = connection.execute(statement).fetchone()
            assert row is not None
            count, disk, indexes, vectors, lsn = row
            settings = schema.stored_settings(connection, self._collection)
            curve = self._index.curve(connection)
            segments = []
            if curve is not None:
                length, recall = next((entry for entry in curve if entry[1] >= 0.99), curve[-1])
                segments.append(SegmentStats("hnsw", count, count, vectors, length, recall))
            return Stats(
                path=self.shown,
                dim=self.dim,
                space=self.space,
                index=settings.index,
                count=count,
                label_count=count,
                row_count=count,
                tail_count=0 if segments else count,
                segments=tuple(segments),
                sealing=self._index.building,
                lsn=lsn,
                checkpoint_lsn=lsn,
                log_bytes=0,
                disk_bytes=disk,
                index_bytes=indexes,
                cache_bytes=0,
                generation=1,
                reclaimable_bytes=0,
                indexed_fields=tuple(map(path_text, settings.indexed_fields)),
                read_only=self.read_only,
                notes=(),
                scrub_progress=1.0,
            )

        return self._read(read)

    def close(self) -> None:
        if not self._connections.closed:
            self._index.close()
            self._connections.close()
