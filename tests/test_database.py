"""What each public method promises, on one collection in a real folder."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nopokedb import (
    BatchTooLargeError,
    ClosedError,
    DuplicateIdError,
    Hit,
    InvalidIdError,
    InvalidInputError,
    InvalidVectorError,
    NoPokeDB,
    NoPokeError,
    Record,
)
from nopokedb.distribution import install_hint
from nopokedb.records import Part, id_order

pytestmark = pytest.mark.engines

DIM = 4
A = [1.0, 0.0, 0.0, 0.0]
B = [0.0, 1.0, 0.0, 0.0]
C = [0.0, 0.0, 1.0, 0.0]
SPACES = ("cosine", "l2", "ip")
EVERYTHING: tuple[Part, ...] = ("metadata", "vector", "text")

Open = Callable[..., NoPokeDB]


@pytest.fixture
def db(open_db: Open) -> NoPokeDB:
    """An empty collection."""
    return open_db(dim=DIM)


def ids_of(records: Any) -> list[int | str]:
    return [record.id for record in records]


def dump(db: NoPokeDB) -> list[Record]:
    return list(db.scan(include=EVERYTHING))


def float32(values: Any) -> bytes:
    return np.asarray(values, dtype=np.float32).tobytes()


def stored(db: NoPokeDB, id_: int | str) -> bytes:
    vector = db[id_].vector
    assert vector is not None and vector.dtype == np.float32 and vector.shape == (db.dim,)
    return vector.tobytes()


@pytest.fixture
def limit_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the size of one atomic batch, so that small input is already too large."""

    def limit(size_bytes: int) -> None:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "nopokedb" and hasattr(module, "MAX_BATCH_BYTES"):
                monkeypatch.setattr(module, "MAX_BATCH_BYTES", size_bytes)

    return limit


# --- adding and getting ------------------------------------------------------------------------------------


def test_what_was_added_is_there(db: NoPokeDB) -> None:
    """`add` returns the id; every way of reading sees the record at once."""
    id_ = db.add(A, {"name": "a"}, text="words")
    assert id_ == 0
    assert db.get(id_) == db.get(vid=id_) == {"name": "a"}
    assert db[id_] == Record(0, {"name": "a"}, np.array(A, np.float32), "words")
    assert id_ in db and 1 not in db and "0" not in db
    assert len(db) == db.count() == 1
    assert db.get_many([1, 0]) == [None, Record(0, {"name": "a"})]
    assert [hit.id for hit in db.query(A)] == [0]


def test_missing_metadata_is_empty_and_an_absent_record_is_none(db: NoPokeDB) -> None:
    """None from `get` always means: no such record."""
    plain, empty = db.add(A), db.add(A, {})
    assert db.get(plain) == {} and db.get(empty) == {}
    assert db.get(2) is None and db.get("0") is None
    assert db.query(A)[0].metadata == {}


def test_automatic_ids_count_up_from_zero(db: NoPokeDB) -> None:
    """One by one, in batches, and mixed."""
    assert db.add(A) == 0
    assert db.add_many([A, B, C]) == [1, 2, 3]
    with db.batch() as batch:
        assert [batch.add(A), batch.add(B)] == [4, 5]
    assert db.add(A) == 6
    assert all(type(id_) is int for id_ in ids_of(db.scan()))


def test_automatic_ids_are_never_used_again(open_db: Open) -> None:
    """Not after deleting, not after reopening, not after deleting everything and reopening twice."""
    db = open_db(dim=DIM)
    assert db.add_many([A, A, A]) == [0, 1, 2]
    assert db.delete(2)
    assert db.add(A) == 3
    assert db.delete_many([0, 1, 3]) == 3
    db.close()
    open_db().close()
    db = open_db()
    assert db.count() == 0
    assert db.add(A) == 4


@pytest.mark.parametrize("way", ["add", "add_many", "upsert", "upsert_many", "batch"])
def test_automatic_ids_continue_above_given_ones(open_db: Open, way: str) -> None:
    """A given larger int moves the counter, whichever call brought it, also after it was deleted."""
    db = open_db(dim=DIM)
    if way == "add":
        db.add(A, id=100)
    elif way == "add_many":
        db.add_many([A, A, A], ids=["x", 100, 7])
    elif way == "upsert":
        db.upsert(100, A)
    elif way == "upsert_many":
        db.upsert_many([100, 7], [A, A])
    else:
        with db.batch() as batch:
            batch.add(A, id=100)
            assert batch.add(A) == 101
            batch.delete(101)
    last = 101 if way == "batch" else 100
    assert db.add(B) == last + 1
    db.delete_many([100, last + 1])
    db.close()
    assert open_db().add(B) == last + 2


def test_negative_and_str_ids_leave_the_counter_alone(db: NoPokeDB) -> None:
    """Automatic ids start at 0 whatever is below, and digits in a str are no number."""
    db.add(A, id=-5)
    db.add(A, id="99")
    assert db.add(A) == 0


def test_refused_add_moves_no_counter(db: NoPokeDB) -> None:
    """An id that was not written was not used."""
    db.add(A, id=5)
    with pytest.raises(DuplicateIdError):
        db.add_many([A, A], ids=[1000, 5])
    assert db.add(A) == 6


def test_ints_and_strs_are_distinct_ids(open_db: Open) -> None:
    """1 and "1" are two records, before and after reopening."""
    db = open_db(dim=DIM)
    db.add(A, {"is": "int"}, id=1)
    db.add(B, {"is": "str"}, id="1")
    db.close()
    db = open_db()
    assert db.get(1) == {"is": "int"} and db.get("1") == {"is": "str"}
    assert db.get(np.int64(1)) == {"is": "int"}
    assert db.delete("1") and 1 in db and "1" not in db


@pytest.mark.parametrize(
    "id_", ["\0", "a\0b", "a", "é", "e\u0301", "\U0001f600", " ", "'", '"; DROP TABLE records', "x" * 512, "\ufeff"]
)
def test_any_str_is_an_id_as_it_is(open_db: Open, id_: str) -> None:
    """No character is special, none is normalised, shorter prefixes are other ids."""
    db = open_db(dim=DIM)
    db.add(A, {"is": id_}, id=id_)
    for other in {id_ + "x"[: 512 - len(id_.encode())], id_[:1], id_.rstrip("\0"), id_.strip()} - {id_, ""}:
        assert other not in db
    db.close()
    db = open_db()
    assert ids_of(db.scan()) == [id_] and db.get(id_) == {"is": id_}
    assert [hit.id for hit in db.query(A)] == [id_]


@pytest.mark.parametrize(
    "vector",
    [
        np.array([1, 2, 3, 4], np.float64) / 3,
        np.array([1, 2, 3, 4], np.float32) / 3,
        np.array([1, 2, 3, 4], np.float16) / 3,
        np.array([1, 2, 3, 4], np.int32),
        np.array([1, 2, 3, 4], np.uint8),
        [1, 2, 3, 4],
        (0.1, 0.2, 0.3, 0.4),
        [np.float32(0.1), 1, 2.5, np.int8(3)],
        np.array([0.1, 0.2, 0.3, 0.4], ">f8"),
        np.arange(16, dtype=np.float32).reshape(4, 4)[:, 1],
        [-0.0, 1e-45, 1e-38, 1e18],
        [7.0, 0.0, 0.0, 0.0],
    ],
)
def test_vector_comes_back_as_the_float32_that_was_given(open_db: Open, vector: Any) -> None:
    """Byte for byte: not normalised, no signed zero or subnormal lost, from every way of reading."""
    db = open_db(dim=DIM)
    db.add(vector)
    db.add_many([vector, vector])
    db.upsert("x", vector)
    for _ in range(2):
        for record in db.scan(include=("vector",)):
            assert record.vector is not None and record.vector.tobytes() == float32(vector)
            assert stored(db, record.id) == float32(vector)
        for hit in db.query(vector, include=("vector",)):
            assert hit.vector.tobytes() == float32(hit["vector"]) == float32(vector)
        db.close()
        db = open_db()


def test_array_changed_after_the_call_changes_nothing(open_db: Open) -> None:
    """What is stored is what was given at the time, also inside a batch that ends later."""
    db = open_db(dim=DIM)
    one, many = np.array(A, np.float32), np.array([A, B], np.float32)
    metadata: dict[str, Any] = {"list": [1]}
    db.add(one, metadata)
    db.add_many(many)
    db.upsert("u", one)
    db.upsert_many(["v", "w"], many)
    with db.batch() as batch:
        batch.add(one, metadata)
        batch.upsert("x", one)
        one[:], many[:] = 9, 9
        metadata["list"].append(2)
    db.close()
    db = open_db()
    for id_ in (0, 1, 3, "u", "v", "x"):
        assert stored(db, id_) == float32(A)
    assert stored(db, 2) == stored(db, "w") == float32(B)
    assert db.get(0) == db.get(3) == {"list": [1]}


def test_what_a_read_returned_can_be_changed_freely(db: NoPokeDB) -> None:
    """Results are the caller's own: neither later reads nor answers see the change."""
    db.add_many([A, B], [{"list": [1]}, {}])
    for _ in range(2):
        record = db[0]
        assert record.metadata == {"list": [1]} and record.vector is not None
        record.metadata["list"].append(2)
        record.vector[:] = 9
        hit = db.query(A, include=EVERYTHING)[0]
        assert hit["metadata"] == {"list": [1]} and hit["vector"] == A and hit.distance == 0.0
        hit["metadata"].clear()
        hit["vector"][0] = 9
        metadata = db.get(0)
        assert metadata == {"list": [1]}
        metadata["list"] = None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_any_metadata_and_text_come_back(db: NoPokeDB, metadata: dict[str, Any], text: str) -> None:
    """Through the whole store: the values, their types, the order of keys, each character of the text."""
    id_ = db.add(A, metadata, text=text)
    record = db[id_]
    assert json.dumps(record.metadata) == json.dumps(metadata)
    assert record.text == text
    assert json.dumps(db.get_many([id_])[0].metadata) == json.dumps(metadata)  # type: ignore[union-attr]


def test_metadata_and_text_survive_a_reopen_to_the_last_bit(open_db: Open) -> None:
    """Numbers at the borders, every control character, and 16 MiB of text."""
    metadata = {
        "numbers": [5e-324, 1.7976931348623157e308, -0.0, 1e16, 1e-7, 2**63 - 1, -(2**63), 0.1, 1e22],
        "controls": "".join(map(chr, range(32))) + '\x7f\u2028\u2029\ufeff\U0010ffff"\\/',
        "": {"": [[], {}, None, True, False]},
    }
    text = "é" * (8 * 2**20)
    db = open_db(dim=DIM)
    db.add(A, metadata, text=text)
    db.close()
    db = open_db()
    assert json.dumps(db.get(0)) == json.dumps(metadata)
    assert db[0].text == text


# --- upsert ------------------------------------------------------------------------------------------------


def test_upsert_of_a_new_id_adds(db: NoPokeDB) -> None:
    """With a vector, an unknown id becomes a record."""
    db.upsert("x", A)
    assert db["x"] == Record("x", {}, np.array(A, np.float32), None)
    db.upsert(vid=7, vector=B, metadata={"a": 1}, text="t")
    assert db[7] == Record(7, {"a": 1}, np.array(B, np.float32), "t")


@pytest.mark.parametrize("reopen", [False, True])
def test_upsert_keeps_the_parts_that_are_not_given(open_db: Open, reopen: bool) -> None:
    """Vector, metadata and text change one by one; what is None stays."""
    db = open_db(dim=DIM)
    db.add(A, {"n": 1}, id="x", text="one")

    def now(vector: list[float], metadata: dict[str, Any], text: str) -> None:
        nonlocal db
        if reopen:
            db.close()
            db = open_db()
        assert db["x"] == Record("x", metadata, np.array(vector, np.float32), text)
        assert db.count() == 1
        assert [hit.id for hit in db.query(vector)] == ["x"] and db.query(vector)[0].distance == 0.0

    now(A, {"n": 1}, "one")
    db.upsert("x", B)
    now(B, {"n": 1}, "one")
    db.upsert("x", metadata={"m": 2})
    now(B, {"m": 2}, "one")
    db.upsert("x", text="two")
    now(B, {"m": 2}, "two")
    db.upsert("x", C, {}, text="")
    now(C, {}, "")
    db.upsert("x", metadata={"after": "empty text"})
    now(C, {"after": "empty text"}, "")


def test_upsert_finds_the_new_vector_only(db: NoPokeDB) -> None:
    """The replaced vector answers no query any more."""
    db.add_many([A, B])
    db.upsert(0, C)
    assert [(hit.id, hit.distance) for hit in db.query(A, k=10)] == [(0, 1.0), (1, 1.0)]
    assert db.query(C, k=1)[0].id == 0


def test_upsert_merges_by_rfc_7396(db: NoPokeDB) -> None:
    """With `merge` None removes a key, dicts merge, lists and values are replaced."""
    db.add(A, {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": "old", "d": 0})
    db.upsert(0, metadata={"a": {"x": None, "z": 3}, "b": [3], "c": None, "e": {"deep": None}}, merge=True)
    assert db.get(0) == {"a": {"y": 2, "z": 3}, "b": [3], "d": 0, "e": {}}
    db.upsert(0, B, {"d": 1}, text="t", merge=True)
    assert db[0] == Record(0, {"a": {"y": 2, "z": 3}, "b": [3], "d": 1, "e": {}}, np.array(B, np.float32), "t")
    db.upsert(0, metadata={}, merge=True)
    assert db.get(0) == {"a": {"y": 2, "z": 3}, "b": [3], "d": 1, "e": {}}


def test_merge_into_a_new_record_starts_from_nothing(db: NoPokeDB) -> None:
    """A patch for a new id is merged into {}: its Nones name nothing to remove."""
    db.upsert("x", A, {"a": 1, "b": None, "c": {"d": None}}, merge=True)
    assert db.get("x") == {"a": 1, "c": {}}


def test_none_in_metadata_is_kept_without_merge(db: NoPokeDB) -> None:
    """Only a merge gives None its meaning."""
    db.add(A, {"a": None})
    db.upsert(0, metadata={"b": None})
    assert db.get(0) == {"b": None}


def test_upsert_many_adds_and_changes_in_one_call(db: NoPokeDB) -> None:
    """Known and new ids together; None in `metadatas` and `texts` keeps what is there."""
    db.add_many([A, A], [{"n": 0}, {"n": 1}], texts=["zero", "one"])
    db.upsert_many([1, "new", 0], [B, C, B], [None, {"n": 2}, {"m": 3}], texts=[None, "two", None])
    assert dump(db) == [
        Record(0, {"m": 3}, np.array(B, np.float32), "zero"),
        Record(1, {"n": 1}, np.array(B, np.float32), "one"),
        Record("new", {"n": 2}, np.array(C, np.float32), "two"),
    ]
    db.upsert_many([0, 1], metadatas=[{"m": None}, None], merge=True)
    db.upsert_many(["new"], texts=["three"])
    assert [(record.metadata, record.text) for record in dump(db)] == [
        ({}, "zero"),
        ({"n": 1}, "one"),
        ({"n": 2}, "three"),
    ]


def test_update_many_merges_or_replaces(db: NoPokeDB) -> None:
    """One patch for all given ids; absent ids are skipped; the count is of changed records."""
    db.add_many([A, B, C], [{"n": i, "x": 1} for i in range(3)], texts=["a", None, ""])
    lsn = db.stats().lsn
    assert db.update_many([0, "absent", 2, 99], {"x": None, "y": 2}) == 2
    assert [record.metadata for record in db.scan()] == [{"n": 0, "y": 2}, {"n": 1, "x": 1}, {"n": 2, "y": 2}]
    assert db.update_many((id_ for id_ in [0, 1]), {"only": True}, merge=False) == 2
    assert [record.metadata for record in db.scan()] == [{"only": True}, {"only": True}, {"n": 2, "y": 2}]
    assert db.stats().lsn == lsn + 2
    assert [record.text for record in dump(db)] == ["a", None, ""]
    assert stored(db, 0) == float32(A)
    assert db.update_many(["absent"], {"x": 1}) == 0
    assert db.update_many([], {"x": 1}) == 0
    assert db.stats().lsn == lsn + 2


def test_text_is_kept_as_it_is(open_db: Open) -> None:
    """The empty text is a text; None is none."""
    db = open_db(dim=DIM)
    texts = ["words", "", None, "\0", " \n", "Ünïcödé 😀"]
    db.add_many([A] * len(texts), texts=texts)
    for _ in range(2):
        assert [record.text for record in dump(db)] == texts
        assert [hit.text for hit in db.query(A, k=10, include=("text",))] == texts
        db.close()
        db = open_db()


# --- delete ------------------------------------------------------------------------------------------------


def test_deleted_record_is_gone_everywhere(open_db: Open) -> None:
    """From get, scan, count and answers, before and after reopening; False for what is not there."""
    db = open_db(dim=DIM)
    db.add_many([A, B, C], ids=[0, "b", 2])
    assert db.delete("b") is True
    assert db.delete("b") is False
    assert db.delete(vid=2) is True
    assert db.delete(99) is False
    for _ in range(2):
        assert db.get("b") is None and "b" not in db
        assert ids_of(db.scan()) == [0] and db.count() == 1
        assert [hit.id for hit in db.query(B, k=10)] == [0]
        with pytest.raises(KeyError):
            db["b"]
        db.close()
        db = open_db()


def test_delete_many_counts_what_was_there(db: NoPokeDB) -> None:
    """One batch; absent ids are skipped; any iterable of ids."""
    db.add_many([A] * 6)
    lsn = db.stats().lsn
    assert db.delete_many([0, "absent", 5, 77]) == 2
    assert db.delete_many(np.array([1, 2])) == 2
    assert db.stats().lsn == lsn + 2
    assert db.delete_many([]) == db.delete_many(["absent"]) == 0
    assert db.stats().lsn == lsn + 2
    assert ids_of(db.scan()) == [3, 4]


def test_deleted_id_can_be_added_again(open_db: Open) -> None:
    """The new record has nothing of the old one."""
    db = open_db(dim=DIM)
    db.add(A, {"old": 1}, id="x", text="old")
    db.delete("x")
    with pytest.raises(InvalidInputError):
        db.upsert("x", metadata={"needs": "a vector"})
    db.add(B, id="x")
    for _ in range(2):
        assert dump(db) == [Record("x", {}, np.array(B, np.float32), None)]
        db.close()
        db = open_db()


# --- scan --------------------------------------------------------------------------------------------------

MIXED_IDS: list[int | str] = [5, "b", -3, "a", 0, "10", 2**63 - 1, "é", "Z", -(2**63), "1", 10, "aa", "😀", "\uffff", 1]


def test_scan_is_in_id_order_whatever_the_order_of_writing(open_db: Open) -> None:
    """Ints by value, then strs by their UTF-8 bytes, also after updates and reopening."""
    db = open_db(dim=DIM)
    db.add_many([A] * len(MIXED_IDS), ids=MIXED_IDS)
    db.upsert_many(["a", -3], [B, B])
    expected = sorted(MIXED_IDS, key=id_order)
    for _ in range(2):
        assert ids_of(db.scan()) == expected
        db.close()
        db = open_db()


def test_scan_continues_behind_after(db: NoPokeDB) -> None:
    """`after` is exclusive and need not exist; pages joined are the whole."""
    db.add_many([A] * len(MIXED_IDS), ids=MIXED_IDS)
    expected = sorted(MIXED_IDS, key=id_order)
    for at, id_ in enumerate(expected):
        assert ids_of(db.scan(after=id_)) == expected[at + 1 :]
    for absent in (4, "", "aaa", -1, "zzzz", 2):
        if absent != "":
            assert ids_of(db.scan(after=absent)) == [i for i in expected if id_order(i) > id_order(absent)]
    joined: list[int | str] = []
    while page := ids_of(db.scan(after=joined[-1] if joined else None, limit=3)):
        joined += page
    assert joined == expected


@pytest.mark.parametrize("limit", [0, 1, 511, 512, 513, 1500, 5000])
def test_scan_stops_at_limit(db: NoPokeDB, limit: int) -> None:
    """Over page borders and past deleted records; 0 gives nothing."""
    db.add_many(np.ones((1600, DIM)))
    db.delete_many(range(0, 1600, 16))
    expected = [i for i in range(1600) if i % 16]
    assert ids_of(db.scan(limit=limit)) == expected[:limit]
    assert ids_of(db.scan(after=700, limit=limit)) == [i for i in expected if i > 700][:limit]


def test_scan_returns_what_include_names(db: NoPokeDB) -> None:
    """Parts not asked for are None."""
    db.add(A, {"n": 1}, text="t")
    vector = np.array(A, np.float32)
    assert list(db.scan()) == [Record(0, {"n": 1})]
    assert list(db.scan(include=())) == db.get_many([0], include=()) == [Record(0)]
    for include, expected in (
        (("vector",), Record(0, None, vector)),
        (("text",), Record(0, text="t")),
        (["text", "metadata", "text"], Record(0, {"n": 1}, text="t")),
        (EVERYTHING, Record(0, {"n": 1}, vector, "t")),
    ):
        assert list(db.scan(include=include)) == db.get_many([0], include=include) == [expected]


def test_scan_walks_one_state(db: NoPokeDB) -> None:
    """Records written, changed or deleted after the call do not show, over page borders too."""
    db.add_many(np.ones((1300, DIM)), [{"n": i} for i in range(1300)], texts=["old"] * 1300)
    scan = db.scan(include=EVERYTHING)
    seen = [next(scan)]
    db.delete_many(range(600, 700))
    db.update_many(range(700, 1300), {"changed": True}, merge=False)
    db.upsert_many(range(1, 600), np.zeros((599, DIM)) + 2, texts=["new"] * 599)
    db.add_many([A, A], ids=[-1, "z"])
    db.save()
    seen += scan
    assert [record.metadata for record in seen] == [{"n": i} for i in range(1300)]
    assert ids_of(seen) == list(range(1300))
    assert {record.text for record in seen} == {"old"}
    assert all(record.vector is not None and record.vector.tolist() == [1.0] * DIM for record in seen)
    assert db.count() == 1202


def test_scan_starts_at_the_call_not_at_the_first_record(db: NoPokeDB) -> None:
    """The snapshot is taken when `scan` is called."""
    db.add(A)
    scan = db.scan()
    db.add(B)
    assert ids_of(scan) == [0]


def test_writing_while_scanning_is_allowed(db: NoPokeDB) -> None:
    """The loop that changes each record as it goes ends."""
    db.add_many(np.ones((700, DIM)))
    for record in db.scan():
        db.upsert(record.id, metadata={"seen": record.id})
        if isinstance(record.id, int) and record.id % 100 == 0:
            db.add(A)
    assert sum(record.metadata == {"seen": record.id} for record in db.scan()) == 700
    assert db.count() == 707


def test_get_many_keeps_order_and_repeats(db: NoPokeDB) -> None:
    """One answer per id asked for, None where there is none."""
    db.add_many([A, B], ids=["x", 1])
    records = db.get_many([1, "1", "x", 1])
    assert [record and record.id for record in records] == [1, None, "x", 1]
    assert db.get_many([]) == []
    assert db.get_many(id_ for id_ in ["x"])[0] == db.get_many(np.array(["x"]))[0] == Record("x", {})
    db.add(C, id="t", text="words")
    record = Record("t", text="words")
    assert db.get_many(["t", "x", "t"], include=("text",)) == [record, Record("x"), record]


# --- batches -----------------------------------------------------------------------------------------------


def test_batch_is_one_frame(db: NoPokeDB) -> None:
    """All of it becomes visible at once, under one lsn."""
    db.add_many([A, B])
    lsn = db.stats().lsn
    with db.batch() as batch:
        assert batch.add(C, {"new": True}, text="t") == 2
        batch.upsert(0, metadata={"changed": True})
        batch.delete(1)
        assert ids_of(db.scan()) == [0, 1] and db.get(0) == {}
    assert db.stats().lsn == lsn + 1
    assert [(record.id, record.metadata, record.text) for record in dump(db)] == [
        (0, {"changed": True}, None),
        (2, {"new": True}, "t"),
    ]


def test_batch_that_raises_writes_nothing(open_db: Open) -> None:
    """Any exception, an interrupt included, leaves everything as it was, and is not swallowed."""
    db = open_db(dim=DIM)
    db.add(A, {"n": 0})
    before, lsn = dump(db), db.stats().lsn
    for error in (ZeroDivisionError, KeyboardInterrupt, InvalidVectorError):
        with pytest.raises(error), db.batch() as batch:
            batch.delete(0)
            batch.add(B, id="new")
            if error is InvalidVectorError:
                batch.add([1.0])
            raise error
        assert dump(db) == before and db.stats().lsn == lsn
    db.close()
    assert dump(open_db()) == before


def test_batch_refused_at_its_end_writes_nothing(db: NoPokeDB) -> None:
    """A part that only the state can refuse refuses all parts."""
    db.add(A, {"n": 0})
    before = dump(db)
    with pytest.raises(DuplicateIdError), db.batch() as batch:
        batch.delete("absent")
        batch.add(B, id="new")
        batch.upsert(0, metadata={"changed": True})
        batch.add(C, id=0)
    assert dump(db) == before


def test_later_parts_of_a_batch_see_earlier_ones(open_db: Open) -> None:
    """Add, delete and add again the same id; keep parts and merge into what the batch itself wrote."""
    db = open_db(dim=DIM)
    db.add(A, {"old": 1}, id="known", text="old")
    with db.batch() as batch:
        batch.add(A, {"n": 1}, id="x", text="one")
        batch.delete("x")
        batch.add(B, {"n": 2}, id="x")
        batch.upsert("x", metadata={"m": 3}, merge=True)
        batch.upsert("x", text="two")
        batch.upsert("x", metadata={"n": None, "k": 4}, merge=True)
        batch.add(C, id="gone")
        batch.delete("gone")
        batch.delete("known")
        batch.add(C, {"new": 1}, id="known")
        batch.upsert("known", A)
        batch.upsert("twice", B, {"first": 1}, text="t")
        batch.upsert("twice", C)
    expected = [
        Record("known", {"new": 1}, np.array(A, np.float32), None),
        Record("twice", {"first": 1}, np.array(C, np.float32), "t"),
        Record("x", {"m": 3, "k": 4}, np.array(B, np.float32), "two"),
    ]
    for _ in range(2):
        assert dump(db) == expected
        assert db.count() == 3 and "gone" not in db
        assert sorted(hit.id for hit in db.query(A, k=10)) == ["known", "twice", "x"]
        assert [hit.id for hit in db.query(B, k=1)] == ["x"]
        db.close()
        db = open_db()


def test_automatic_ids_of_a_batch_avoid_its_given_ones(db: NoPokeDB) -> None:
    """A given id at the counter's place does not collide with an automatic one of the same batch."""
    with db.batch() as batch:
        batch.add(A, id=0)
        first = batch.add(B)
        batch.upsert(50, C)
        second = batch.add(B)
    assert len({0, 50, first, second}) == 4
    assert db.count() == 4


def test_automatic_ids_of_an_open_batch_are_nobody_else_s(db: NoPokeDB) -> None:
    """Adds beside an open batch get other ids; both are kept."""
    with db.batch() as batch:
        inside = [batch.add(A), batch.add(A)]
        outside = [db.add(B), *db.add_many([B, B])]
        inside.append(batch.add(A))
    assert len({*inside, *outside}) == 6
    assert sorted(ids_of(db.scan())) == sorted([*inside, *outside])


def test_empty_batch_writes_nothing(db: NoPokeDB) -> None:
    """No frame for nothing, nor for deleting what is not there."""
    lsn = db.stats().lsn
    with db.batch():
        pass
    with db.batch() as batch:
        batch.delete("absent")
    assert db.stats().lsn == lsn


# --- many records ------------------------------------------------------------------------------------------


def test_add_many_of_arrays_is_one_atomic_batch(db: NoPokeDB) -> None:
    """Up to the size limit, whatever `batch_size` says."""
    lsn = db.stats().lsn
    ids = db.add_many(np.ones((2500, DIM)), [{"n": i} for i in range(2500)], batch_size=10)
    assert ids == list(range(2500)) and db.stats().lsn == lsn + 1
    assert db.get(2499) == {"n": 2499}
    with pytest.raises(DuplicateIdError) as caught:
        db.add_many([A] * 30, ids=[*range(5000, 5029), 0], batch_size=10)
    assert list(caught.value.committed) == [] and db.count() == 2500


@pytest.mark.parametrize("columns", ["arrays", "lists", "tuples", "mixed", "deque"])
def test_add_many_takes_any_sequence(db: NoPokeDB, columns: str) -> None:
    """Whatever holds the rows, each record gets its own parts."""
    vectors: Any = np.eye(DIM)
    metadatas: Any = [{"n": i} for i in range(DIM)]
    ids: Any = ["a", "b", "c", "d"]
    texts: Any = ["ta", None, "", "td"]
    if columns == "arrays":
        metadatas, ids, texts = (np.array(column, object) for column in (metadatas, ids, texts))
    elif columns == "lists":
        vectors = vectors.tolist()
    elif columns == "tuples":
        vectors, metadatas, ids, texts = tuple(map(tuple, vectors)), *map(tuple, (metadatas, ids, texts))
    elif columns == "mixed":
        vectors = [A, np.array(B), tuple(C), np.array([0, 0, 0, 1], np.int8)]
    else:
        vectors, metadatas, ids, texts = map(deque, (vectors, metadatas, ids, texts))
    assert db.add_many(vectors, metadatas, ids=ids, texts=texts) == ["a", "b", "c", "d"]
    assert [(r.metadata, r.text) for r in dump(db)] == [
        ({"n": 0}, "ta"),
        ({"n": 1}, None),
        ({"n": 2}, ""),
        ({"n": 3}, "td"),
    ]
    assert stored(db, "c") == float32(C)


def test_add_many_takes_single_metadatas_as_none(db: NoPokeDB) -> None:
    """None among `metadatas` is {}."""
    db.add_many([A, B], [None, {"n": 1}])
    assert [record.metadata for record in db.scan()] == [{}, {"n": 1}]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 11, 1000])
def test_add_many_from_generators_is_chunked(db: NoPokeDB, batch_size: int) -> None:
    """Iterators are read a chunk at a time, each chunk atomic; nothing is read ahead of it."""
    read: list[int] = []

    def vectors() -> Iterator[list[float]]:
        for n in range(10):
            assert db.count() >= n - n % batch_size, "a chunk was not written before the next was read"
            read.append(n)
            yield [1.0, float(n), 0.0, 0.0]

    lsn = db.stats().lsn
    ids = db.add_many(
        vectors(), ({"n": n} for n in range(10)), ids=(f"id{n}" for n in range(10)), batch_size=batch_size
    )
    assert ids == [f"id{n}" for n in range(10)] and read == list(range(10))
    assert db.stats().lsn == lsn + -(-10 // batch_size)
    assert [record.metadata for record in db.scan()] == [{"n": n} for n in range(10)]
    assert stored(db, "id7") == float32([1, 7, 0, 0])


def test_add_many_mixes_an_iterator_with_lists(db: NoPokeDB) -> None:
    """One iterator is enough to be chunked; lists are read along."""
    ids = db.add_many(iter([A, B, C]), [{"n": 0}, {"n": 1}, {"n": 2}], texts=["a", "b", "c"], batch_size=2)
    assert ids == [0, 1, 2]
    assert [(record.metadata, record.text) for record in dump(db)] == [({"n": n}, "abc"[n]) for n in range(3)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("vector", InvalidVectorError),
        ("id", InvalidIdError),
        ("duplicate", DuplicateIdError),
        ("short", InvalidInputError),
    ],
)
def test_error_in_the_middle_names_what_was_committed(open_db: Open, fault: str, error: type[NoPokeError]) -> None:
    """The chunks before the error are durable and listed, the chunk with the error left no trace."""
    db = open_db(dim=DIM)
    vectors: list[Any] = [A] * 10
    ids: list[Any] = [f"id{n}" for n in range(10)]
    if fault == "vector":
        vectors[7] = [1.0]
    elif fault == "id":
        ids[7] = 1.5
    elif fault == "duplicate":
        ids[7] = "id1"
    else:
        del vectors[7:]
    with pytest.raises(error) as caught:
        db.add_many(iter(vectors), ids=iter(ids), batch_size=3)
    assert caught.value.committed == ["id0", "id1", "id2", "id3", "id4", "id5"]
    db.close()
    db = open_db()
    assert ids_of(db.scan()) == caught.value.committed


def test_error_in_the_middle_of_upserts_names_what_was_committed(db: NoPokeDB) -> None:
    """`upsert_many` likewise."""
    with pytest.raises(InvalidInputError) as caught:
        db.upsert_many(iter([1, 2, 3, 4]), iter([A, B, [float("nan")] * 4, C]), batch_size=2)
    assert caught.value.committed == [1, 2] and ids_of(db.scan()) == [1, 2]


def test_error_of_the_caller_s_own_iterator_passes_through(db: NoPokeDB) -> None:
    """Their error, not ours; whole chunks before it are kept."""

    def vectors() -> Iterator[list[float]]:
        yield from [A] * 5
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.add_many(vectors(), batch_size=2)
    assert ids_of(db.scan()) == [0, 1, 2, 3]


def test_first_iterator_to_end_decides_nothing(db: NoPokeDB) -> None:
    """Iterators of different lengths are an error even where a chunk ends with one of them."""
    with pytest.raises(InvalidInputError) as caught:
        db.add_many(iter([A] * 4), iter([{}] * 6), batch_size=2)
    assert caught.value.committed == [0, 1, 2, 3]
    assert db.count() == 4


@pytest.mark.parametrize("kind", ["array", "list", "metadata", "text"])
def test_input_over_the_size_limit_is_chunked(db: NoPokeDB, limit_batches: Callable[[int], None], kind: str) -> None:
    """Larger than one atomic batch may be: chunks of `batch_size`, and all of it arrives."""
    limit_batches(4096)
    lsn = db.stats().lsn
    if kind == "array":
        ids = db.add_many(np.ones((300, DIM), np.float32), [{"n": i} for i in range(300)], batch_size=100)
    elif kind == "list":
        ids = db.add_many([A] * 300, [{"n": i} for i in range(300)], texts=["t"] * 300, batch_size=100)
    elif kind == "metadata":
        ids = db.add_many([A] * 10, [{"n": i, "x": "y" * 500} for i in range(10)], batch_size=4)
    else:
        ids = db.add_many([A] * 10, [{"n": i} for i in range(10)], texts=["é" * 250] * 10, batch_size=4)
    assert ids == list(range(len(ids))) and len(ids) in (10, 300)
    assert db.stats().lsn == lsn + 3
    assert [record.metadata["n"] for record in db.scan() if record.metadata] == ids


def test_sequence_without_slices_is_chunked_too(db: NoPokeDB, limit_batches: Callable[[int], None]) -> None:
    """A deque or the keys of a dict have a length but no slices: large input of them arrives as well."""
    limit_batches(1024)
    named = {f"id{n:03}": {"n": n} for n in range(100)}
    ids = db.add_many(np.ones((100, DIM)), deque(named.values()), ids=named.keys(), batch_size=30)
    assert ids == list(named)
    assert {record.id: record.metadata for record in db.scan()} == named


def test_error_in_large_input_names_what_was_committed(db: NoPokeDB, limit_batches: Callable[[int], None]) -> None:
    """Chunked input is not atomic, and the error says so."""
    limit_batches(1024)
    vectors = np.ones((100, DIM), np.float32)
    vectors[75] = np.nan
    with pytest.raises(InvalidVectorError) as caught:
        db.add_many(vectors, batch_size=20)
    assert caught.value.committed == list(range(60)) and db.count() == 60


@pytest.mark.engines("embedded")
def test_input_larger_than_256_mib_is_chunked(open_db: Open) -> None:
    """The real limit: one row more than 256 MiB of vectors, which take no memory here, is cut into chunks."""
    dim, count = 16_384, 4_097
    vectors = np.broadcast_to(np.float32(0), (count, dim))
    assert vectors.size * 4 > 256 * 2**20
    with open_db(dim=dim, space="l2", durability="os") as db:
        # The second chunk has a fault, so that not all of it is written to the disk of whoever runs this.
        metadatas: list[Any] = [{}] * count
        metadatas[150] = "not a dict"
        with pytest.raises(InvalidInputError) as caught:
            db.add_many(vectors, metadatas, batch_size=100)
        assert len(caught.value.committed) == db.count() == 100


@pytest.mark.engines(without=("rest", "grpc"))
def test_chunk_over_the_size_limit_is_refused(db: NoPokeDB, limit_batches: Callable[[int], None]) -> None:
    """A single chunk that is too large cannot be atomic: an error, which names the remedy."""
    limit_batches(1024)
    with pytest.raises(BatchTooLargeError, match="batch_size"):
        db.add_many(iter([A] * 100), batch_size=100)
    assert db.count() == 0


def test_progress_bar_counts_records(db: NoPokeDB, capsys: pytest.CaptureFixture[str]) -> None:
    """With tqdm installed, progress shows on stderr and nothing else changes."""
    pytest.importorskip("tqdm")
    assert db.add_many([A] * 5, progress=True) == [0, 1, 2, 3, 4]
    assert "5/5" in capsys.readouterr().err
    db.add_many(iter([A] * 5), batch_size=2, progress=True)
    db.upsert_many([0, 1], [B, B], progress=True)
    with pytest.raises(InvalidInputError):
        db.add_many([[1.0]], progress=True)
    assert db.count() == 10


def test_progress_without_tqdm_names_the_install_line(db: NoPokeDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImportError with the command that helps, before anything is written."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="tqdm") as caught:
        db.add_many([A], progress=True)
    assert install_hint("progress") in str(caught.value)
    assert db.count() == 0 and db.add(A) == 0


def test_extra_named_by_the_progress_hint_exists() -> None:
    """The install line works only if the extra is declared."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert any("tqdm" in line for line in project["project"]["optional-dependencies"].get("progress", []))


# --- queries -----------------------------------------------------------------------------------------------


def distances_in_float64(space: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The definitions, in NumPy."""
    q, v = query.astype(np.float64), vectors.astype(np.float64)
    if space == "l2":
        return ((v - q) ** 2).sum(axis=1)
    dots = v @ q
    if space == "ip":
        return 1 - dots
    return 1 - dots / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dim", [1, 2, 3, 17, 128])
def test_hits_have_the_distances_and_scores_of_the_definition(
    open_db: Open, rng: np.random.Generator, space: str, dim: int
) -> None:
    """cosine: 1 - cos and cos; l2: squared distance and minus it; ip: 1 - dot and dot. Best first, none missed."""
    vectors = rng.normal(size=(300, dim)).astype(np.float32)
    with open_db(dim=dim, space=space) as db:
        db.add_many(vectors)
        for query in rng.normal(size=(5, dim)).astype(np.float32):
            expected = distances_in_float64(space, query, vectors)
            hits = db.query(query, k=20)
            assert len(hits) == 20
            found = np.array([hit.distance for hit in hits])
            np.testing.assert_allclose(found, expected[[hit.id for hit in hits]], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found, np.sort(expected)[:20], rtol=1e-9, atol=1e-12)
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            np.testing.assert_allclose(scores, -found if space == "l2" else 1 - found, rtol=1e-9, atol=1e-12)
            assert all(type(hit.distance) is float and type(hit.score) is float for hit in hits)


@pytest.mark.parametrize("space", SPACES)
def test_equal_vector_is_at_no_distance(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Cosine and l2 put a record at 0 from itself; cosine stays within [0, 2] against rounding."""
    vectors = rng.normal(size=(50, 7)).astype(np.float32)
    with open_db(dim=7, space=space) as db:
        db.add_many(vectors)
        for id_, vector in enumerate(vectors):
            hits = {hit.id: hit for hit in db.query(vector, k=50)}
            if space == "ip":
                assert hits[id_].score == pytest.approx(float((vector.astype(np.float64) ** 2).sum()), rel=1e-12)
            else:
                assert hits[id_].distance == pytest.approx(0, abs=1e-15)
                assert all(hit.distance >= 0 for hit in hits.values())
            if space == "cosine":
                assert all(hit.distance <= 2 and -1 <= hit.score <= 1 for hit in hits.values())
                assert db.query(-vector, k=50)[-1].distance == pytest.approx(2, abs=1e-15)


SCALES = (1e-14, 1e-9, 1e-6, 1e4, 1e9, 3e17)


@pytest.mark.parametrize(("space", "scale"), [*itertools.product(SPACES, SCALES), ("l2", 1e-21), ("ip", 1e-21)])
def test_order_does_not_depend_on_the_scale_of_the_vectors(
    open_db: Open, rng: np.random.Generator, space: str, scale: float
) -> None:
    """Tiny and huge vectors are ranked as their float64 scores are; l2 and ip keep the score's digits."""
    vectors = (rng.normal(size=(200, 16)) * scale).astype(np.float32)
    query = (rng.normal(size=16) * scale).astype(np.float32)
    wide, q = vectors.astype(np.float64), query.astype(np.float64)
    if space == "ip":
        scores = wide @ q
    else:
        scores = (-1 if space == "l2" else 1) * distances_in_float64(space, query, vectors)
        scores = scores if space == "l2" else 1 - scores
    with open_db(dim=16, space=space) as db:
        db.add_many(vectors)
        hits = db.query(query, k=30)
    assert [hit.id for hit in hits] == np.argsort(-scores, kind="stable")[:30].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:30], rtol=1e-9)


def test_dot_products_that_nearly_cancel_are_ranked_right(open_db: Open, rng: np.random.Generator) -> None:
    """Large vectors whose dot product is small: single precision cannot rank them, and the answer is still exact."""
    big = rng.normal(size=(3000, 32)) * 1e6
    vectors = (np.concatenate([big, -big], axis=1) + rng.normal(size=(3000, 64)) * 0.05).astype(np.float32)
    query = np.ones(64, np.float32)
    dots = vectors.astype(np.float64) @ query.astype(np.float64)
    with open_db(dim=64, space="ip", index="exact") as db:
        db.add_many(vectors)
        hits = db.query(query, k=5)
    assert [hit.score for hit in hits] == pytest.approx(np.sort(dots)[::-1][:5], rel=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_ties_are_broken_by_id_order(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """2,000 equal vectors under mixed ids in random order: the ten smallest ids, however they are stored."""
    ids: list[int | str] = [*range(-500, 500), *(f"id{n}" for n in range(1000))]
    rng.shuffle(ids)  # type: ignore[arg-type]
    expected = sorted(ids, key=id_order)
    vector = [0.3, -0.7, 0.2, 0.9]
    with open_db(dim=DIM, space=space) as db:
        db.add_many([vector] * 2000, ids=ids)
        for k in (1, 10, 1500, 2000):
            assert [hit.id for hit in db.query(vector, k=k)] == expected[:k]
            assert [hit.id for hit in db.query([1, 2, 3, 4], k=k)] == expected[:k]
        db.delete_many(expected[:5])
        db.upsert(expected[7], vector)  # now the last row of the file
        db.upsert(expected[3], vector)
        now = [expected[3], *expected[5:]]
        assert [hit.id for hit in db.query(vector, k=10)] == now[:10]
        assert [hit.id for hit in db.query(vector, k=1100)] == now[:1100]
        assert len({hit.distance for hit in db.query(vector, k=2000)}) == 1


def test_ties_at_the_end_of_the_answer_are_broken_by_id_order(db: NoPokeDB) -> None:
    """The k-th place goes to the smallest id among equals, behind closer ones."""
    db.add_many([B] * 50, ids=range(100, 150))
    db.add(A, id=999)
    db.add_many([B] * 50, ids=[f"s{n:02}" for n in range(50)])
    assert [hit.id for hit in db.query(A, k=4)] == [999, 100, 101, 102]
    assert [hit.id for hit in db.query(A, k=53)][-3:] == [149, "s00", "s01"]


@pytest.mark.parametrize("space", SPACES)
def test_shorter_answer_is_the_beginning_of_a_longer_one(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Hits for k are the first k of more, to the last bit of the distance."""
    vectors = rng.normal(size=(400, 33)).astype(np.float32)
    with open_db(dim=33, space=space) as db:
        db.add_many(vectors)
        for query in rng.normal(size=(5, 33)):
            longest = db.query(query, k=400)
            for k in (1, 2, 7, 50, 399):
                assert db.query(query, k=k) == longest[:k]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_query_many_is_query_for_each_row(open_db: Open, rng: np.random.Generator, space: str, dim: int) -> None:
    """Exactly: the same hits with the same bits, for every option."""
    vectors = rng.normal(size=(500, dim)).astype(np.float32)
    queries = np.concatenate([rng.normal(size=(20, dim)).astype(np.float32), vectors[:5]])
    with open_db(dim=dim, space=space) as db:
        db.add_many(vectors, [{"n": n} for n in range(500)], texts=["t", None] * 250)
        db.delete_many(range(0, 500, 7))
        for options in (
            {},
            {"k": 1},
            {"k": 1000, "include": ()},
            {"k": 10, "ef": 40},
            {"k": 10, "max_distance": 0.9, "include": EVERYTHING},
        ):
            many = db.query_many(queries, **options)  # type: ignore[arg-type]
            assert many == [db.query(query, **options) for query in queries]  # type: ignore[arg-type]
            assert all(type(hit) is Hit for hits in many for hit in hits)
        assert db.query_many(queries.tolist(), 3) == db.query_many(queries, k=3)


def test_query_gives_what_include_names(db: NoPokeDB) -> None:
    """Metadata by default; id, score and distance always."""
    db.add(A, {"n": 1}, text="t")
    always = {"id": 0, "score": 1.0, "distance": 0.0}
    assert db.query(A) == [always | {"metadata": {"n": 1}}]
    assert db.query(A, include=()) == [always]
    assert db.query(A, include=["vector"]) == [always | {"vector": A}]
    assert db.query(A, include=EVERYTHING) == [always | {"metadata": {"n": 1}, "vector": A, "text": "t"}]
    assert list(db.query(A)[0]) == ["id", "metadata", "score", "distance"]
    with pytest.raises(AttributeError, match="include"):
        db.query(A, include=())[0].metadata  # noqa: B018
    assert json.loads(json.dumps(db.query(A, include=EVERYTHING))) == db.query(A, include=EVERYTHING)


def test_more_than_there_are_returns_all(db: NoPokeDB) -> None:
    """k up to 100,000 over three records."""
    db.add_many([A, B, C])
    db.delete(1)
    assert [hit.id for hit in db.query(A, k=100_000)] == [0, 2]
    assert [len(hits) for hits in db.query_many([A, B], k=100_000)] == [2, 2]


def test_empty_collection_answers_with_nothing(open_db: Open) -> None:
    """No records, none left, or none after reopening: an empty list, not an error."""
    db = open_db(dim=DIM)
    assert db.query(A) == [] and db.query_many([A, B]) == [[], []]
    assert list(db.scan()) == [] and db.count() == len(db) == 0
    db.add_many([A, B])
    db.delete_many([0, 1])
    for _ in range(2):
        assert db.query(A, k=3, ef=10, max_distance=1) == [] and db.query_many([A, B]) == [[], []]
        db.close()
        db = open_db()


@pytest.mark.parametrize("space", SPACES)
def test_max_distance_leaves_out_what_is_farther(open_db: Open, rng: np.random.Generator, space: str) -> None:
    """Hits at exactly the limit stay; the limit may be negative, infinite, an int or a NumPy number."""
    vectors = rng.normal(size=(100, 5)).astype(np.float32)
    with open_db(dim=5, space=space) as db:
        db.add_many(vectors)
        query = rng.normal(size=5)
        hits = db.query(query, k=100)
        for at in (0, 10, 57, 99):
            limit = hits[at].distance
            assert db.query(query, k=100, max_distance=limit) == hits[: at + 1]
            assert db.query(query, k=5, max_distance=np.float64(limit)) == hits[: min(5, at + 1)]
        assert db.query(query, k=100, max_distance=float("inf")) == hits
        assert db.query(query, k=100, max_distance=float("-inf")) == []
        assert db.query(query, k=100, max_distance=1) == [hit for hit in hits if hit.distance <= 1]
        assert db.query(query, k=100, max_distance=-1000) == []


def test_vector_of_any_kind_asks_the_same(db: NoPokeDB) -> None:
    """Lists, tuples, ints, float16, float64 and views are one query."""
    db.add_many([A, B, C, [1, 2, 3, 4]])
    expected = db.query(np.array([4, 3, 2, 1], np.float32))
    for query in (
        [4, 3, 2, 1],
        (4.0, 3.0, 2.0, 1.0),
        np.array([4, 3, 2, 1], np.float16),
        np.array([4, 3, 2, 1], np.int64),
        np.array([1.0, 2.0, 3.0, 4.0])[::-1],
    ):
        assert db.query(query) == expected


@pytest.mark.parametrize("index", ["auto", "exact", "scan", "graph", "hnsw"])
def test_answers_are_the_same_after_reopening(open_db: Open, rng: np.random.Generator, index: str) -> None:
    """To the last bit, for whatever index was asked for."""
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    queries = rng.normal(size=(10, 8)).astype(np.float32)
    db = open_db(dim=8, index=index)
    db.add_many(vectors)
    db.delete_many(range(0, 600, 5))
    db.upsert_many(range(1, 600, 5), vectors[::-1][:120])
    before = db.query_many(queries, k=20, include=EVERYTHING)
    assert db.query_many(queries, k=20, include=EVERYTHING) == before
    for arguments in ({}, {"dim": 8}, {"read_only": True}):
        db.close()
        db = open_db(**arguments)
        assert db.query_many(queries, k=20, include=EVERYTHING) == before


def test_ef_is_honoured_by_handle_and_call(open_db: Open) -> None:
    """A given ef below k still returns k hits; the handle keeps its own."""
    with open_db(dim=2, ef=1) as db:
        assert db.ef == 1
        db.add_many(np.random.default_rng(1).normal(size=(100, 2)))
        assert len(db.query([1, 0], k=50)) == len(db.query([1, 0], k=50, ef=10)) == 50
        assert db.ef == 1


# --- keeping -----------------------------------------------------------------------------------------------


@pytest.mark.engines(without=("rest", "grpc"))
def test_everything_is_there_after_reopening_without_save(open_db: Open) -> None:
    """Each write is durable when it returns; `close` and `save` are no condition."""
    db = open_db(dim=DIM)
    db.add_many([A, B, C], [{"n": n} for n in range(3)], texts=["a", "", None])
    db.upsert(1, C)
    db.delete(2)
    before = dump(db)
    db.save()
    db.upsert(0, metadata={"after": "save"}, merge=True)
    db.close()
    db = open_db()
    assert dump(db) == [Record(0, {"n": 0, "after": "save"}, np.array(A, np.float32), "a"), before[1]]
    assert db.stats().log_bytes < 1000


def test_with_closes_also_after_an_exception(open_db: Open) -> None:
    """The folder is free for the next writer, and the exception passes through."""
    with pytest.raises(ZeroDivisionError), open_db(dim=DIM) as db:
        db.add(A)
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        db.count()
    with open_db() as db:
        assert db.count() == 1


def test_closing_twice_is_harmless(db: NoPokeDB) -> None:
    """Also after `with`, and from several threads."""
    threads = [threading.Thread(target=db.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.close()
    with nullcontext(db):
        db.close()


def test_repr_tells_what_it_is(tmp_path: Path) -> None:
    """Folder, dim, space and count; closed when closed."""
    path = tmp_path / "db"
    db = NoPokeDB(dim=DIM, path=path, space="l2")
    db.add(A)
    for part in (str(path), "dim=4", "l2", "1 record"):
        assert part in repr(db)
    db.close()
    assert "closed" in repr(db) and str(path) in repr(db)


def test_open_handle_tells_its_settings(tmp_path: Path) -> None:
    """dim and space are those of the collection, also when the open did not name them."""
    NoPokeDB(dim=DIM, path=str(tmp_path / "db"), space="ip", max_elements=10).close()
    with NoPokeDB(path=tmp_path / "db") as db:
        assert (db.dim, db.space, db.path) == (DIM, "ip", str(tmp_path / "db"))


@pytest.mark.engines("embedded")
def test_stats_count(db: NoPokeDB) -> None:
    """Live records, the lsn of the last batch, and where it lies."""
    assert (db.stats().count, db.stats().read_only, db.stats().dim) == (0, False, DIM)
    db.add_many([A, B])
    db.delete(0)
    stats = db.stats()
    assert (stats.count, stats.space, stats.path) == (1, "cosine", db.path)
    assert stats.disk_bytes > 0 and stats.log_bytes > 0
    lsn = stats.lsn
    db.save()
    assert db.stats().lsn == db.stats().checkpoint_lsn == lsn


def test_read_only_handle_sees_what_was_published(db: NoPokeDB) -> None:
    """`refresh` moves it forward; the writer is not disturbed."""
    db.add(A, {"n": 0})
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert dump(reader) == dump(db) and reader.stats().read_only
        db.add(B, {"n": 1}, text="t")
        db.delete(0)
        reader.refresh()
        assert dump(reader) == dump(db)
        assert reader.query(B) == db.query(B)
    db.refresh()
    assert db.count() == 1


def test_capacity_hint_is_no_limit(open_db: Open) -> None:
    """`max_elements` may be exceeded, or be 0."""
    with open_db(dim=DIM, max_elements=2) as db:
        db.add_many([A] * 50)
        assert db.count() == 50


def test_ids_of_many_threads_are_distinct(db: NoPokeDB) -> None:
    """One handle, many writers: each gets its own ids, and all records are there."""
    given_ids: list[list[int | str]] = []

    def work() -> None:
        given_ids.append([db.add(A) for _ in range(10)] + db.add_many([B, C]))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = list(itertools.chain(*given_ids))
    assert sorted(every) == list(range(96)) == ids_of(db.scan())  # type: ignore[type-var]
