"""Wrong ids: each is refused by every method that takes one, and nothing has changed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from refusing import (
    GOOD,
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
    DuplicateIdError,
    InvalidIdError,
    InvalidInputError,
    InvalidMetadataError,
    NoPokeDB,
    RecordNotFoundError,
)

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


# --- nothing changed -----------------------------------------------------------------------------------------


@pytest.fixture
def db(open_db: Open, request: pytest.FixtureRequest) -> NoPokeDB:
    """Parametrise indirectly for the space."""
    return three_records(open_db, getattr(request, "param", "cosine"))


# --- ids -----------------------------------------------------------------------------------------------------

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
