"""What filters mean: the Python predicate against written-out cases, SQL and indexes against the predicate, and what is
refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from random_filters import KEYS, Maker

from nopokedb import F, InvalidFilterError, InvalidInputError, NoPokeDB
from nopokedb.embedded.storage import metadata as metadata_module
from nopokedb.embedded.storage.field_index import select_from_index
from nopokedb.embedded.storage.filter_sql import select_groups, select_labels
from nopokedb.filters import Filter, each_test, filter_key, holds
from nopokedb.where import MAX_DEPTH, MAX_NODES, parse_filter

pytestmark = pytest.mark.engines

MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def key_of(where: Any) -> bytes:
    node = parse_filter(where)
    assert node is not None
    return filter_key(node)


def passes(where: Any, record: dict[str, Any], id_: int | str = 7) -> bool:
    node = parse_filter(where)
    assert node is not None
    return holds(node, id_, record)


@pytest.mark.parametrize(
    ("where", "yes", "no"),
    [
        ({"a": 1}, [{"a": 1}, {"a": 1.0}, {"a": [0, 1]}], [{"a": True}, {"a": "1"}, {}, {"a": [[1]]}, {"a": {}}]),
        ({"a": None}, [{}, {"a": None}, {"a": [1, None]}], [{"a": 0}, {"a": []}, {"a": ""}]),
        ({"a": {"$ne": 1}}, [{}, {"a": 2}, {"a": [2, 3]}, {"a": True}], [{"a": 1}, {"a": [1, 2]}]),
        ({"a": {"$in": [1, "x"]}}, [{"a": "x"}, {"a": [1]}], [{}, {"a": "y"}]),
        ({"a": {"$in": []}}, [], [{}, {"a": 1}]),
        ({"a": {"$nin": [1, None]}}, [{"a": 2}], [{}, {"a": 1}, {"a": None}]),
        ({"a": {"$gt": 1}}, [{"a": 1.5}, {"a": [0, 2]}], [{"a": 1}, {"a": "2"}, {"a": True}, {}]),
        ({"a": {"$gte": "b"}}, [{"a": "b"}, {"a": "é"}], [{"a": "a"}, {"a": 3}, {"a": "B"}]),
        ({"a": {"$gte": 1, "$lt": 3}}, [{"a": 2}, {"a": [0, 5]}], [{"a": 3}]),
        ({"a": {"$between": [1, 3]}}, [{"a": 1}, {"a": 3}], [{"a": [0, 5]}, {"a": 3.1}]),
        ({"a": {"$exists": True}}, [{"a": None}, {"a": []}], [{}]),
        ({"a": {"$exists": False}}, [{}], [{"a": None}]),
        ({"a": {"$is_null": True}}, [{}, {"a": None}], [{"a": 0}]),
        ({"a": {"$is_null": False}}, [{"a": 0}, {"a": []}], [{}, {"a": None}]),
        ({"a": {"$contains": "x"}}, [{"a": "axb"}, {"a": ["x"]}], [{"a": ["axb"]}, {"a": {"x": 1}}, {}]),
        ({"a": {"$contains": 1}}, [{"a": [1.0]}], [{"a": 1}, {"a": "1"}, {"a": [True]}]),
        ({"a": {"$contains_any": ["x", 1]}}, [{"a": ["x"]}, {"a": [1]}, {"a": "x"}], [{"a": ["y"]}]),
        ({"a": {"$contains_all": ["x", "y"]}}, [{"a": ["y", "x"]}, {"a": "xy"}], [{"a": ["x"]}]),
        ({"a": {"$starts_with": "x"}}, [{"a": "xy"}, {"a": ["b", "x"]}], [{"a": "yx"}, {"a": "X"}, {"a": 1}]),
        ({"a": {"$like": "a%_c"}}, [{"a": "abc"}, {"a": "axxbc"}], [{"a": "ac"}, {"a": "ABC"}, {"a": "abcd"}]),
        ({"a": {"$like": "100\\%"}}, [{"a": "100%"}], [{"a": "100x"}]),
        ({"a": {"$not": {"$gt": 1}}}, [{}, {"a": 1}], [{"a": 2}]),
        ({"a.b": 1}, [{"a": {"b": 1}}, {"a": [{"b": 0}, {"b": [1]}]}], [{"a.b": 1}, {"a": [[{"b": 1}]]}]),
        ({"a\\.b": 1}, [{"a.b": 1}], [{"a": {"b": 1}}]),
        ({"\\$id": 1}, [{"$id": 1}], [{}]),
        ({"$id": {"$gte": 7}}, [{}], []),
        ({"$not": {"a": 1, "b": 2}}, [{"a": 1}, {}], [{"a": 1, "b": 2}]),
        ({"$or": [{"a": 1}, {"b": 2}]}, [{"b": 2}], [{"b": 1}]),
        ({"$and": [{"a": 1}, {"b": 2}]}, [{"a": 1, "b": 2}], [{"a": 1}]),
        ({}, [{}, {"a": 1}], []),
        ({"at": MOMENT}, [{"at": "2024-05-01T12:00:00.000000Z"}], [{}]),
        ({"at": {"$gt": MOMENT.astimezone(timezone(timedelta(hours=5)))}}, [{"at": "2024-05-01T12:00:00.000001Z"}], []),
    ],
)
def test_meaning(where: Any, yes: Sequence[dict[str, Any]], no: Sequence[dict[str, Any]]) -> None:
    """Each operator, written out."""
    for record in yes:
        assert passes(where, record), record
    for record in no:
        assert not passes(where, record), record


def test_expressions_are_the_same_filters() -> None:
    """`F` builds what the dict says."""
    pairs: list[tuple[Filter, Any]] = [
        (F("a") == 1, {"a": 1}),
        (F("a") != 1, {"a": {"$ne": 1}}),
        (F("a") > 1, {"a": {"$gt": 1}}),
        (F("a") >= 1, {"a": {"$gte": 1}}),
        (F("a") < 1, {"a": {"$lt": 1}}),
        (F("a") <= 1, {"a": {"$lte": 1}}),
        (F("a").is_in([1, 2]), {"a": {"$in": [1, 2]}}),
        (F("a").not_in([1, 2]), {"a": {"$nin": [1, 2]}}),
        (F("a").between(1, 2), {"a": {"$between": [1, 2]}}),
        (F("a").exists(), {"a": {"$exists": True}}),
        (F("a").is_null(False), {"a": {"$is_null": False}}),
        (F("a").contains("x"), {"a": {"$contains": "x"}}),
        (F("a").contains_any(["x"]), {"a": {"$contains_any": ["x"]}}),
        (F("a").contains_all(["x", "y"]), {"a": {"$contains_all": ["x", "y"]}}),
        (F("a").startswith("x"), {"a": {"$starts_with": "x"}}),
        (F("a").like("x%"), {"a": {"$like": "x%"}}),
        (F("a.b", literal=True) == 1, {"a\\.b": 1}),
        (F("$id") == 1, {"$id": 1}),
        ((F("a") == 1) & (F("b") == 2) & (F("c") == 3), {"$and": [{"a": 1}, {"b": 2}, {"c": 3}]}),
        ((F("a") == 1) | (F("b") == 2), {"$or": [{"a": 1}, {"b": 2}]}),
        (~(F("a") == 1), {"$not": {"a": 1}}),
    ]
    for expression, where in pairs:
        assert key_of(expression) == key_of(where), where
    assert passes({"$and": [F("a") == 1, {"b": 2}]}, {"a": 1, "b": 2})


def test_equal_but_different_values_are_different_tests() -> None:
    """What is remembered of one test is never used for another: 1, 1.0, true and "1" have keys of their own."""
    keys = {key_of({"a": value}) for value in (1, True, "1", None)}
    assert len(keys) == 4
    assert key_of({"a.b": 1}) != key_of({"a\\.b": 1})


def nested(depth: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        where = {"$not": where}
    return where


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ({"a": {"$near": 1}}, r"where\['a'\]"),
        ({"$xor": []}, "where"),
        ({"$and": []}, r"where\['\$and'\]"),
        ({"$or": {"a": 1}}, r"where\['\$or'\]"),
        ({"$or": [{"a": {"$in": 5}}]}, r"where\['\$or'\]\[0\]\['a'\]\['\$in'\]"),
        ({"$not": 5}, r"where\['\$not'\]"),
        ({"a": [1, 2]}, r"\$in"),
        ({"a": {"b": 1}}, "author.name"),
        ({"a": {}}, r"where\['a'\]"),
        ({"a": float("nan")}, r"where\['a'\]"),
        ({"a": {"$gt": float("inf")}}, r"where\['a'\]\['\$gt'\]"),
        ({"a": {"$gt": True}}, r"where\['a'\]\['\$gt'\]"),
        ({"a": {"$gt": None}}, r"where\['a'\]\['\$gt'\]"),
        ({"a": {"$between": [1]}}, r"\$between"),
        ({"a": {"$between": [1, "b"]}}, r"\$between"),
        ({"a": {"$exists": 1}}, r"\$exists"),
        ({"a": {"$starts_with": 1}}, r"\$starts_with"),
        ({"a": {"$like": "x\\"}}, r"\$like"),
        ({"a": {"$like": "%" * 20_000}}, r"\$like"),
        ({"a": {"$contains_any": []}}, r"\$contains_any"),
        ({"a": 2**64}, r"where\['a'\]"),
        ({"a": b"x"}, r"where\['a'\]"),
        ({"a": "\ud800"}, r"where\['a'\]"),
        ({"\ud800": 1}, "where"),
        ({"a\\": 1}, "where"),
        ({1: 1}, "where"),
        ({"a": datetime(2024, 5, 1)}, "time zone"),
        ({"a": {"$in": [1, [2]]}}, r"\[1\]"),
        (nested(MAX_DEPTH + 1), "deep"),
        ({"$or": [{"a": 1}] * (MAX_NODES + 1)}, r"\$or"),
        ({"$or": [{"$and": [{"a": 1}] * 100}] * 100}, "nodes"),
        ({"a": {"$in": list(range(100_001))}}, r"\$in"),
        ({".".join("a" * 40): 1}, "steps"),
        ("a = 1", "where"),
        ([{"a": 1}], "where"),
        (5, "where"),
    ],
)
def test_refused(where: Any, place: str) -> None:
    """Every wrong filter is refused in words that say where it is wrong."""
    with pytest.raises(InvalidFilterError, match=place):
        parse_filter(where)


def test_deep_filters_are_refused_not_followed() -> None:
    """A filter that contains itself, or is deeper than Python's stack, is an error like any other."""
    itself: dict[str, Any] = {}
    itself["$not"] = itself
    for where in (itself, nested(100_000)):
        with pytest.raises(InvalidFilterError):
            parse_filter(where)
    expression = F("a") == 1
    for _ in range(100):
        expression = ~expression
    with pytest.raises(InvalidFilterError):
        parse_filter(expression)
    with pytest.raises(InvalidFilterError, match="&"):
        bool((F("a") == 1) and (F("b") == 2))


def test_no_key_and_no_value_is_ever_part_of_a_statement() -> None:
    """Statements are the same whatever the filter asks for: keys and values are bound, in scans and in indexes."""
    operators: dict[str, Any] = {
        **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains", "$starts_with"), "zz'; DROP--"),
        "$in": ["zz'", 1, 2, True, None, 'zz"'],
        "$between": ["zz'", "zz;"],
        "$contains_all": ["zz'", 3],
        "$exists": True,
        "$is_null": True,
        "$like": "zz'%",
    }
    for path in ("zz'key", "zz.zz'", "zz\"'", "zz'.zz.zz", "$id"):
        for operator, operand in operators.items():
            node = parse_filter({path: {operator: operand}})
            assert node is not None
            for test in each_test(node):
                statements = [select_labels(test).sql]
                if test.path is not None and (from_index := select_from_index(test, 1)) is not None:
                    statements.append(from_index.sql)
                if test.path is not None and (groups := select_groups(test.path)) is not None:
                    statements.append(groups.sql)
                assert not any("zz" in statement or "DROP" in statement for statement in statements)


@pytest.fixture
def records(open_db: Callable[..., NoPokeDB], seed: int) -> tuple[NoPokeDB, Maker, dict[int | str, dict[str, Any]]]:
    """A collection of odd records, with their ids."""
    maker = Maker(seed)
    stored: dict[int | str, dict[str, Any]] = {
        (i if i % 3 else f"{maker.random.choice(['', '[', 'é', 'x'])}{i}"): maker.metadata() for i in range(400)
    }
    db = open_db(dim=2)
    db.add_many(np.ones((len(stored), 2)), list(stored.values()), ids=list(stored))
    return db, maker, stored


def check_many(db: NoPokeDB, maker: Maker, stored: dict[int | str, dict[str, Any]], count: int) -> None:
    for _ in range(count):
        where = maker.where()
        node = parse_filter(where)
        assert node is not None
        expected = {id_ for id_, record in stored.items() if holds(node, id_, record)}
        assert {record.id for record in db.scan(where)} == expected, where
        assert db.count(where) == len(expected), where


@pytest.mark.engines("embedded")
def test_sql_agrees_with_the_predicate(
    records: tuple[NoPokeDB, Maker, dict[int | str, dict[str, Any]]],
) -> None:
    """Thousands of random filters over random records: SQLite and Python select the same."""
    check_many(*records, 1_500)


@pytest.mark.engines(without=("postgres",))
def test_indexes_agree_with_the_predicate(
    records: tuple[NoPokeDB, Maker, dict[int | str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same through the indexes on fields, made before and after the records, and kept by later writes."""
    db, maker, stored = records
    monkeypatch.setattr(metadata_module, "_SCAN_LABELS", 0)
    for key in KEYS:
        path = key.replace("\\", "\\\\").replace(".", "\\.").replace("$", "\\$")
        db.create_index(path)
        db.create_index(path + ".b")
    more = {f"more{i}": maker.metadata() for i in range(100)}
    db.add_many(np.ones((100, 2)), list(more.values()), ids=list(more))
    stored |= more  # type: ignore[arg-type]
    check_many(db, maker, stored, 700)
    assert db.drop_index("a") and not db.drop_index("a")
    check_many(db, maker, stored, 100)


def test_what_is_known_is_extended(
    records: tuple[NoPokeDB, Maker, dict[int | str, dict[str, Any]]],
) -> None:
    """A filter that was used before sees records that were added, changed and deleted since."""
    db, maker, stored = records
    filters = [maker.where() for _ in range(40)]
    for round_ in range(6):
        for where in filters:
            node = parse_filter(where)
            assert node is not None
            expected = {id_ for id_, record in stored.items() if holds(node, id_, record)}
            assert {record.id for record in db.scan(where)} == expected, (round_, where)
        for _ in range(15):
            key = maker.random.choice(list(stored))
            action = maker.random.choice(["update", "delete", "add"])
            if action == "delete":
                db.delete(key)
                del stored[key]
            else:
                key = key if action == "update" else f"new{round_}-{len(stored)}"
                stored[key] = maker.metadata()
                db.upsert(key, None if action == "update" else [1, 1], stored[key])


def test_writes_by_filter(records: tuple[NoPokeDB, Maker, dict[int | str, dict[str, Any]]]) -> None:
    """`delete_many` and `update_many` change exactly the records that pass, as one batch."""
    db, maker, stored = records
    for _ in range(25):
        where = maker.where()
        node = parse_filter(where)
        assert node is not None
        if where == {} or not stored:
            continue
        chosen = [id_ for id_, record in stored.items() if holds(node, id_, record)]
        lsn = db.stats().lsn
        if maker.random.random() < 0.3:
            assert db.delete_many(where=where) == len(chosen)
            for id_ in chosen:
                del stored[id_]
        else:
            patch = {"changed": maker.random.randint(0, 5)}
            assert db.update_many(where=where, metadata=patch) == len(chosen)
            for id_ in chosen:
                stored[id_] = {**stored[id_], **patch}
        assert db.stats().lsn == lsn + bool(chosen)
    assert {record.id: record.metadata for record in db.scan()} == stored


def test_an_empty_filter_deletes_nothing(open_db: Callable[..., NoPokeDB]) -> None:
    """Neither no argument nor an empty filter means everything."""
    db = open_db(dim=2)
    db.add([1, 2])
    for call in (
        lambda: db.delete_many(),
        lambda: db.delete_many(where={}),
        lambda: db.delete_many([0], where={"a": 1}),
        lambda: db.update_many(metadata={"a": 1}),
        lambda: db.update_many(where={}, metadata={"a": 1}),
    ):
        with pytest.raises(InvalidInputError):
            call()
    assert len(db) == 1
    assert db.delete_many(where={"$id": {"$exists": True}}) == 1


def test_facet(records: tuple[NoPokeDB, Maker, dict[int | str, dict[str, Any]]]) -> None:
    """Counts of each value, the most frequent first, lists by element, with and without a filter."""
    db, maker, stored = records
    for field, path in (("a", ["a"]), ("a.b", ["a", "b"]), ('q"x', ['q"x']), ("b", ["b"])):
        for where in (None, maker.where()):
            node = parse_filter(where)
            counts: dict[tuple[str, Any], int] = {}
            for id_, record in stored.items():
                if node is not None and not holds(node, id_, record):
                    continue
                nodes = [record]
                for step in path:
                    items = [i for n in nodes for i in (n if isinstance(n, list) else [n])]
                    nodes = [i[step] for i in items if isinstance(i, dict) and step in i]
                values = [i for n in nodes for i in (n if isinstance(n, list) else [n])]
                for value in {
                    (
                        type(v).__name__ if isinstance(v, bool | str) else "n",
                        float(v) if type(v) is int and v >= 2**63 else v,
                    )
                    for v in values
                    if isinstance(v, bool | str | int | float)
                }:
                    counts[value] = counts.get(value, 0) + 1
            found = db.facet(field, where, limit=1000)
            assert sorted(count for _, count in found) == sorted(counts.values())
            assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)
            for value, count in found:
                kind = type(value).__name__ if isinstance(value, bool | str) else "n"
                assert counts[kind, float(value) if type(value) is int and value >= 2**63 else value] == count
            assert db.facet(field, where, limit=3) == found[:3]


def test_scan_in_the_order_of_a_field(open_db: Callable[..., NoPokeDB]) -> None:
    """Numbers, then strs, then booleans; missing last and ties by id, either way; cursors go on behind a record."""
    db = open_db(dim=2)
    values: list[Any] = [3, "b", None, 1.5, True, "a", 3, [2, 9], {}, False, -1, 3]
    db.add_many(np.ones((12, 2)), [{"v": value} if value is not None else {} for value in values])
    up = [10, 3, 7, 0, 6, 11, 5, 1, 9, 4, 2, 8]
    down = [4, 9, 1, 5, 0, 6, 11, 7, 3, 10, 2, 8]
    assert [r.id for r in db.scan(order_by="v")] == up
    assert [r.id for r in db.scan(order_by="-v")] == down
    assert [r.id for r in db.scan({"v": {"$gte": 2}}, order_by="v")] == [7, 0, 6, 11]
    for name, expected in (("v", up), ("-v", down)):
        found, cursor = [], None
        while page := list(db.scan(order_by=name, after=cursor, limit=5)):
            found += [r.id for r in page]
            cursor = page[-1].cursor
        assert found == expected
    for bad in ("nonsense", "e30=", "WzAsInQiLDFd"):
        with pytest.raises(InvalidInputError, match="cursor"):
            next(db.scan(order_by="v", after=bad), None)
    with pytest.raises(InvalidInputError, match="cursor"):
        db.scan(order_by="v", after=5)


def test_scan_with_a_filter_pages(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Filtered scans are in id order and continue behind an id, whether few or many pass."""
    db = open_db(dim=2)
    db.add_many(rng.random((3000, 2)), [{"n": i, "few": i % 100 == 0} for i in range(3000)])
    for where, ids in (({"few": True}, range(0, 3000, 100)), ({"n": {"$gte": 100}}, range(100, 3000))):
        assert [r.id for r in db.scan(where)] == list(ids)
        assert [r.id for r in db.scan(where, after=450, limit=7)] == [i for i in ids if i > 450][:7]


def test_indexes_survive_and_are_told(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Declared at creation, made later, dropped: `stats` says so, also after reopening and to readers."""
    db = open_db(dim=2, indexed_fields=("year", "author.name"))
    db.add_many(rng.random((100, 2)), [{"year": i % 7} for i in range(100)])
    db.create_index("lang")
    db.create_index("lang")
    assert db.stats().indexed_fields == ("year", "author.name", "lang")
    db.close()
    assert open_db(read_only=True).stats().indexed_fields == ("year", "author.name", "lang")
    db = open_db(dim=2, indexed_fields=["lang"])
    assert db.drop_index("author.name")
    db.close()
    with pytest.raises(InvalidInputError, match=r"author\.name.*create_index"):
        open_db(dim=2, indexed_fields=["author.name"])
    with pytest.raises(InvalidInputError):
        open_db(indexed_fields="lang")
    assert open_db().count({"year": 3}) == 14


@pytest.mark.engines(without=("postgres",))
def test_fields_that_filters_use_often_are_indexed(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """After some different filters on a field of many records, an index is there by itself."""
    db = open_db(dim=2)
    db.add_many(rng.random((20_000, 2)), [{"n": i} for i in range(20_000)])
    for n in range(10):
        assert db.count({"n": n}) == 1
    deadline = time.monotonic() + 60
    while db.stats().indexed_fields != ("n",):
        assert time.monotonic() < deadline
    assert db.count({"n": {"$gte": 19_990}}) == 10
