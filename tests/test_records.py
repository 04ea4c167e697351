"""Vectors, hits and records by themselves, without a database."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nopokedb import Hit, InvalidInputError, Record
from nopokedb.distances import squared_norms
from nopokedb.records import check_vector, check_vectors

# --- vectors -------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=3, max_size=3), min_size=1, max_size=20))
def test_vectors_are_checked_one_by_one_as_together(rows: list[list[float]]) -> None:
    """What passes in a batch passes alone with the same bytes, and the norms are those of float64."""
    together = check_vectors(rows, 3, "l2")
    assert together.dtype == np.dtype("<f4") and together.flags.c_contiguous
    for row, checked in zip(rows, together, strict=True):
        assert check_vector(row, 3, "l2").tobytes() == checked.tobytes()
    wide = together.astype(np.float64)
    np.testing.assert_allclose(squared_norms(together), (wide * wide).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 3000])
def test_one_bad_vector_is_found_at_any_place(count: int) -> None:
    """Norms are computed in blocks; none is skipped."""
    for at in {0, count // 2, count - 1}:
        vectors = np.ones((count, 2), np.float32)
        vectors[at, 1] = np.nan
        with pytest.raises(InvalidInputError, match=rf"position {at}\b"):
            check_vectors(vectors, 2, "cosine")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "i1", "u1", "<i8", ">i4", np.longdouble])
def test_vector_of_any_real_dtype_becomes_little_endian_float32(dtype: Any) -> None:
    """The bytes stored are the same on every machine."""
    vector = check_vector(np.array([1, 2, 100], dtype), 3, "cosine")
    assert vector.dtype.str == "<f4" and vector.tobytes() == np.array([1, 2, 100], "<f4").tobytes()


def test_vector_of_strides_is_read_in_order() -> None:
    """Columns, reversed and read-only arrays are what their indices say."""
    matrix = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    assert check_vector(matrix[:, 1], 3, "l2").tolist() == [2.0, 6.0, 10.0]
    assert check_vector(matrix[0, ::-1], 4, "l2").tolist() == [4.0, 3.0, 2.0, 1.0]
    assert check_vectors(matrix.T, 3, "l2").tolist() == matrix.T.tolist()


def test_numpy_s_own_error_state_changes_nothing() -> None:
    """A program that lets NumPy raise on underflow stores the same vectors."""
    with np.errstate(all="raise"):
        assert check_vector([1e-60, 1.0], 2, "cosine").tolist() == [0.0, 1.0]
        with pytest.raises(InvalidInputError):
            check_vector([1e60, 1.0], 2, "cosine")


# --- hits and records ----------------------------------------------------------------------------------------


def make_hit(**parts: Any) -> Hit:
    return Hit(id=7, **parts, score=0.5, distance=0.5)


def test_hit_is_a_dict_with_attributes() -> None:
    """`hit["id"]` and `hit.id` are the same thing."""
    hit = make_hit(metadata={"a": 1}, text="t", vector=[1.0, 2.0])
    assert isinstance(hit, dict)
    assert (hit.id, hit.score, hit.distance, hit.metadata, hit.text) == (7, 0.5, 0.5, {"a": 1}, "t")
    assert hit == {"id": 7, "metadata": {"a": 1}, "text": "t", "vector": [1.0, 2.0], "score": 0.5, "distance": 0.5}
    assert hit.vector.dtype == np.float32 and hit.vector.tolist() == [1.0, 2.0]
    assert dict(**hit) == hit


def test_hit_prints_as_a_dict() -> None:
    """Scripts that print hits print what the original printed."""
    hit = Hit(id=0, metadata={"name": "foo"}, score=0.991, distance=0.009)
    assert repr(hit) == str(hit) == "{'id': 0, 'metadata': {'name': 'foo'}, 'score': 0.991, 'distance': 0.009}"


def test_hits_serialise_with_the_vector_included() -> None:
    """`json.dumps(hits)` works, and the float32 values survive it."""
    vector = np.array([0.1, 1 / 3, 1e-30], np.float32)
    hits = [make_hit(vector=vector.tolist()), Hit(id="x", score=1.0, distance=None)]
    read = json.loads(json.dumps(hits))
    assert read == hits
    assert np.array(read[0]["vector"], np.float32).tobytes() == vector.tobytes()


@pytest.mark.parametrize("part", ["metadata", "text", "vector"])
def test_part_that_was_not_asked_for_is_an_error_naming_include(part: str) -> None:
    """A missing part is not None, and the message says how to get it."""
    hit = make_hit()
    with pytest.raises(AttributeError, match=rf"include=\('{part}',\)"):
        getattr(hit, part)
    with pytest.raises(KeyError):
        hit[part]
    assert not hasattr(hit, part)
    assert hit.get(part) is None


def test_text_that_is_none_is_there() -> None:
    """A record without a text has None when the text was asked for."""
    assert make_hit(text=None).text is None


def test_hit_has_no_other_attributes() -> None:
    """A misspelt name is an error, reading and writing."""
    hit = make_hit()
    with pytest.raises(AttributeError):
        hit.distances  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        hit.rank = 1  # type: ignore[attr-defined]


def test_hit_and_record_can_be_copied_and_pickled() -> None:
    """They travel to other processes."""
    hit = make_hit(metadata={"a": [1]})
    record = Record("x", {"a": 1}, np.ones(2, np.float32), "t")
    for original in (hit, record):
        for copied in (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):  # noqa: S301
            assert type(copied) is type(original) and copied == original


def test_records_are_equal_when_all_parts_are() -> None:
    """Equality looks at ids with their type, metadata, text, and each component of the vector."""
    vector = np.array([1.0, 2.0], np.float32)
    record = Record(1, {"a": 1}, vector, "t")
    assert record == Record(1, {"a": 1}, vector.copy(), "t")
    for other in (
        Record("1", {"a": 1}, vector, "t"),
        Record(2, {"a": 1}, vector, "t"),
        Record(1, {"a": 2}, vector, "t"),
        Record(1, None, vector, "t"),
        Record(1, {"a": 1}, np.array([1.0, 2.5], np.float32), "t"),
        Record(1, {"a": 1}, None, "t"),
        Record(1, {"a": 1}, vector, ""),
        Record(1, {"a": 1}, vector, None),
        {"id": 1},
        None,
    ):
        assert record != other and other != record


def test_record_cannot_be_changed_or_hashed() -> None:
    """A record is what was read; it holds a dict, so it is no key."""
    record = Record(1)
    assert (record.metadata, record.vector, record.text) == (None, None, None)
    with pytest.raises(AttributeError):
        record.id = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(record)
