"""What each public method promises, on one collection in a real folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_back import EVERYTHING, dump, float32, ids_of, stored
from unit_vectors import DIM, A, B, C

from nopokedb import (
    DuplicateIdError,
    InvalidInputError,
    NoPokeDB,
    Record,
)

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


# --- adding and getting --------------------------------------------------------------------------------------


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


# --- upsert --------------------------------------------------------------------------------------------------


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


# --- delete --------------------------------------------------------------------------------------------------


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
