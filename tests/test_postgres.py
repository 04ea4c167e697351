"""The PostgreSQL engine on a real server: filters, text and recall."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg
import pytest
from psycopg import sql
from random_filters import Maker

import nopokedb
from nopokedb import (
    InvalidInputError,
    NoPokeDB,
    NotSupportedError,
    list_collections,
)
from nopokedb.filters import each_test, holds
from nopokedb.metadata_json import decode_metadata, encode_metadata
from nopokedb.postgres import codec, text, vector_index
from nopokedb.postgres.filter_sql import condition_of
from nopokedb.where import parse_filter

pytestmark = pytest.mark.engines("postgres")
ROOT = Path(__file__).parent.parent
Open = Callable[..., NoPokeDB]
WORDS = ["apple", "bridges", "candle", "desert", "engine", "forest", "gardens", "harbour", "the", "running"]


# --- filters -------------------------------------------------------------------------------------------------


def test_filters_say_what_the_predicate_says(open_db: Open, seed: int) -> None:
    """Random filters on random records, all made to disagree, as SQL and as plain Python."""
    maker = Maker(seed)
    db = open_db(dim=1, space="l2")
    ids: list[Any] = [maker.random.choice([i, f"a{i}", f"a\0{i}", f"é\\{i}", f'x%"{i}']) for i in range(150)]
    records = {id_: decode_metadata(encode_metadata(maker.metadata())) for id_ in ids}
    db.add_many(np.zeros((150, 1)), list(records.values()), ids=ids)
    connection = db._engine._connections.take()  # type: ignore[attr-defined]  # three times faster than scans
    for _ in range(600):
        where = maker.where()
        node = parse_filter(where)
        assert node is not None
        condition = condition_of(node)
        records_table = db._engine._collection.records  # type: ignore[attr-defined]
        statement = sql.SQL("SELECT id FROM {} WHERE {}").format(records_table, condition.sql)
        found = {codec.id_of(key) for (key,) in connection.execute(statement, condition.values)}
        assert found == {id_ for id_, metadata in records.items() if holds(node, id_, metadata)}, where
    db._engine._connections.give_back(connection)  # type: ignore[attr-defined]


def test_no_key_and_no_value_is_ever_part_of_a_statement() -> None:
    """Statements are the same whatever a filter asks for."""
    for path in ("zz'key", "zz.zz'", "$id"):
        for operator, operand in {"$eq": "zz';", "$gt": "zz'", "$contains": "zz'", "$like": "zz'%"}.items():
            node = parse_filter({path: {operator: operand}})
            assert node is not None
            for test in each_test(node):
                assert "zz" not in condition_of(test).sql.as_string()


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63), "", "a", "a\0b", "\1", "\1\1", "é"])
def test_ids_and_texts_have_one_form_each_in_order(value: int | str) -> None:
    """What PostgreSQL stores is one to one, and sorts as what it stands for."""
    others: list[Any] = [-5, 3, "b", "\0", "\2", "\1\2", "z"]
    if value != "":
        assert codec.id_of(codec.key_of(value)) == value
        for other in others:
            ordered = sorted([value, other], key=nopokedb.records.id_order)
            assert sorted([value, other], key=codec.key_of) == ordered
    if isinstance(value, str):
        assert codec.unescape(codec.escape(value)) == value and "\0" not in codec.escape(value)
        for other in filter(lambda item: isinstance(item, str), others):
            assert (codec.escape(value) < codec.escape(other)) == (value < other)


# --- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "none"])
def test_text_is_ranked_as_in_a_folder(open_db: Open, tmp_path: Path, rng: np.random.Generator, language: str) -> None:
    """The same ids with the same BM25 scores, for every kind of clause."""
    texts: list[str | None] = [" ".join(rng.choice(WORDS, int(rng.integers(1, 90)))) for _ in range(250)]
    texts += ["東京都 の 天気", "京都の天気", "well-known c++ café", "Well known CAFE's", "nul\0byte \1 word", "", None]
    metadatas = [{"n": n} for n in range(len(texts))]
    db = open_db(dim=1, space="l2", text_language=language)
    with NoPokeDB(dim=1, space="l2", path=tmp_path / "folder", text_language=language) as folder:
        for each in (db, folder):
            each.add_many(np.ones((len(texts), 1)), metadatas, texts=texts)
        asked = ["apple", "apple engine", "apple apple run", '"candle desert"', '"the desert" forest', "+apple +engine"]
        asked += ["+apple -engine", '-"apple engine" candle', "bri*", "+gar* apple", "well-kno*", "東京", "京都", "都"]
        asked += ["天気 京都の天気", "byte", "zebra", "", "-apple", "the", "runs bridge", '"well known"', "c++", "cafe"]
        for question in asked:
            for where in (None, {"n": {"$lt": 120}}):
                ours = db.query(text=question, k=400, where=where)
                theirs = folder.query(text=question, k=400, where=where)
                assert {hit.id: pytest.approx(hit.score, rel=1e-4) for hit in ours} == {
                    hit.id: hit.score for hit in theirs
                }, question
                assert [hit.score for hit in ours] == sorted((hit.score for hit in ours), reverse=True)
        for db_ in (db, folder):
            db_.delete_many(where={"n": {"$gte": 100, "$lt": 200}})
            db_.upsert(0, text="apple of another length")
            db_.upsert(250, metadata={"x": 1})
        if language == "none":
            return  # a folder's statistics count what was deleted until it merges
        assert db.check() == []
        documents, average = db._engine._connections.run(  # type: ignore[attr-defined]
            lambda connection: text.statistics(connection, db._engine._collection)  # type: ignore[attr-defined]
        )
        lengths = [len(db._engine._indexer().analyzer.positions(r.text or "")) for r in db.scan(include=("text",))]  # type: ignore[attr-defined]
        assert documents == sum(r.text is not None for r in db.scan(include=("text",)))
        assert abs(average - sum(lengths) / documents) < 0.1


def test_texts_of_more_words_than_it_can_hold_are_refused(open_db: Open) -> None:
    """A text over the limit of PostgreSQL's type is an error that names it, and nothing is written."""
    db = open_db(dim=1, space="l2")
    with pytest.raises(NotSupportedError, match="PostgreSQL"):
        db.add([1], text=" ".join(f"w{number}" for number in range(110_000)))
    assert len(db) == 0
    db.add([1], text="word " * 300_000 + "last")
    assert [hit.id for hit in db.query(text='"word last"')] == [0]


# --- vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_recall_by_index_under_every_filter(
    open_db: Open, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    """With the index, and filters that 100, 10, 1 and 0.1 % pass, queries find what exact search finds."""
    monkeypatch.setattr(vector_index, "INDEX_ROWS", 1_000)
    monkeypatch.setattr("nopokedb.postgres.nearest._PASSING_PER_VISITED", 0)  # however few pass
    centres = rng.standard_normal((20, 16))
    vectors = (centres[rng.integers(0, 20, 2_500)] + 0.4 * rng.standard_normal((2_500, 16))).astype(np.float32)
    queries = vectors[:40] + 0.1 * rng.standard_normal((40, 16)).astype(np.float32)
    db = open_db(dim=16, space=space)
    db.add_many(vectors[:900], [{"n": n} for n in range(900)])
    assert not db.stats().segments and db.explain(queries[0]).searches[0].kind == "none"
    db.add_many(vectors[900:], [{"n": n} for n in range(900, 2_500)])
    db.compact()
    (segment,) = db.stats().segments
    assert segment.kind == "hnsw" and segment.live_count == 2_500
    plan = db.explain(queries[0], k=10)
    assert plan.searches[0].strategy == "graph" and "PostgreSQL: Limit" in str(plan)
    assert db.explain(queries[0], target_recall=1).searches[0].strategy == "exact"
    assert db.explain(queries[0], ef=1_001).searches[0].strategy == "exact"
    for limit in (2_500, 250, 25, 2):
        where = {"n": {"$lt": limit}}
        found = [[hit.distance for hit in hits] for hits in db.query_many(queries, k=10, where=where)]
        true = [[hit.distance for hit in hits] for hits in db.query_many(queries, k=10, where=where, target_recall=1)]
        assert {len(hits) for hits in found} == {min(10, limit)}
        shares = [sum(d <= t[-1] for d in f) / len(t) for f, t in zip(found, true, strict=True)]
        assert np.mean(shares) >= 0.97, limit
    assert db.measure_recall(40).recall >= 0.9


def test_an_index_that_gives_up(
    open_db: Open, engine: dict[str, Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is told to look at no more than one list, and not to sort instead: there are all hits all the same."""
    monkeypatch.setattr(vector_index, "INDEX_ROWS", 500)
    monkeypatch.setattr("nopokedb.postgres.nearest._PASSING_PER_VISITED", 0)
    db = open_db(dim=8)
    db.add_many(rng.standard_normal((1_500, 8)), [{"n": n} for n in range(1_500)])
    db.compact()
    option = "options=-c%20hnsw.max_scan_tuples%3D1%20-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff"
    path = f"{engine['path']}{'&' if '?' in engine['path'] else '?'}{option}"
    with NoPokeDB(path=path, collection=engine["collection"], read_only=True) as reader:
        for _ in range(5):
            query, where = rng.standard_normal(8), {"n": {"$gte": 1_490}}
            assert reader.explain(query, k=10, where=where).searches[0].kind == "hnsw"
            assert {hit.id for hit in reader.query(query, k=10, where=where)} == set(range(1_490, 1_500))


def test_an_index_is_built_in_the_background(
    open_db: Open, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there are enough records, without keeping writers out; what a broken build left is built anew."""
    monkeypatch.setattr(vector_index, "INDEX_ROWS", 300)
    db = open_db(dim=2)
    db.add_many(rng.standard_normal((400, 2)))
    while db._engine._index.building:  # type: ignore[attr-defined]
        db.add([1, 1])
    assert db.stats().segments[0].kind == "hnsw"
    assert db.check() == []


def test_more_dimensions_than_an_index_takes(open_db: Open, rng: np.random.Generator) -> None:
    """Up to 4,000 by halves, and beyond by exact search; distances are exact either way."""
    vectors = rng.standard_normal((120, 2_100)).astype(np.float32)
    db = open_db(dim=2_100, index="hnsw")
    db.add_many(vectors)
    db.compact()
    assert db.explain(vectors[3], k=1, ef=50).searches[0].strategy == "graph"
    hit = db.query(vectors[3], k=1)[0]
    assert hit.id == 3 and hit.distance < 1e-12


# --- the table of docs/engines.md ----------------------------------------------------------------------------


def test_the_table_of_what_is_not_supported_is_true(open_db: Open, engine: dict[str, Any], tmp_path: Path) -> None:
    """Each line of the table raises NotSupportedError that names the engine; every method is in the table or works."""
    document = (ROOT / "docs" / "engines.md").read_text()
    table = document[document.index("<!-- not supported -->") :]
    listed = set(re.findall(r"^\| `([A-Za-z_]+)[^|]*\| no \|", table, re.M))
    db = open_db(dim=2)
    db.add([1, 2], text="a word")
    calls: dict[str, Callable[[], object]] = {
        "undo": db.undo,
        "backup": lambda: db.backup(tmp_path / "file"),
        "snapshot": lambda: db.snapshot("a"),
        "snapshots": db.snapshots,
        "at": lambda: db.at("a"),
        "rollback": lambda: db.rollback("a"),
        "drop_snapshot": lambda: db.drop_snapshot("a"),
        "reembed": lambda: db.reembed(lambda texts: np.ones((len(texts), 2))),
        "restore": lambda: nopokedb.restore("file", db.path),
        "index": lambda: NoPokeDB(dim=2, path=engine["path"], collection="x", index="scan"),
        "durability": lambda: NoPokeDB(dim=2, path=engine["path"], collection="x", durability="os"),
        "max_memory": lambda: NoPokeDB(dim=2, path=engine["path"], collection="x", max_memory=1),
        "dim": lambda: NoPokeDB(dim=16_001, path=engine["path"], collection="x"),
        "api_key": lambda: NoPokeDB(dim=2, path=engine["path"], collection="x", api_key="key"),
        "distributed": lambda: NoPokeDB(dim=2, path=engine["path"], collection="x", distributed=True),
        "text": lambda: db.add([1, 2], text=" ".join(f"w{number}" for number in range(110_000))),
        "M": lambda: NoPokeDB(dim=2, path=engine["path"], collection="x", M=101),
    }
    for name, call in calls.items():
        if name == "distributed" and has_citus(engine):
            continue
        with pytest.raises(NotSupportedError, match=r"PostgreSQL|citus"):
            call()
    assert listed == set(calls)
    assert "x" not in list_collections(engine["path"])
    methods = {name for name, member in inspect.getmembers(NoPokeDB) if callable(member) and name[0] != "_"}
    for name in methods - set(calls):
        assert re.search(rf"`{name}\b", table), f"docs/engines.md does not say whether {name} works"


def test_the_example_of_the_document_runs(engine: dict[str, Any]) -> None:
    """As it stands there, with another address."""
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "engines.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        code = block.replace("postgresql://app@db.example.org/vectors", engine["path"]).replace(
            "docs", engine["collection"]
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "'distance': 0.0" in run.stdout


def has_citus(engine: dict[str, Any]) -> bool:
    with psycopg.connect(engine["path"]) as connection:
        return connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'").fetchone() is not None


def test_a_folder_waits_for_no_server(tmp_path: Path) -> None:
    for options in ({"distributed": True}, {"timeout_s": 5}, {"api_key": "key"}):
        with pytest.raises(NotSupportedError, match="folder"):
            NoPokeDB(dim=1, path=tmp_path / "db", **options)  # type: ignore[arg-type]
    for wrong in (0, -1, True, "5", float("nan")):
        with pytest.raises(InvalidInputError, match="timeout_s"):
            NoPokeDB(dim=1, path=tmp_path / "db", timeout_s=wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "db").exists()


def test_numbers_and_strs_of_filters_are_exact() -> None:
    """What `fields` holds compares as the numbers do."""
    for value in (1e16, 2**53 + 1, 1e17, 2**63, 2.0**63, 2**64 - 1, -1e16, 5e-324, 1e300):
        (stored,) = orjson.loads(codec.fields_of(encode_metadata({"a": value}))).values()
        assert float(stored) == float(value)
    assert codec.number_text(1e17) == codec.number_text(10**17) == "100000000000000000"
    assert codec.number_text(2**63) == codec.number_text(2.0**63)
