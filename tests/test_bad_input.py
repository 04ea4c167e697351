"""Wrong arguments: each is refused with the right error, in words that help, and nothing has changed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from refusing import (
    DIM,
    GOOD,
    OTHER,
    Call,
    in_batch,
    refused,
    refused_by_all,
    rows,
    says_expected_and_got,
    state,
    three_records,
)

from nopokedb import (
    BatchTooLargeError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidVectorError,
    NoPokeDB,
)

pytestmark = pytest.mark.engines
SPACES = ("cosine", "l2", "ip")
MIB = 2**20
Open = Callable[..., NoPokeDB]


# --- nothing changed -----------------------------------------------------------------------------------------


@pytest.fixture
def db(open_db: Open, request: pytest.FixtureRequest) -> NoPokeDB:
    """Parametrise indirectly for the space."""
    return three_records(open_db, getattr(request, "param", "cosine"))


# --- vectors -------------------------------------------------------------------------------------------------

WITH_VECTOR: dict[str, Callable[[NoPokeDB, Any], object]] = {
    "add": lambda db, v: db.add(v, {"x": 1}),
    "add_with_id": lambda db, v: db.add(v, id="new"),
    "add_many": lambda db, v: db.add_many([v]),
    "upsert_new": lambda db, v: db.upsert("new", v),
    "upsert_known": lambda db, v: db.upsert(0, v, {"x": 1}),
    "upsert_many": lambda db, v: db.upsert_many([0], [v]),
    "batch_add": lambda db, v: in_batch(lambda batch: batch.add(v))(db),
    "batch_upsert": lambda db, v: in_batch(lambda batch: batch.upsert(0, v))(db),
    "query": lambda db, v: db.query(v),
    "query_many": lambda db, v: db.query_many([v]),
}
BAD_VECTORS: dict[str, Any] = {
    "too_short": [1.0, 2.0, 3.0],
    "too_long": np.ones(DIM + 1),
    "empty": [],
    "scalar": 5.0,
    "column": np.ones((DIM, 1)),
    "three_dimensions": np.ones((1, 1, DIM)),
    "ragged": [[1.0, 2.0], [3.0]],
    "bool": np.ones(DIM, dtype=bool),
    "list_of_bool": [True, False, True, True],
    "complex": np.ones(DIM, dtype=np.complex64),
    "objects": np.array([1, None, 2, 3], dtype=object),
    "numbers_as_objects": np.array([1, 2, 3, 4], dtype=object),
    "str": "1234",
    "list_of_str": ["1", "2", "3", "4"],
    "bytes": b"1234",
    "dates": np.ones(DIM, dtype="datetime64[s]"),
    "structured": np.zeros(DIM, dtype=[("x", "f4")]),
    "dict": {0: 1.0},
    "ints_past_64_bits": [10**30] * DIM,
    "nan": [1.0, float("nan"), 0.0, 0.0],
    "inf": [1.0, float("inf"), 0.0, 0.0],
    "minus_inf": np.array([1.0, -np.inf, 0.0, 0.0], dtype=np.float32),
    "half_inf": np.array([1, np.inf, 0, 0], dtype=np.float16),
    "float64_past_float32": [1.0, 1e39, 0.0, 0.0],
    "minus_float64_past_float32": np.array([-1e300, 0.0, 0.0, 0.0]),
    "norm_too_large": [4e18, 0.0, 0.0, 0.0],
    "norm_too_large_in_sum": [2.5e18] * DIM,
}
NO_DIRECTION: dict[str, Any] = {
    "zeros": [0.0, 0.0, 0.0, 0.0],
    "minus_zeros": np.full(DIM, -0.0, dtype=np.float32),
    "below_the_smallest_norm": [9e-16, 0.0, 0.0, 0.0],
    "underflow_to_zero": [1e-60, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("vector", rows(**BAD_VECTORS))
def test_bad_vector_is_refused_everywhere(db: NoPokeDB, vector: Any) -> None:
    """What is no finite float32 vector of the right shape is refused by every call that takes one."""
    refused_by_all(db, InvalidVectorError, WITH_VECTOR, vector)


@pytest.mark.parametrize("db", ["l2", "ip"], indirect=True)
@pytest.mark.parametrize("name", ["nan", "inf", "float64_past_float32", "norm_too_large", "too_long", "bool"])
def test_bad_vector_is_refused_in_every_space(db: NoPokeDB, name: str) -> None:
    """The limits are not those of cosine alone."""
    with refused(db, InvalidVectorError):
        db.add(BAD_VECTORS[name])


@pytest.mark.parametrize("vector", rows(**NO_DIRECTION))
def test_vector_without_direction_is_refused_under_cosine(db: NoPokeDB, vector: Any) -> None:
    """A zero vector, or one whose direction is rounding noise, has no cosine."""
    refused_by_all(db, InvalidVectorError, WITH_VECTOR, vector)


@pytest.mark.parametrize("db", ["l2", "ip"], indirect=True)
@pytest.mark.parametrize("vector", rows(**NO_DIRECTION))
def test_vector_without_direction_is_stored_under_l2_and_ip(db: NoPokeDB, vector: Any) -> None:
    """Only cosine needs a direction: elsewhere zero is a vector like others, stored and asked for."""
    id_ = db.add(vector)
    stored = db[id_].vector
    assert stored is not None and stored.tobytes() == np.asarray(vector, dtype=np.float32).tobytes()
    assert len(db.query(vector, k=10)) == 5


@pytest.mark.parametrize("db", SPACES, indirect=True)
@pytest.mark.parametrize(
    "vector", rows(largest_norm=[3e18, 0, 0, 0], smallest_norm=[2e-15, 0, 0, 0], subnormal=[1, 1e-45, 0, 0])
)
def test_vector_at_the_limits_is_accepted(db: NoPokeDB, vector: list[float]) -> None:
    """The limits refuse no more than they say."""
    id_ = db.add(vector)
    stored = db[id_].vector
    assert stored is not None and stored.tobytes() == np.asarray(vector, dtype=np.float32).tobytes()
    assert id_ in [hit.id for hit in db.query(vector, k=5)]


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        pytest.param(np.ones((3, DIM + 1)), "(3, 5)", id="wrong_width"),
        pytest.param(np.ones(DIM), "(4,)", id="one_vector"),
        pytest.param(np.ones((2, 2, DIM)), "(2, 2, 4)", id="three_dimensions"),
        pytest.param(np.ones((2, DIM), dtype=bool), "bool", id="bool"),
        pytest.param(np.ones((2, DIM), dtype=complex), "complex128", id="complex"),
        pytest.param(np.full((2, DIM), None), "object", id="objects"),
        pytest.param([GOOD, [1.0, 2.0]], "", id="ragged"),
        pytest.param([GOOD, GOOD, [1.0, float("nan"), 0.0, 0.0]], "position 2", id="nan_in_the_third"),
        pytest.param([GOOD, [0.0] * DIM], "position 1", id="zero_in_the_second"),
        pytest.param([GOOD, [1e39, 0, 0, 0]], "position 1", id="overflow_in_the_second"),
        pytest.param("1234", "", id="str"),
    ],
)
def test_bad_vectors_in_a_batch_refuse_all_of_it(db: NoPokeDB, vectors: Any, words: str) -> None:
    """One wrong row refuses the whole array; the message says which one or what shape came."""
    for call in (db.add_many, db.query_many):
        before = state(db)
        with pytest.raises(InvalidVectorError) as caught:
            call(vectors)
        assert words in str(caught.value)
        assert state(db) == before
    with refused(db, InvalidVectorError):
        db.upsert_many(list(range(len(vectors))), vectors)


@pytest.mark.parametrize("vectors", rows(none=None, number=5, zero_dimensions=np.float32(5.0), array0=np.array(5.0)))
def test_vectors_that_are_no_sequence_are_refused(db: NoPokeDB, vectors: Any) -> None:
    """What cannot be a batch at all is an error of ours, not one of Python's."""
    with refused(db, InvalidVectorError):
        db.add_many(vectors)


@pytest.mark.parametrize(
    "call",
    rows(
        add_list=lambda db: db.add_many([]),
        add_array=lambda db: db.add_many(np.empty((0, DIM), np.float32)),
        add_all_empty=lambda db: db.add_many([], [], ids=[], texts=[]),
        upsert=lambda db: db.upsert_many([], []),
        upsert_metadata=lambda db: db.upsert_many([], metadatas=[]),
    ),
)
def test_empty_batch_is_refused(db: NoPokeDB, call: Call) -> None:
    """Zero records is a mistake of the caller's more often than a wish."""
    with refused(db, InvalidInputError):
        call(db)


def test_empty_batch_of_queries_is_refused(db: NoPokeDB) -> None:
    """Zero queries likewise."""
    with refused(db, InvalidVectorError):
        db.query_many(np.empty((0, DIM), np.float32))


@pytest.mark.parametrize(
    "call",
    rows(
        metadatas_short=lambda db: db.add_many([GOOD, GOOD], [{}]),
        metadatas_long=lambda db: db.add_many([GOOD], [{}, {}]),
        metadatas_empty=lambda db: db.add_many([GOOD], []),
        ids=lambda db: db.add_many([GOOD, GOOD], ids=[7]),
        texts=lambda db: db.add_many([GOOD, GOOD], texts=["a", "b", "c"]),
        all_four=lambda db: db.add_many([GOOD], [{}, {}], ids=[7, 8, 9], texts=["a"]),
        upsert_vectors=lambda db: db.upsert_many([0, 1], [GOOD]),
        upsert_metadatas=lambda db: db.upsert_many([0, 1], metadatas=[{}]),
        upsert_texts=lambda db: db.upsert_many([0], texts=["a", "b"]),
    ),
)
def test_lengths_that_disagree_are_refused(db: NoPokeDB, call: Call) -> None:
    """Columns of one call describe the same records."""
    with refused(db, InvalidInputError):
        call(db)


def test_lengths_that_disagree_are_all_named(db: NoPokeDB) -> None:
    """The message has each length, so that the wrong one can be found."""
    with pytest.raises(InvalidInputError, match=r"2 vectors.*3 ids.*1 metadatas.*4 texts"):
        db.add_many([GOOD, GOOD], [{}], ids=[7, 8, 9], texts=["a", "b", "c", "d"])


# --- metadata and text ---------------------------------------------------------------------------------------

WITH_METADATA: dict[str, Callable[[NoPokeDB, Any], object]] = {
    "add": lambda db, m: db.add(GOOD, m),
    "add_many": lambda db, m: db.add_many([GOOD, GOOD], [{}, m]),
    "upsert": lambda db, m: db.upsert(0, metadata=m),
    "upsert_merge": lambda db, m: db.upsert(0, metadata=m, merge=True),
    "upsert_many": lambda db, m: db.upsert_many([0, 1], metadatas=[{}, m]),
    "update_many": lambda db, m: db.update_many([0, 1], m),
    "batch_add": lambda db, m: in_batch(lambda batch: batch.add(GOOD, m))(db),
    "batch_upsert": lambda db, m: in_batch(lambda batch: batch.upsert(0, metadata=m))(db),
}


def nested(depth: int, kind: type[dict[str, Any]] | type[list[Any]]) -> dict[str, Any]:
    """A metadata object of so many containers inside each other, the outermost included."""
    value: Any = {} if kind is dict else []
    for _ in range(depth - 2):
        value = {"a": value} if kind is dict else [value]
    return {"a": value}


def endless() -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    return metadata


BAD_METADATA: dict[str, Any] = {
    "list": [],
    "str": "{}",
    "number": 5,
    "pairs": (("a", 1),),
    "nan": {"a": float("nan")},
    "inf": {"a": float("inf")},
    "minus_inf_nested": {"a": [1, {"b": float("-inf")}]},
    "int_key": {1: "a"},
    "none_key": {None: "a"},
    "bool_key": {True: "a"},
    "tuple_key": {(1, 2): "a"},
    "int_key_nested": {"a": [{1: "b"}]},
    "bytes": {"a": b"x"},
    "bytes_key": {b"a": 1},
    "set": {"a": {1}},
    "frozenset_nested": {"a": [frozenset({1})]},
    "numpy_float32": {"a": np.float32(1)},
    "numpy_float64": {"a": np.float64(1)},
    "numpy_int": {"a": np.int64(1)},
    "numpy_bool": {"a": np.True_},
    "numpy_str": {"a": np.str_("x")},
    "numpy_array": {"a": np.ones(3)},
    "object": {"a": object()},
    "decimal": {"a": Decimal(1)},
    "complex": {"a": 1j},
    "date": {"a": date(2020, 1, 1)},
    "naive_datetime": {"a": datetime(2020, 1, 1)},
    "naive_datetime_nested": {"a": [{"b": datetime(2020, 1, 1)}]},
    "datetime_before_the_first_utc_year": {"a": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
    "datetime_after_the_last_utc_year": {"a": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))},
    "int_above_64_bits": {"a": 2**64},
    "int_below_64_bits": {"a": -(2**63) - 1},
    "int_past_64_bits_nested": {"a": [2**64]},
    "int_of_5000_digits": {"a": 10**5000},
    "surrogate": {"a": "\ud800"},
    "surrogate_key": {"\ud800": 1},
    "surrogate_nested": {"a": ["x\udfff"]},
    "dicts_65_deep": nested(65, dict),
    "lists_65_deep": nested(65, list),
    "endless": endless(),
}


@pytest.mark.parametrize("metadata", rows(**BAD_METADATA))
def test_bad_metadata_is_refused_everywhere(db: NoPokeDB, metadata: Any) -> None:
    """Metadata is what JSON can hold; nothing is rounded, dropped or turned into its repr on the way."""
    refused_by_all(db, InvalidMetadataError, WITH_METADATA, metadata)


@pytest.mark.parametrize("kind", [dict, list])
def test_metadata_64_deep_is_kept(db: NoPokeDB, kind: Any) -> None:
    """64 containers inside each other are allowed, the outermost included."""
    metadata = nested(64, kind)
    assert db.get(db.add(GOOD, metadata)) == metadata


def test_metadata_place_is_named(db: NoPokeDB) -> None:
    """In a large object the message says where the wrong value stands."""
    with pytest.raises(InvalidMetadataError, match=r"\['a'\]\[1\]\['b'\]"):
        db.add(GOOD, {"a": [0, {"b": float("nan")}]})


def test_metadata_over_16_mib_is_refused(db: NoPokeDB) -> None:
    """The size limit counts JSON bytes."""
    with refused(db, InvalidMetadataError):
        db.add(GOOD, {"a": "x" * (16 * MIB)})


def test_metadata_over_16_mib_by_merging_is_refused(db: NoPokeDB) -> None:
    """Two patches that are fine by themselves do not make metadata over the limit."""
    db.upsert(0, metadata={"a": "x" * (9 * MIB)})
    with refused(db, InvalidMetadataError):
        db.upsert(0, metadata={"b": "x" * (9 * MIB)}, merge=True)


def test_metadata_too_deep_by_nothing_but_merging_cannot_be(db: NoPokeDB) -> None:
    """A merge keeps the depth of the deeper side, so the limit holds after it."""
    db.upsert(0, metadata=nested(64, dict))
    db.upsert(0, metadata={"b": 1}, merge=True)
    assert db.get(0) == nested(64, dict) | {"b": 1}


WITH_TEXT: dict[str, Callable[[NoPokeDB, Any], object]] = {
    "add": lambda db, t: db.add(GOOD, text=t),
    "add_many": lambda db, t: db.add_many([GOOD, GOOD], texts=["a", t]),
    "upsert": lambda db, t: db.upsert(0, text=t),
    "upsert_many": lambda db, t: db.upsert_many([0, 1], texts=["a", t]),
    "batch_add": lambda db, t: in_batch(lambda batch: batch.add(GOOD, text=t))(db),
    "batch_upsert": lambda db, t: in_batch(lambda batch: batch.upsert(0, text=t))(db),
}


@pytest.mark.parametrize(
    "text", rows(number=5, bytes=b"x", list=["x"], false=False, surrogate="\ud800", surrogate_inside="a\udfffb")
)
def test_bad_text_is_refused_everywhere(db: NoPokeDB, text: Any) -> None:
    """Text is a str that UTF-8 can hold."""
    refused_by_all(db, InvalidMetadataError, WITH_TEXT, text)


def test_text_over_16_mib_is_refused(db: NoPokeDB) -> None:
    """The size limit counts UTF-8 bytes, not characters."""
    with refused(db, InvalidMetadataError):
        db.add(GOOD, text="é" * (8 * MIB) + "x")


# --- parts of a write ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    rows(
        upsert_new=lambda db: db.upsert("new", metadata={"a": 1}),
        upsert_new_text=lambda db: db.upsert("new", text="a"),
        upsert_new_merge=lambda db: db.upsert("new", metadata={"a": 1}, merge=True),
        upsert_deleted=lambda db: db.upsert(4711, metadata={"a": 1}),
        upsert_many=lambda db: db.upsert_many([0, "new"], metadatas=[{}, {}]),
        batch=in_batch(lambda batch: batch.upsert("new", metadata={})),
        batch_after_delete=in_batch(lambda batch: (batch.delete(0), batch.upsert(0, metadata={}))),
        nothing=lambda db: db.upsert(0),
        nothing_many=lambda db: db.upsert_many([0]),
        nothing_batch=in_batch(lambda batch: batch.upsert(0)),
        merge_nothing=lambda db: db.upsert(0, GOOD, merge=True),
        merge_nothing_many=lambda db: db.upsert_many([0], [GOOD], merge=True),
        merge_nothing_batch=in_batch(lambda batch: batch.upsert(0, GOOD, merge=True)),
        update_with_none=lambda db: db.update_many([0], None),
    ),
)
def test_upsert_that_lacks_a_part_is_refused(db: NoPokeDB, call: Call) -> None:
    """A new id needs a vector, an upsert something to set, a merge something to merge."""
    before = state(db)
    with pytest.raises(InvalidInputError) as caught:
        call(db)
    assert says_expected_and_got(caught.value)
    assert state(db) == before
    assert db.add(OTHER) == 3


def test_add_without_a_vector_is_refused(db: NoPokeDB) -> None:
    """A record is found by its vector."""
    with refused(db, InvalidVectorError):
        db.add(None, {"a": 1})


@pytest.mark.parametrize("batch_size", [0, -1, True, 1.5, "10", None])
def test_bad_batch_size_is_refused(db: NoPokeDB, batch_size: Any) -> None:
    """At least one record per chunk."""
    before = state(db)
    for vectors in ([GOOD], iter([GOOD])):
        with pytest.raises(InvalidInputError, match="batch_size"):
            db.upsert_many([0], vectors, batch_size=batch_size)
        assert state(db) == before
    with refused(db, InvalidInputError):
        db.add_many([GOOD], batch_size=batch_size)


def test_batch_over_its_size_limit_is_refused(db: NoPokeDB) -> None:
    """One `batch()` is one frame of the log, at most 256 MiB."""
    metadata = {"a": "x" * (15 * MIB)}
    with refused(db, BatchTooLargeError), db.batch() as batch:
        for _ in range(18):
            batch.upsert(0, metadata=metadata)


@pytest.mark.parametrize(
    "call",
    rows(
        add=lambda batch: batch.add(GOOD),
        upsert=lambda batch: batch.upsert(0, GOOD),
        delete=lambda batch: batch.delete(0),
    ),
)
@pytest.mark.parametrize("fails", [False, True])
def test_batch_used_after_its_block_is_refused(db: NoPokeDB, call: Callable[[Any], object], fails: bool) -> None:
    """What is written there would never be committed."""
    with pytest.raises(ZeroDivisionError) if fails else pytest.MonkeyPatch.context(), db.batch() as batch:
        if fails:
            raise ZeroDivisionError
    before = state(db)
    with pytest.raises(InvalidInputError, match=r"expected an open batch.*"):
        call(batch)
    assert state(db) == before
    assert db.add(OTHER) == 3


# --- queries and scans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    "options",
    rows(
        k_0={"k": 0},
        k_negative={"k": -1},
        k_bool={"k": True},
        k_too_large={"k": 100_001},
        k_float={"k": 5.0},
        k_str={"k": "5"},
        k_none={"k": None},
        k_of_5000_digits={"k": 10**5000},
        ef_0={"ef": 0},
        ef_negative={"ef": -5},
        ef_bool={"ef": True},
        ef_float={"ef": 50.0},
        max_distance_nan={"max_distance": float("nan")},
        max_distance_str={"max_distance": "1"},
        max_distance_bool={"max_distance": True},
        max_distance_complex={"max_distance": 1j},
        max_distance_numpy_complex={"max_distance": np.complex64(1)},
        max_distance_array={"max_distance": np.ones(2)},
        max_distance_of_400_digits={"max_distance": 10**400},
        include_unknown={"include": ("vectors",)},
        include_str={"include": "metadata"},
        include_none={"include": None},
        include_number={"include": 5},
        include_numbers={"include": (1,)},
    ),
)
def test_bad_query_argument_is_refused(db: NoPokeDB, many: bool, options: dict[str, Any]) -> None:
    """A number out of range or an unknown name never becomes a strange answer."""
    with refused(db, InvalidInputError):
        if many:
            db.query_many([GOOD], **options)
        else:
            db.query(GOOD, **options)


@pytest.mark.parametrize(
    "call",
    rows(
        limit_negative=lambda db: db.scan(limit=-1),
        limit_bool=lambda db: db.scan(limit=True),
        limit_float=lambda db: db.scan(limit=1.0),
        scan_include=lambda db: db.scan(include=("id",)),
        scan_include_str=lambda db: db.scan(include="text"),
        get_many_include=lambda db: db.get_many([0], include=("distance",)),
        get_many_include_str=lambda db: db.get_many([0], include="vector"),
        get_many_include_none=lambda db: db.get_many([0], include=None),
    ),
)
def test_bad_read_argument_is_refused_at_the_call(db: NoPokeDB, call: Call) -> None:
    """A scan complains when it is asked for, not at its first record."""
    with refused(db, InvalidInputError):
        call(db)
