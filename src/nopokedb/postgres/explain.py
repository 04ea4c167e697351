"""`explain`: the query is answered, and PostgreSQL says what it did (EXPLAIN ANALYZE)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from psycopg import sql

from nopokedb.engine import Query
from nopokedb.filters import each_test, text_of
from nopokedb.plan import FilterPlan, Plan, Search, Stage, TestPlan
from nopokedb.postgres import reading
from nopokedb.postgres.connections import Connection
from nopokedb.postgres.nearest import Nearest
from nopokedb.postgres.ranking import Ranking
from nopokedb.postgres.schema import Collection
from nopokedb.records import Group


def explained(
    connection: Connection, collection: Collection, nearest: Nearest, query: Query, ranking: Callable[[], Ranking]
) -> Plan:
    """Answer a query, and say how. The vector search is run once more to be explained; its time is not counted."""
    start = time.perf_counter()
    made = ranking()
    answer = made.answers()[0]
    total = (time.perf_counter() - start) * 1e3
    stages = [Stage(name, ms) for name, ms in made.stages.items()]
    stages.append(Stage("rest", max(0.0, total - sum(stage.ms for stage in stages))))
    count = reading.count(connection, collection, None)
    by_vector = made.vectors is not None
    return Plan(
        "vector" if not query.texts else "hybrid" if by_vector else "text",
        query.k,
        query.recall if by_vector and query.ef is None else None,
        count,
        _filter_plan(connection, collection, query, count),
        tuple(_searches(connection, nearest, query, made, count)) if by_vector else (),
        tuple(stages),
        sum(len(item.hits) if isinstance(item, Group) else 1 for item in answer),
        total,
    )


def _filter_plan(connection: Connection, collection: Collection, query: Query, count: int) -> FilterPlan | None:
    if query.where is None:
        return None
    passing = reading.count(connection, collection, query.where)
    tests = [
        TestPlan(text_of(test), "index", reading.count(connection, collection, test)) for test in each_test(query.where)
    ]
    return FilterPlan(passing, passing / count if count else 0.0, False, tuple(tests))


def _searches(connection: Connection, nearest: Nearest, query: Query, made: Ranking, count: int) -> Iterator[Search]:
    assert made.vectors is not None
    length = made.lengths[0] if made.lengths else query.k
    strategy = nearest.strategy(connection, length, query.ef, query.recall, query.where)
    if strategy.ef is not None:
        nearest.set_length(connection, strategy.ef)
    statement, values = nearest.statement(strategy, made.vectors[0], length, query.where, sql.SQL(""))
    row = connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement, values, binary=True).fetchone()
    assert row is not None
    (plan,) = orjson.loads(row[0])
    nodes = list(_nodes(plan["Plan"]))
    used = [node["Index Name"] for node in nodes if "Index Name" in node]
    seen = max(int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in nodes)
    kind = "hnsw" if any(name.startswith("vectors_") for name in used) else "none"
    why = f"{strategy.why}; PostgreSQL: {' < '.join(node['Node Type'] for node in nodes)}"
    if used:
        why += f" using {', '.join(used)}"
    yield Search(
        part="table",
        kind=kind,
        round=1,
        strategy=strategy.kind,
        why=why,
        row_count=count,
        allowed_count=count if query.where is None else reading.count(connection, made.collection, query.where),
        ef_asked=query.ef,
        ef=strategy.ef,
        estimated_candidates=int(nodes[0]["Plan Rows"]),
        candidates=seen,
        doublings=0,
        bytes_read=seen * 4 * made.collection.settings.dim,
        ms=float(plan["Execution Time"]),
    )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps of a plan, outermost first."""
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)
