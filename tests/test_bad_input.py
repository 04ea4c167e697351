"""Wrong arguments: each is refused with the right error, in words that help, and nothing has changed afterwards."""

from __future__ import annotations

import inspect
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import orjson
import pytest

from nopokedb import (
    BatchTooLargeError,
    ClosedError,
    CollectionNotFoundError,
    DuplicateIdError,
    InvalidIdError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidVectorError,
    LegacyFolderError,
    NewerFormatError,
    NoPokeDB,
    NoPokeError,
    NotADatabaseError,
    NotSupportedError,
    ReadOnlyError,
    RecordNotFoundError,
    SettingsMismatchError,
    drop_collection,
    list_collections,
)
from nopokedb.records import Part

pytestmark = pytest.mark.engines

DIM = 4
GOOD = [1.0, 2.0, 3.0, 4.0]
OTHER = [4.0, 3.0, 2.0, 1.0]
PARTS: tuple[Part, ...] = ("metadata", "vector", "text")
SPACES = ("cosine", "l2", "ip")
MIB = 2**20

Call = Callable[[NoPokeDB], object]
Open = Callable[..., NoPokeDB]


# --- nothing changed ---------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes | None]:
    """Every file below the folder with its bytes; a folder counts as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def stored_files(folder: Path) -> dict[str, bytes | None]:
    """As `files_of` without LOCK, which says who opened last, also who tried to."""
    return {name: content for name, content in files_of(folder).items() if name != "LOCK"}


def state(db: NoPokeDB) -> dict[str, Any]:
    """All that a refused call must leave alone."""
    return {
        "count": db.count(),
        "lsn": db.stats().lsn,
        "records": [
            (type(record.id), record.id, json.dumps(record.metadata), record.vector.tobytes(), record.text)
            for record in db.scan(include=PARTS)
            if record.vector is not None
        ],
        "log": files_of(Path(db.path) / "oplog"),
    }


def says_expected_and_got(error: BaseException) -> bool:
    return re.search(r"\bexpected .+\b(got|found|exists)\b", str(error), re.DOTALL) is not None


@contextmanager
def refused(db: NoPokeDB, kind: type[NoPokeError]) -> Iterator[None]:
    """The block raises exactly `kind`, says what was expected and what it got, and changes nothing."""
    before = state(db)
    with pytest.raises(kind) as caught:
        yield
    assert caught.type is kind, f"{caught.type.__name__}: {caught.value}"
    assert says_expected_and_got(caught.value), f"not expected/got: {caught.value}"
    assert not caught.value.committed
    assert state(db) == before
    assert db.add(OTHER) == 3, "the refused call used up an automatic id"
    assert state(db)["lsn"] == before["lsn"] + 1


def refused_by_all(
    db: NoPokeDB, kind: type[NoPokeError], entries: dict[str, Callable[[NoPokeDB, Any], object]], value: Any
) -> None:
    """As `refused`, for each of these calls with the same value; a failure names the calls."""
    before = state(db)
    wrong: dict[str, str] = {}
    for name, entry in entries.items():
        try:
            entry(db, value)
        except Exception as error:  # noqa: BLE001  # a stray error is what is reported
            if type(error) is not kind:
                wrong[name] = f"raised {type(error).__name__}: {error!s:.200}"
            elif not says_expected_and_got(error):
                wrong[name] = f"does not say expected and got: {error!s:.200}"
        else:
            wrong[name] = "accepted it"
        assert state(db) == before, f"{name} changed something"
    assert wrong == {}
    assert db.add(OTHER) == 3, "a refused call used up an automatic id"


@pytest.fixture
def db(open_db: Open, request: pytest.FixtureRequest) -> NoPokeDB:
    """Three records with automatic ids 0, 1, 2 and one with a str id; parametrise indirectly for the space."""
    database = open_db(dim=DIM, space=getattr(request, "param", "cosine"))
    database.add_many([GOOD, OTHER, [1, 0, 0, 0]], [{"n": 0}, {"n": 1}, {"n": 2}], texts=["a", None, ""])
    database.add(GOOD, {"n": 3}, id="named")
    return database


def in_batch(call: Callable[[Any], object]) -> Call:
    """A call on `db.batch()`, behind a good write that must not be kept either."""

    def run(db: NoPokeDB) -> None:
        with db.batch() as batch:
            batch.upsert("named", OTHER, {"changed": True})
            call(batch)

    return run


def rows(**named: Any) -> list[Any]:
    """Parameters with their names as test ids."""
    return [pytest.param(value, id=name) for name, value in named.items()]


# --- vectors -----------------------------------------------------------------------------------------------

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


# --- ids ---------------------------------------------------------------------------------------------------

WITH_ID: dict[str, Callable[[NoPokeDB, Any], object]] = {
    "add": lambda db, i: db.add(GOOD, id=i),
    "add_many": lambda db, i: db.add_many([GOOD, GOOD], ids=[77, i]),
    "upsert": lambda db, i: db.upsert(i, GOOD),
    "upsert_vid": lambda db, i: db.upsert(vid=i, metadata={}),
    "upsert_many": lambda db, i: db.upsert_many([0, i], [GOOD, GOOD]),
    "update_many": lambda db, i: db.update_many([0, i], {"x": 1}),
    "delete": lambda db, i: db.delete(i),
    "delete_vid": lambda db, i: db.delete(vid=i),
    "delete_many": lambda db, i: db.delete_many([0, i]),
    "batch_add": lambda db, i: in_batch(lambda batch: batch.add(GOOD, id=i))(db),
    "batch_upsert": lambda db, i: in_batch(lambda batch: batch.upsert(i, GOOD))(db),
    "batch_delete": lambda db, i: in_batch(lambda batch: batch.delete(i))(db),
    "get": lambda db, i: db.get(i),
    "get_vid": lambda db, i: db.get(vid=i),
    "get_many": lambda db, i: db.get_many([0, i]),
    "getitem": lambda db, i: db[i],
    "contains": lambda db, i: i in db,
    "scan_after": lambda db, i: list(db.scan(after=i)),
}
NONE_HAS_A_MEANING = {"add", "batch_add", "scan_after"}
"""An automatic id, or from the beginning."""

BAD_IDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "numpy_bool": np.True_,
    "float": 1.0,
    "numpy_float": np.float32(1.0),
    "none": None,
    "bytes": b"a",
    "bytearray": bytearray(b"a"),
    "tuple": (1, 2),
    "list": [1],
    "decimal": Decimal(1),
    "complex": 1j,
    "above_64_bits": 2**63,
    "below_64_bits": -(2**63) - 1,
    "numpy_above_64_bits": np.uint64(2**63),
    "more_digits_than_python_prints": 10**5000,
    "empty": "",
    "513_bytes": "x" * 513,
    "513_bytes_of_two": "é" * 256 + "x",
    "lone_surrogate": "\ud800",
    "lone_surrogate_inside": "ab\udfffcd",
}


@pytest.mark.parametrize("id_", rows(**BAD_IDS))
def test_bad_id_is_refused_everywhere(db: NoPokeDB, id_: Any) -> None:
    """An id is a signed 64-bit int or a str of 1 to 512 UTF-8 bytes, for reads and writes alike."""
    left_out = NONE_HAS_A_MEANING if id_ is None else set()
    entries = {name: entry for name, entry in WITH_ID.items() if name not in left_out}
    refused_by_all(db, InvalidIdError, entries, id_)


@pytest.mark.parametrize(
    "id_", rows(largest=2**63 - 1, smallest=-(2**63), bytes_512="x" * 512, bytes_512_of_two="é" * 256)
)
def test_id_at_the_limits_is_accepted(db: NoPokeDB, id_: int | str) -> None:
    """The limits refuse no more than they say."""
    assert db.add(GOOD, {"x": 1}, id=id_) == id_
    assert db.get(id_) == {"x": 1}
    assert id_ in db
    assert db.delete(id_)


def test_automatic_ids_end_at_the_largest_int(db: NoPokeDB) -> None:
    """Behind the largest id there is no automatic one: that is an error of ours, and given ids still work."""
    db.add(GOOD, id=2**63 - 1)
    before = state(db)
    for call in (
        lambda: db.add(GOOD),
        lambda: db.add_many([GOOD, GOOD]),
        lambda: in_batch(lambda batch: batch.add(GOOD))(db),
    ):
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert says_expected_and_got(caught.value) or "give ids" in str(caught.value)
        assert state(db) == before
    assert db.add(GOOD, id=-7) == -7


def test_automatic_ids_end_at_the_largest_int_inside_one_call(db: NoPokeDB) -> None:
    """A batch that would run past the end is refused whole."""
    db.add(GOOD, id=2**63 - 2)
    before = state(db)
    with pytest.raises(InvalidInputError):
        db.add_many([GOOD, GOOD])
    assert state(db) == before
    if not db.path.startswith("postgresql:"):  # whose counter is a sequence: a batch that failed leaves a gap
        assert db.add(GOOD) == 2**63 - 1


WITH_IDS: dict[str, Callable[[NoPokeDB, Any], object]] = {
    "add_many": lambda db, ids: db.add_many([GOOD, GOOD], ids=ids),
    "upsert_many": lambda db, ids: db.upsert_many(ids, [GOOD, GOOD]),
    "update_many": lambda db, ids: db.update_many(ids, {"x": 1}),
    "delete_many": lambda db, ids: db.delete_many(ids),
    "get_many": lambda db, ids: db.get_many(ids),
}


@pytest.mark.parametrize("ids", rows(str="ab", bytes=b"ab", number=5, zero_dimensions=np.array(5)))
def test_ids_that_are_no_sequence_are_refused(db: NoPokeDB, ids: Any) -> None:
    """A single str would be taken apart into letters, so it is refused; a number is no sequence either."""
    refused_by_all(db, InvalidIdError, WITH_IDS, ids)


def test_none_as_ids_is_refused(db: NoPokeDB) -> None:
    """Only `add_many` has automatic ids; elsewhere None is a forgotten argument, not an empty list."""
    refused_by_all(db, InvalidIdError, {name: WITH_IDS[name] for name in ("upsert_many", "get_many")}, None)


def test_none_as_ids_and_as_filter_is_refused(db: NoPokeDB) -> None:
    """What writes by ids or by filter wants exactly one of them."""
    refused_by_all(db, InvalidInputError, {name: WITH_IDS[name] for name in ("update_many", "delete_many")}, None)


def test_str_of_ids_beside_an_iterator_is_refused(db: NoPokeDB) -> None:
    """The same holds when the vectors come from an iterator."""
    with refused(db, InvalidIdError):
        db.add_many(iter([GOOD, GOOD]), ids="ab")


def test_single_str_of_texts_is_refused(db: NoPokeDB) -> None:
    """A str instead of a list of texts would be stored letter by letter."""
    with refused(db, InvalidMetadataError):
        db.add_many([GOOD, GOOD], texts="ab")


@pytest.mark.parametrize("ids", rows(numbers=[7, 8, 7], names=["x", "y", "x"], array=np.array([5, 5, 6])))
def test_id_twice_in_one_call_is_refused(db: NoPokeDB, ids: Any) -> None:
    """Which of the two should win is not for us to guess."""
    before = state(db)
    for call in (
        lambda: db.upsert_many(ids, [GOOD] * 3),
        lambda: db.update_many(ids, {}),
        lambda: db.delete_many(ids),
    ):
        with pytest.raises(DuplicateIdError, match=r"expected every id once.*got .* twice"):
            call()
        assert state(db) == before
    with refused(db, DuplicateIdError):
        db.add_many([GOOD] * 3, ids=ids)


@pytest.mark.parametrize(
    "call",
    rows(
        add=lambda db: db.add(GOOD, id=1),
        add_str=lambda db: db.add(GOOD, id="named"),
        add_many=lambda db: db.add_many([GOOD, GOOD], ids=[99, "named"]),
        batch=in_batch(lambda batch: batch.add(GOOD, id=2)),
    ),
)
def test_add_of_an_existing_id_is_refused(db: NoPokeDB, call: Call) -> None:
    """`add` never replaces; the message names `upsert`."""
    with pytest.raises(DuplicateIdError, match="upsert"):
        call(db)
    with refused(db, DuplicateIdError):
        call(db)


def test_add_of_an_id_twice_in_a_batch_is_refused(db: NoPokeDB) -> None:
    """Later parts of a batch see the earlier ones."""
    with refused(db, DuplicateIdError), db.batch() as batch:
        batch.add(GOOD, id="x")
        batch.add(GOOD, id="x")


@pytest.mark.parametrize("call", rows(get=NoPokeDB.get, delete=NoPokeDB.delete))
def test_id_and_vid_together_or_neither_are_refused(db: NoPokeDB, call: Callable[..., object]) -> None:
    """`vid` is another name of `id`: exactly one of them."""
    before = state(db)
    for arguments in ({}, {"id": 1, "vid": 1}):
        with pytest.raises(InvalidInputError, match="expected exactly one of id and vid"):
            call(db, **arguments)
    with pytest.raises(InvalidInputError, match="expected exactly one of id and vid"):
        db.upsert(vector=GOOD)
    assert state(db) == before


def test_reading_an_absent_id_by_index_is_a_key_error(db: NoPokeDB) -> None:
    """`db[id]` is for ids that are there."""
    with refused(db, RecordNotFoundError):
        db["absent"]
    assert issubclass(RecordNotFoundError, KeyError)


# --- metadata and text -------------------------------------------------------------------------------------

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


# --- parts of a write --------------------------------------------------------------------------------------


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


# --- queries and scans -------------------------------------------------------------------------------------


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


# --- after close, and read-only ----------------------------------------------------------------------------

EVERY_METHOD: dict[str, Call] = {
    "add": lambda db: db.add(GOOD),
    "add_many": lambda db: db.add_many([GOOD]),
    "upsert": lambda db: db.upsert(0, GOOD),
    "upsert_many": lambda db: db.upsert_many([0], [GOOD]),
    "update_many": lambda db: db.update_many([0], {}),
    "delete": lambda db: db.delete(0),
    "delete_many": lambda db: db.delete_many([0]),
    "batch": in_batch(lambda batch: batch.add(GOOD)),
    "get": lambda db: db.get(0),
    "get_many": lambda db: db.get_many([0]),
    "__getitem__": lambda db: db[0],
    "__contains__": lambda db: 0 in db,
    "__len__": len,
    "count": lambda db: db.count(),
    "facet": lambda db: db.facet("n"),
    "create_index": lambda db: db.create_index("n"),
    "drop_index": lambda db: db.drop_index("n"),
    "scan": lambda db: list(db.scan()),
    "query": lambda db: db.query(GOOD),
    "query_many": lambda db: db.query_many([GOOD]),
    "compact": lambda db: db.compact(),
    "optimize": lambda db: db.optimize(),
    "reembed": lambda db: db.reembed(lambda texts: np.ones((len(texts), DIM))),
    "explain": lambda db: db.explain(GOOD),
    "measure_recall": lambda db: db.measure_recall(),
    "duplicates": lambda db: db.duplicates(0.1),
    "outliers": lambda db: db.outliers(),
    "project": lambda db: db.project(),
    "plot": lambda db: db.plot(Path(db.path).parent / "never.html"),
    "save": lambda db: db.save(),
    "refresh": lambda db: db.refresh(),
    "undo": lambda db: db.undo(),
    "check": lambda db: db.check(),
    "snapshot": lambda db: db.snapshot("name"),
    "snapshots": lambda db: db.snapshots(),
    "at": lambda db: db.at("name"),
    "rollback": lambda db: db.rollback("name"),
    "drop_snapshot": lambda db: db.drop_snapshot("name"),
    "backup": lambda db: db.backup(Path(db.path).parent / "never.backup"),
    "stats": lambda db: db.stats(),
}
MORE_CALLS: dict[str, Call] = {
    "batch_of_a_delete": in_batch(lambda batch: batch.delete(0)),
    "add_many_chunked": lambda db: db.add_many(iter([GOOD])),
    "absent_id": lambda db: db.get("absent"),
    "count_by_filter": lambda db: db.count({"n": 1}),
    "scan_by_filter": lambda db: list(db.scan({"n": 1})),
    "scan_in_order": lambda db: list(db.scan(order_by="n")),
    "query_by_filter": lambda db: db.query(GOOD, where={"n": 1}),
    "query_by_text": lambda db: db.query(text="a"),
    "query_by_example": lambda db: db.query(like=[0]),
    "update_by_filter": lambda db: db.update_many(where={"n": 1}, metadata={}),
    "delete_by_filter": lambda db: db.delete_many(where={"n": 1}),
}
WRITING = (
    "add",
    "add_many",
    "upsert",
    "upsert_many",
    "update_many",
    "delete",
    "delete_many",
    "batch",
    "compact",
    "optimize",
    "reembed",
    "save",
    "create_index",
    "drop_index",
    "undo",
    "snapshot",
    "rollback",
    "drop_snapshot",
    "batch_of_a_delete",
    "add_many_chunked",
    "update_by_filter",
    "delete_by_filter",
)


def test_every_public_method_is_called_here() -> None:
    """A method added later must say what it does after close."""
    usable_when_closed = {"close", "__enter__", "__exit__", "__repr__", "__init__"}
    inherited = set(dir(object)) - {"__init__", "__repr__"}
    public = {
        name
        for name, _ in inspect.getmembers(NoPokeDB, inspect.isfunction)
        if name not in inherited and (not name.startswith("_") or name.startswith("__"))
    }
    assert public - usable_when_closed == set(EVERY_METHOD)


@pytest.mark.parametrize("call", rows(**EVERY_METHOD, **MORE_CALLS))
def test_method_after_close_is_refused(open_db: Open, call: Call) -> None:
    """A closed handle answers nothing and writes nothing; the message names the collection."""
    database = open_db(dim=DIM)
    database.add(GOOD)
    database.close()
    before = files_of(Path(database.path))
    with pytest.raises(ClosedError, match=re.escape(database.path)):
        call(database)
    assert files_of(Path(database.path)) == before


def test_batch_open_while_the_database_closes_is_refused(open_db: Open) -> None:
    """What a batch collected before the close is not written behind it."""
    database = open_db(dim=DIM)
    with pytest.raises(ClosedError), database.batch() as batch:
        batch.add(GOOD)
        database.close()
    assert open_db().count() == 0


READ_ONLY = (ReadOnlyError, (ReadOnlyError, NotSupportedError))
"""What is raised; the second one where a method may be missing altogether."""


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("writer_is_open", [False, True])
def test_read_only_handle_does_not_write(db: NoPokeDB, name: str, writer_is_open: bool) -> None:
    """`read_only=True` means it, beside a writer and alone."""
    call = (EVERY_METHOD | MORE_CALLS)[name]
    if not writer_is_open:
        db.close()
    before = files_of(Path(db.path))
    with NoPokeDB(path=db.path, read_only=True) as reader:
        count = reader.count()
        with pytest.raises(
            READ_ONLY[db.path.startswith("postgresql:")], match=r"read_only|not supported by the engine"
        ):
            call(reader)
        assert reader.count() == count == 4
    assert files_of(Path(db.path)) == before


# --- opening -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    rows(
        dim_0={"dim": 0},
        dim_negative={"dim": -1},
        dim_too_large={"dim": 16_385},
        dim_bool={"dim": True},
        dim_float={"dim": 4.0},
        dim_str={"dim": "4"},
        dim_of_5000_digits={"dim": 10**5000},
        max_elements_negative={"max_elements": -1},
        max_elements_bool={"max_elements": True},
        max_elements_str={"max_elements": "100"},
        space_unknown={"space": "euclidean"},
        space_upper_case={"space": "L2"},
        space_none={"space": None},
        space_list={"space": ["l2"]},
        M_1={"M": 1},
        M_too_large={"M": 257},
        M_bool={"M": True},
        M_float={"M": 16.0},
        M_none={"M": None},
        ef_construction_0={"ef_construction": 0},
        ef_construction_too_large={"ef_construction": 10_001},
        ef_construction_str={"ef_construction": "200"},
        ef_0={"ef": 0},
        ef_bool={"ef": True},
        ef_float={"ef": 50.0},
        index_unknown={"index": "flat"},
        index_none={"index": None},
        durability_unknown={"durability": "none"},
        durability_bool={"durability": True},
        max_memory_negative={"max_memory": -1},
        max_memory_float={"max_memory": 1e9},
        collection_parent={"collection": "../x"},
        collection_dots={"collection": ".."},
        collection_hidden={"collection": ".x"},
        collection_dash={"collection": "-x"},
        collection_slash={"collection": "a/b"},
        collection_backslash={"collection": "a\\b"},
        collection_empty={"collection": ""},
        collection_129={"collection": "x" * 129},
        collection_absolute={"collection": "/absolute"},
        collection_nul={"collection": "a\0b"},
        collection_newline={"collection": "a\n"},
        collection_space={"collection": "a b"},
        collection_umlaut={"collection": "ä"},
        collection_number={"collection": 5},
        collection_bytes={"collection": b"x"},
    ),
)
def test_wrong_constructor_argument_is_refused(
    engine: dict[str, Any], tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """A wrong setting is named before anything exists."""
    with pytest.raises(InvalidInputError) as caught:
        NoPokeDB(**{"dim": DIM, **engine, **arguments})
    assert caught.type is InvalidInputError
    assert says_expected_and_got(caught.value)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize(
    "path",
    rows(
        file="file:///data",
        bucket="s3://bucket/data",
        empty="",
        nul="a\0b",
        nul_in_a_path=Path("a\0b"),
        number=5,
        none=None,
        bytes=b"folder",
    ),
)
@pytest.mark.parametrize("collection", [None, "x"])
def test_wrong_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, collection: str | None
) -> None:
    """A path that cannot be a folder here is refused, and no folder of that name appears."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        NoPokeDB(dim=DIM, path=path, collection=collection)
    assert says_expected_and_got(caught.value)
    with pytest.raises(InvalidInputError):
        list_collections(path)
    with pytest.raises(InvalidInputError):
        drop_collection(path, "x")
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("name", ["../x", "..", ".x", "a/b", "", "x" * 129, "/absolute", "a\0b", None, 5])
def test_dropping_a_wrong_name_is_refused(tmp_path: Path, name: Any) -> None:
    """No name reaches outside of the folder, and none means the folder itself."""
    for folder in (tmp_path / "home", tmp_path / "x"):
        NoPokeDB(dim=DIM, path=folder).close()
    before = files_of(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        drop_collection(tmp_path / "home", name)
    assert says_expected_and_got(caught.value)
    assert files_of(tmp_path) == before


def test_dropping_a_missing_collection_is_refused(engine: dict[str, Any], tmp_path: Path) -> None:
    """It says that there is none, and creates nothing."""
    for name in ("absent", engine.get("collection", "db")):
        with pytest.raises(CollectionNotFoundError, match=r"expected a collection .* found none"):
            drop_collection(engine["path"], name)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("read_only", [False, True])
def test_missing_collection_without_dim_is_refused(
    open_db: Open, engine: dict[str, Any], tmp_path: Path, read_only: bool
) -> None:
    """Without `dim` nothing is created; the message shows how to create."""
    with pytest.raises(CollectionNotFoundError, match=r"expected a collection .* found none.*dim="):
        open_db(read_only=read_only)
    assert files_of(tmp_path) == {} and engine.get("collection") not in list_collections(engine["path"])


def test_missing_collection_read_only_is_refused_even_with_dim(
    open_db: Open, engine: dict[str, Any], tmp_path: Path
) -> None:
    """A reader creates nothing."""
    with pytest.raises(CollectionNotFoundError):
        open_db(dim=DIM, read_only=True)
    assert files_of(tmp_path) == {} and engine.get("collection") not in list_collections(engine["path"])


OPENINGS: dict[str, dict[str, Any]] = {
    "writing": {"dim": DIM},
    "existing": {},
    "read_only": {"read_only": True},
}


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
@pytest.mark.parametrize("names", [["notes.txt"], ["a", "b", "c"], [".git"], ["data.db"], ["LOCK", "something_else"]])
def test_folder_with_other_files_is_left_untouched(tmp_path: Path, arguments: dict[str, Any], names: list[str]) -> None:
    """A folder that somebody else uses is refused by name and stays as it is, to the byte."""
    path = tmp_path / "theirs"
    path.mkdir()
    for name in names:
        (path / name).write_bytes(name.encode() * 100)
    before = files_of(path)
    with pytest.raises(NotADatabaseError, match=r"expected .* found ") as caught:
        NoPokeDB(path=path, **arguments)
    assert caught.type is NotADatabaseError
    assert files_of(path) == before


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
def test_file_as_path_is_left_untouched(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """A file is no folder."""
    path = tmp_path / "file"
    path.write_bytes(b"something")
    with pytest.raises(NotADatabaseError, match="expected a folder, got the file"):
        NoPokeDB(path=path, **arguments)
    assert path.read_bytes() == b"something"


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
def test_path_below_a_file_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Nor can a collection lie below a file."""
    (tmp_path / "file").write_bytes(b"something")
    with pytest.raises((NotADatabaseError, CollectionNotFoundError)):
        NoPokeDB(path=tmp_path / "file" / "below", **arguments)
    assert files_of(tmp_path) == {"file": b"something"}


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"name": "an app", "icons": []}', b"[]", b'{"manifest": {}}', b"\xff\x00"]
)
def test_folder_with_a_foreign_manifest_is_left_untouched(
    tmp_path: Path, arguments: dict[str, Any], content: bytes
) -> None:
    """Others have a manifest.json too: whatever the error, their folder stays as it is."""
    path = tmp_path / "theirs"
    path.mkdir()
    (path / "manifest.json").write_bytes(content)
    (path / "index.html").write_bytes(b"hello")
    before = files_of(path)
    with pytest.raises(NoPokeError):
        NoPokeDB(path=path, **arguments)
    assert files_of(path) == before


def make_original_folder(path: Path, names: tuple[str, ...]) -> None:
    """Files as the original package (0.5.1) leaves them."""
    path.mkdir()
    if "hnsw_index.bin" in names:
        (path / "hnsw_index.bin").write_bytes(bytes(range(96)))
    if "oplog.jsonl" in names:
        (path / "oplog.jsonl").write_text('{"t": "add", "id": 0, "vec": [1, 2, 3, 4], "md": {}}\n')
    if "metadata.db" in names:
        connection = sqlite3.connect(path / "metadata.db")
        connection.execute("CREATE TABLE metadata (id INTEGER PRIMARY KEY, data TEXT NOT NULL)")
        connection.execute("INSERT INTO metadata VALUES (0, '{}')")
        connection.commit()
        connection.close()


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
@pytest.mark.parametrize(
    "names",
    [
        ("hnsw_index.bin", "oplog.jsonl", "metadata.db"),
        ("oplog.jsonl", "metadata.db"),
        ("hnsw_index.bin",),
        ("oplog.jsonl",),
        ("metadata.db",),
    ],
)
def test_folder_of_the_original_package_is_left_untouched(
    tmp_path: Path, arguments: dict[str, Any], names: tuple[str, ...]
) -> None:
    """It is recognised by any of its files, named for what it is, with the command that imports it."""
    path = tmp_path / "original"
    make_original_folder(path, names)
    before = files_of(path)
    with pytest.raises(LegacyFolderError) as caught:
        NoPokeDB(path=path, **arguments)
    assert str(path) in str(caught.value)
    assert "original" in str(caught.value)
    assert "nopokedb import-legacy" in str(caught.value)
    assert files_of(path) == before


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
def test_folder_of_a_newer_version_is_left_untouched(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """A format we do not know is never guessed at; both versions are named."""
    path = tmp_path / "newer"
    with NoPokeDB(dim=DIM, path=path) as db:
        db.add(GOOD)
    manifest = path / "manifest.json"
    fields = orjson.loads(manifest.read_bytes())["manifest"]
    ours = fields["format"]
    fields["format"] = 999
    fields["something_new"] = ["that", "we", "cannot", "read"]
    manifest.write_bytes(orjson.dumps({"crc32c": google_crc32c.value(orjson.dumps(fields)), "manifest": fields}))
    before = files_of(path)
    with pytest.raises(NewerFormatError) as caught:
        NoPokeDB(path=path, **arguments)
    assert "999" in str(caught.value)
    assert re.search(rf"\b{ours}\b", str(caught.value).replace(str(path), ""))
    assert files_of(path) == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("name", "stored", "given"),
    [
        ("dim", DIM, DIM + 1),
        ("space", "l2", "ip"),
        ("space", "l2", "cosine"),
        ("M", 32, 8),
        ("ef_construction", 100, 300),
        ("index", "scan", "graph"),
        ("index", "auto", "hnsw"),
        ("M", 16, 32),
        ("ef_construction", 200, 100),
    ],
)
def test_setting_that_disagrees_with_the_stored_one_is_refused(
    open_db: Open, read_only: bool, name: str, stored: Any, given: Any
) -> None:
    """The message names the setting, the stored value and the given one; the collection stays."""
    with open_db(**{"dim": DIM, name: stored}) as db:
        db.add(GOOD)
    before = stored_files(Path(db.path))
    with pytest.raises(SettingsMismatchError) as caught:
        open_db(**{"dim": DIM, "read_only": read_only, name: given})
    message = str(caught.value)
    assert f"{name}={stored!r}" in message and f"{name}={given!r}" in message
    assert says_expected_and_got(caught.value)
    assert stored_files(Path(db.path)) == before
    for again in ({"read_only": True}, {}):
        with open_db(**again) as db:
            assert db.count() == 1


def test_setting_that_disagrees_is_refused_without_dim(open_db: Open) -> None:
    """Opening an existing collection without `dim` still checks what was asked for."""
    db = open_db(dim=DIM, space="l2")
    db.close()
    before = stored_files(Path(db.path))
    for arguments in ({"space": "ip"}, {"M": 32}, {"index": "exact"}):
        with pytest.raises(SettingsMismatchError):
            open_db(**arguments)
    assert stored_files(Path(db.path)) == before


def test_settings_left_at_their_defaults_ask_for_nothing(open_db: Open) -> None:
    """A collection opens without repeating how it was made."""
    open_db(dim=DIM, space="ip", M=8, ef_construction=50, index="graph").close()
    with open_db() as db:
        assert (db.dim, db.space, db.stats().index) == (DIM, "ip", "graph")


def test_newest_time_that_utc_holds_is_accepted(db: NoPokeDB) -> None:
    """The borders of the calendar are inside it."""
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        db.upsert(0, metadata={"at": moment})
    assert db.get(0) == {"at": "9999-12-31T23:59:59.999999Z"}
