"""What `explain` says is what happened: its numbers add up, for every strategy, with filters, text and groups."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sealing import forget_scans, wait_sealed

from nopokedb import InvalidInputError, NoPokeDB, Plan
from nopokedb.embedded import nearest
from nopokedb.embedded.storage import metadata
from nopokedb.question import Asker

DIM = 32
COUNT = 3000


pytestmark = pytest.mark.usefixtures("quick_sealing")


@pytest.fixture(autouse=True)
def quick_indexing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few records are enough for an index on a field to be used."""
    monkeypatch.setattr(metadata, "_SCAN_LABELS", 16)


@pytest.fixture
def made(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> NoPokeDB:
    """A sealed segment, a tail of 500, metadata and texts."""
    return make(open_db, rng, "auto")


def make(open_db: Callable[..., NoPokeDB], rng: np.random.Generator, index: str) -> NoPokeDB:
    db = open_db(dim=DIM, index=index)
    vectors = rng.standard_normal((COUNT, DIM)).astype(np.float32)
    db.add_many(
        vectors, [{"n": i, "g": i % 7} for i in range(COUNT)], texts=[f"word{i % 50} text" for i in range(COUNT)]
    )
    wait_sealed(db)
    db.add_many(vectors[:500] + 1, [{"n": -1, "g": 0}] * 500)
    return db


def check(db: NoPokeDB, plan: Plan, hits: list[Any]) -> None:
    """What holds for every plan."""
    assert plan.hit_count == sum(len(hit.hits) if hasattr(hit, "hits") else 1 for hit in hits)
    assert plan.record_count == len(db)
    assert sum(stage.ms for stage in plan.stages) == pytest.approx(plan.total_ms, rel=1e-6)
    assert all(stage.ms >= 0 for stage in plan.stages)
    assert len({stage.name for stage in plan.stages}) == len(plan.stages)
    stages = {stage.name: stage.ms for stage in plan.stages}
    stats = db.stats()
    for turn in {search.round for search in plan.searches}:
        parts = [search for search in plan.searches if search.round == turn]
        assert sum(part.row_count for part in parts) == stats.row_count
        if turn == 1:
            allowed = len(db) if plan.filter is None else plan.filter.match_count
            assert sum(part.allowed_count for part in parts) == allowed
    for name in {search.part for search in plan.searches}:
        assert sum(search.ms for search in plan.searches if search.part == name) == pytest.approx(stages[name])
    for search in plan.searches:
        assert search.why
        if search.strategy == "skipped":
            assert (search.candidates, search.bytes_read, search.allowed_count, search.ef) == (0, 0, 0, None)
        elif search.strategy == "exact":
            assert search.estimated_candidates == search.candidates == search.allowed_count and search.ef is None
            assert search.bytes_read == search.candidates * 4 * DIM
        else:
            assert search.candidates >= search.estimated_candidates == min(search.ef or 0, search.allowed_count) or (
                search.doublings > 0 or "settle" in search.why
            )
            assert search.bytes_read > search.candidates * 4 * DIM
    assert plan.candidates == sum(search.candidates for search in plan.searches)
    plain = plan.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    text = str(plan)
    assert text.startswith(f"{plan.query} query, k={plan.k}") and f"{plan.hit_count} hits" in text
    assert all(stage.name in text for stage in plan.stages)
    assert all(search.why in text for search in plan.searches)
    assert not any(line != line.rstrip() for line in text.splitlines())


def ask(db: NoPokeDB, *arguments: Any, **options: Any) -> Plan:
    """The plan of a query, checked against the same query."""
    plan = db.explain(*arguments, **options)
    check(db, plan, db.query(*arguments, **options))
    return plan


@pytest.mark.parametrize(("index", "strategy"), [("exact", "exact"), ("auto", "scan"), ("hnsw", "graph")])
def test_every_strategy(open_db: Callable[..., NoPokeDB], rng: np.random.Generator, index: str, strategy: str) -> None:
    """Each kind of index, beside a tail; a given ef is what is used; 1.0 compares everything."""
    db = make(open_db, rng, index)
    forget_scans(db)
    query = rng.standard_normal(DIM)
    plan = ask(db, query, 10)
    assert plan.query == "vector" and plan.filter is None and plan.target_recall == 0.99
    *segments, tail = plan.searches
    assert tail.part == "tail" and tail.kind == "none" and tail.strategy == "exact"
    assert [search.strategy for search in segments] == ([strategy] if segments else [])
    if index == "exact":
        assert tail.candidates == COUNT + 500
        return
    assert tail.row_count == 500 + COUNT % 8
    assert segments[0].kind == {"auto": "scan", "hnsw": "hnsw"}[index] and segments[0].ef_asked is None
    assert segments[0].ef == db.stats().segments[0].ef_at_10
    given = ask(db, query, 10, 77)
    assert given.target_recall is None
    assert (given.searches[0].ef_asked, given.searches[0].ef, given.searches[0].candidates) == (77, 77, 77)
    whole = ask(db, query, 10, target_recall=1.0)
    assert {search.strategy for search in whole.searches} == {"exact"} and whole.candidates == COUNT + 500
    assert "full comparison" in whole.searches[0].why
    db.delete_many(range(COUNT))
    assert ask(db, query, 10).searches[0].strategy == "skipped"
    db.delete_many(list(range(COUNT, COUNT + 500)))
    nothing = ask(db, query, 10)
    assert {search.strategy for search in nothing.searches} == {"skipped"} and nothing.hit_count == 0


def test_an_empty_collection(open_db: Callable[..., NoPokeDB]) -> None:
    """Nothing to search, and a plan that says so."""
    plan = ask(open_db(dim=DIM), np.ones(DIM), where={"n": 1})
    assert plan.searches == () and plan.hit_count == 0 and plan.filter is not None and plan.filter.selectivity == 0


def test_where_tests_are_known_from(made: NoPokeDB, rng: np.random.Generator) -> None:
    """Looked through, asked of an index, or kept; each test with its own number of live records."""
    db, query = made, rng.standard_normal(DIM)
    where = {"g": 3, "n": {"$lt": 2000}}
    first = db.explain(query, where=where)
    assert first.filter is not None and not first.filter.cached
    assert [(test.source, test.match_count) for test in first.filter.tests] == [
        ("scan", db.count({"g": 3})),
        ("scan", db.count({"n": {"$lt": 2000}})),
    ]
    assert [test.test for test in first.filter.tests] == ["g = 3", "n < 2000"]
    assert first.filter.match_count == db.count(where)
    assert first.filter.selectivity == pytest.approx(db.count(where) / len(db))
    again = ask(db, query, where=where)
    assert again.filter is not None and again.filter.cached
    assert [(t.source, t.match_count) for t in again.filter.tests] == [
        ("cache", t.match_count) for t in first.filter.tests
    ]
    mixed = db.explain(query, where={"$or": [{"g": 3}, {"g": {"$exists": False}}]})
    assert mixed.filter is not None and [test.source for test in mixed.filter.tests] == ["cache", "scan"]
    db.delete(3)
    db.add(query, {"g": 3, "n": 5})
    newer = ask(db, query, where={"g": 3})
    assert newer.filter is not None
    later = db.explain(query, where={"n": {"$lt": 2000}})
    assert later.filter is not None and later.filter.tests[0].source == "cache + scan"
    db.create_index("g")
    indexed = db.explain(query, where={"g": 5})
    assert indexed.filter is not None and indexed.filter.tests[0].source == "index"
    assert indexed.filter.match_count == indexed.filter.tests[0].match_count == db.count({"g": 5})
    for selective in ({"n": {"$lt": 40}}, {"n": {"$lt": -1}}, {"n": -1}, {"g": {"$ne": 1}}, {"$id": {"$in": [1, 2]}}):
        ask(db, query, where=selective)
    everything = str(db.explain(query, where={"n": {"$between": [1, 2]}, "g": {"$in": [1, 2]}, "a.b": {"$like": "x%"}}))
    assert "n >= 1 and n <= 2" in everything and "g in (1, 2)" in everything and "a.b like 'x%'" in everything


def test_lists_that_do_not_settle(made: NoPokeDB, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a filter the list is made longer until it settles, and at last all are compared; both are told."""
    query = rng.standard_normal(DIM)
    where = {"n": {"$gte": 0}, "g": {"$ne": 6}}
    monkeypatch.setattr(nearest._Candidates, "_stays", lambda self, keys, length, count: False)
    plan = made.explain(query, where=where)
    first = plan.searches[0]
    assert first.strategy == "scan" and first.doublings >= 1 and "did not settle" in first.why
    assert first.candidates > first.allowed_count
    assert plan.hit_count == 5


@pytest.mark.engines(without=("postgres",))
def test_text_and_hybrid(made: NoPokeDB, rng: np.random.Generator) -> None:
    """Which side took how long, what was fused, and nothing of vectors where only words were asked for."""
    query = rng.standard_normal(DIM)
    words = ask(made, text="word3")
    assert words.query == "text" and words.searches == () and words.target_recall is None and words.candidates == 0
    assert {"text index", "text", "metadata", "hits", "rest"} == {stage.name for stage in words.stages}
    both = ask(made, query, text="word3 text", where={"g": 1}, highlight=True)
    assert both.query == "hybrid" and both.filter is not None
    names = [stage.name for stage in both.stages]
    assert {"text index", "filter", "tail", "distances", "metadata", "text", "fusion", "hits", "rest"} <= set(names)
    ask(made, query, text="word3", fusion="weighted", alpha=0.3, max_distance=0.9)
    varied = ask(made, query, diversity=0.5)
    assert "diversity" in {stage.name for stage in varied.stages}
    ask(made, like=[1, 2], unlike=[3])
    ask(made, query, include=("vector", "text", "metadata"))


@pytest.mark.engines(without=("postgres",))
def test_groups_take_rounds(made: NoPokeDB, rng: np.random.Generator) -> None:
    """Every round that the groups needed, told apart."""
    query = rng.standard_normal(DIM)
    plan = ask(made, query, 3, group_by="n", group_size=2)
    rounds = [search.round for search in plan.searches]
    assert rounds == sorted(rounds) and rounds[-1] > 2 and f"{rounds[-1]}: tail" in str(plan)
    assert plan.filter is None and ask(made, query, 3, where={"g": 1}, group_by="n", group_size=2).filter is not None
    assert ask(made, query, 7, group_by="g", group_size=100).hit_count == 700


def test_explain_takes_what_query_takes() -> None:
    """The same options with the same defaults, and no others."""
    asked = inspect.signature(NoPokeDB.query).parameters
    options = {name: p.default for name, p in asked.items() if p.kind is p.KEYWORD_ONLY}
    taken = inspect.signature(Asker.one_of).parameters
    assert options == {name: p.default for name, p in taken.items() if p.kind is p.KEYWORD_ONLY}
    assert list(asked)[:4] == list(inspect.signature(NoPokeDB.explain).parameters)[:4]


@pytest.mark.engines
def test_what_query_refuses_explain_refuses(made: NoPokeDB) -> None:
    """With the same errors."""
    for arguments in ({"vector": None}, {"vector": [1, 2]}, {"k": 0}, {"ef": 0}, {"alpha": 0.3}, {"unlike": [1]}):
        given = {"vector": np.ones(DIM), **arguments}
        with pytest.raises(InvalidInputError) as refused:
            made.query(**given)
        with pytest.raises(type(refused.value)) as explained:
            made.explain(**given)
        assert str(explained.value) == str(refused.value)
    with pytest.raises(TypeError):
        made.explain(np.ones(DIM), nothing=1)


@pytest.mark.engines(without=("postgres",))
def test_a_plan_of_a_read_only_handle(made: NoPokeDB, rng: np.random.Generator) -> None:
    """A reader beside the writer says the same."""
    query = rng.standard_normal(DIM)
    with NoPokeDB(path=made.path, read_only=True) as reader:
        plan = reader.explain(query, 10)
        mine = made.explain(query, 10)
        assert [(s.part, s.strategy, s.candidates) for s in plan.searches] == [
            (s.part, s.strategy, s.candidates) for s in mine.searches
        ]
        assert reader.measure_recall(sample=10).query_count == 10


@pytest.mark.engines
def test_a_plan_is_of_the_query_that_it_explains(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Whatever the engine: as many hits as the query has, stages that add up to the time, and a form for JSON."""
    db = open_db(dim=8)
    db.add_many(
        rng.standard_normal((60, 8)), [{"g": n % 3} for n in range(60)], texts=[f"word{n % 5}" for n in range(60)]
    )
    query = rng.standard_normal(8)
    asked: list[tuple[dict[str, Any], str]] = [
        ({"vector": query}, "vector"),
        ({"vector": query, "where": {"g": 1}, "k": 30}, "vector"),
        ({"text": "word1"}, "text"),
        ({"vector": query, "text": "word1 word2", "k": 40}, "hybrid"),
        ({"vector": query, "group_by": "g", "group_size": 2}, "vector"),
        ({"vector": query, "where": {"g": 7}}, "vector"),
    ]
    for options, kind in asked:
        plan, found = db.explain(**options), db.query(**options)
        assert plan.hit_count == sum(len(item.hits) if hasattr(item, "hits") else 1 for item in found)
        assert (plan.query, plan.k, plan.record_count) == (kind, options.get("k", 5), 60)
        assert sum(stage.ms for stage in plan.stages) == pytest.approx(plan.total_ms, rel=1e-6)
        assert json.loads(json.dumps(plan.to_dict())) == plan.to_dict()
        assert str(plan).startswith(f"{kind} query, k={plan.k}")
