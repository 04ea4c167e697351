"""Ids, metadata and small arguments by themselves, without a database."""

from __future__ import annotations

import copy
import enum
import json
import math
import sys
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nopokedb import DuplicateIdError, InvalidIdError, InvalidInputError, InvalidMetadataError
from nopokedb.metadata_json import decode_metadata, encode_metadata, merge_metadata
from nopokedb.records import (
    check_choice,
    check_id,
    check_ids,
    check_include,
    check_int,
    check_lengths,
    check_text,
    id_order,
)

# Any code point that UTF-8 has: all but the surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INT64,
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXTS, inner, max_size=4),
    ),
    max_leaves=15,
)
METADATA = st.dictionaries(TEXTS, VALUES, max_size=5)
MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones() | st.just(UTC)
)
IDS = INT64 | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type all the way down; 0.0 and -0.0 differ, 1 and 1.0 and True too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


# --- metadata ------------------------------------------------------------------------------------------------


@given(METADATA)
@example({"": {"": []}})
@example({"a\0b": "\0", "\x7f\x1f": "\u2028\ufeff\U0010ffff"})
@example({"borders": [2**63 - 1, -(2**63), 2**53 + 1]})
@example({"floats": [5e-324, 1.7976931348623157e308, -0.0, 1e16, 1e-7, 0.1, 1e22, 1.0, 123456789012345680.0]})
@example({"tuple": (1, (2, ())), "list": [[], {}]})
def test_metadata_comes_back_as_json_would_bring_it_back(metadata: dict[str, Any]) -> None:
    """Encoding and decoding equals the standard library's, in values, types and order."""
    assert same(decode_metadata(encode_metadata(metadata)), json.loads(json.dumps(metadata)))


@given(METADATA)
def test_metadata_encoding_is_valid_json_and_stable(metadata: dict[str, Any]) -> None:
    """The bytes are UTF-8 JSON that others can read, and encoding what was decoded gives the same bytes."""
    encoded = encode_metadata(metadata)
    assert same(json.loads(encoded.decode()), decode_metadata(encoded))
    assert encode_metadata(decode_metadata(encoded)) == encoded


def test_missing_metadata_is_an_empty_object() -> None:
    """None and {} are stored alike, so reading gives None only for an absent record."""
    assert encode_metadata(None) == encode_metadata({}) == b"{}"


@given(METADATA)
def test_encoding_leaves_the_caller_s_object_alone(metadata: dict[str, Any]) -> None:
    """Nothing is converted in place."""
    before = copy.deepcopy(metadata)
    encode_metadata(metadata)
    assert metadata == before


def test_decoded_metadata_are_fresh_each_time() -> None:
    """Changing what a read returned changes nothing else."""
    encoded = encode_metadata({"a": [1]})
    decode_metadata(encoded)["a"].append(2)
    assert decode_metadata(encoded) == {"a": [1]}


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1])
def test_int_at_the_64_bit_borders_is_kept(value: int) -> None:
    """Ints do not pass through a float on the way."""
    assert decode_metadata(encode_metadata({"a": value, "b": [value]})) == {"a": value, "b": [value]}


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**30])
def test_int_past_64_bits_is_refused(value: int) -> None:
    """It would become a float somewhere, so it is refused at the edge, at any depth."""
    for metadata in ({"a": value}, {"a": [{"b": value}]}):
        with pytest.raises(InvalidMetadataError, match="64"):
            encode_metadata(metadata)


class Colour(str, enum.Enum):  # noqa: UP042  # the older spelling of a str enum, whose str() is not its value
    RED = "red"


class Shape(enum.StrEnum):
    ROUND = "round"


class Size(enum.IntEnum):
    LARGE = 3


class Shouting(str):
    """A str whose str() is something else."""

    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize(
    ("value", "stored"), [(Colour.RED, "red"), (Shape.ROUND, "round"), (Size.LARGE, 3), (Shouting("a"), "a")]
)
def test_enum_is_stored_as_its_value(value: Any, stored: Any) -> None:
    """Enums of str and int are the values they stand for, as in the standard library's JSON."""
    for metadata in ({"a": value}, {"a": [value]}, {"a": {"b": value}}):
        decoded = decode_metadata(encode_metadata(metadata))
        assert same(decoded, json.loads(json.dumps(metadata)))
    assert same(decode_metadata(encode_metadata({"a": value})), {"a": stored})


@pytest.mark.parametrize("key", [Colour.RED, Shape.ROUND, Shouting("a")])
def test_enum_as_key_is_stored_as_its_value(key: Any) -> None:
    """Keys follow the same rule as values."""
    assert decode_metadata(encode_metadata({key: 1})) == {str.__str__(key): 1}
    assert decode_metadata(encode_metadata({"a": {key: 1}})) == {"a": {str.__str__(key): 1}}


@pytest.mark.parametrize("kind", [OrderedDict, Counter, lambda pairs: defaultdict(int, pairs)])
@pytest.mark.parametrize("value", [1, [1], {"b": 1}])
def test_dict_subclass_is_a_dict(kind: Any, value: Any) -> None:
    """A dict is a dict, at the top and inside, whatever its values."""
    assert decode_metadata(encode_metadata(kind({"a": value}))) == {"a": value}
    assert decode_metadata(encode_metadata({"in": kind({"a": value})})) == {"in": {"a": value}}


def test_list_and_tuple_subclasses_are_lists() -> None:
    """A named tuple is stored by position."""

    class Point(tuple[int, int]):
        pass

    assert decode_metadata(encode_metadata({"p": Point((1, 2))})) == {"p": [1, 2]}


@given(MOMENTS)
def test_datetime_becomes_utc_text_of_fixed_width(moment: datetime) -> None:
    """One width, microseconds always, a Z at the end, and the same instant when read back."""
    text = decode_metadata(encode_metadata({"at": moment}))["at"]
    assert len(text) == len("2020-01-01T00:00:00.000000Z") and text.endswith("Z")
    # In UTC, because times that a zone skips or repeats never compare equal across zones.
    assert datetime.fromisoformat(text) == moment.astimezone(UTC)


@given(MOMENTS, MOMENTS)
def test_datetimes_sort_as_their_texts(first: datetime, second: datetime) -> None:
    """Comparing the stored texts is comparing the instants, across time zones."""
    texts = [decode_metadata(encode_metadata({"at": moment}))["at"] for moment in (first, second)]
    assert (texts[0] < texts[1]) == (first.astimezone(UTC) < second.astimezone(UTC))
    assert (texts[0] == texts[1]) == (first.astimezone(UTC) == second.astimezone(UTC))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_datetime_outside_of_utc_s_years_is_refused(moment: datetime) -> None:
    """The first and last hours of the calendar cannot be told in UTC: an error of ours, not an overflow."""
    with pytest.raises(InvalidMetadataError):
        encode_metadata({"at": moment})


def test_naive_datetime_is_refused_with_its_place() -> None:
    """Which instant is meant is not for us to guess."""
    with pytest.raises(InvalidMetadataError, match=r"\['a'\]\[0\].*naive"):
        encode_metadata({"a": [datetime(2020, 1, 1)]})


# --- merge patches -------------------------------------------------------------------------------------------

# RFC 7396, appendix A: target, patch, result.
RFC_7396: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_follows_the_examples_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    """All fifteen examples of its appendix A."""
    before = copy.deepcopy((target, patch))
    assert same(merge_metadata(target, patch), result)
    assert (target, patch) == before


def without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nones(item) for key, item in value.items() if item is not None}
    return value


@given(METADATA, METADATA)
def test_merging_twice_is_merging_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """A patch is idempotent, and what it says is there afterwards."""
    once = merge_metadata(target, patch)
    assert merge_metadata(once, patch) == once
    assert merge_metadata({}, patch) == without_nones(patch)
    assert merge_metadata(target, {}) == target


# --- ids -----------------------------------------------------------------------------------------------------


def reference_order(ids: list[int | str]) -> list[int | str]:
    numbers = sorted(id_ for id_ in ids if isinstance(id_, int))
    return [*numbers, *sorted((id_ for id_ in ids if isinstance(id_, str)), key=lambda id_: id_.encode())]


@given(st.lists(IDS))
@example([1, "1", -1, "", "-1", 0, "0", "é", "e\u0301", "z", "Z", 2**63 - 1, -(2**63)])
@example(["\uffff", "\U00010000"])  # UTF-16 would order these two the other way round
def test_ids_are_ordered_ints_first_then_strs_by_utf8(ids: list[int | str]) -> None:
    """The order of scans and of ties."""
    assert sorted(ids, key=id_order) == reference_order(ids)


@given(IDS)
@example("é" * 256)
@example("x" * 512)
@example("\0")
@example(" ")
def test_valid_id_passes_unchanged(id_: int | str) -> None:
    """No trimming, no normalisation, no conversion."""
    assert same(check_id(id_), id_)


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [
        (np.int8(-3), -3),
        (np.uint64(2**63 - 1), 2**63 - 1),
        (np.int64(-(2**63)), -(2**63)),
        (np.str_("x"), "x"),
        (Size.LARGE, 3),
        (Colour.RED, "red"),
        (Shape.ROUND, "round"),
        (Shouting("a"), "a"),
    ],
)
def test_id_becomes_a_plain_int_or_str(given_id: Any, kept: int | str) -> None:
    """NumPy's scalars and enums are ids by their value."""
    assert same(check_id(given_id), kept)
    assert same(check_ids([given_id, "other"]), [kept, "other"])


@pytest.mark.parametrize("id_", ["é" * 257, "x" * 513, "", "\ud800", 2**63, -(2**63) - 1, True, 1.0, None])
def test_invalid_id_is_refused_alone_and_in_a_sequence(id_: Any) -> None:
    """One wrong id refuses the call."""
    with pytest.raises(InvalidIdError):
        check_id(id_)
    for ids in ([id_], [5, id_], ["a", id_]):
        with pytest.raises(InvalidIdError):
            check_ids(ids)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (np.arange(3), [0, 1, 2]),
        (np.array([3, 1, 2], np.uint8), [3, 1, 2]),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
        (np.array(["b", "a"]), ["b", "a"]),
        (np.array([1, "1"], dtype=object), [1, "1"]),
        (np.empty(0, np.int64), []),
        (range(3), [0, 1, 2]),
        (iter(["x", 1]), ["x", 1]),
        ({"k": 1}.keys(), ["k"]),
        ([], []),
    ],
)
def test_ids_come_from_any_sequence(ids: Any, kept: list[int | str]) -> None:
    """Arrays, ranges, iterators and views become a list of plain ids in their order."""
    assert same(check_ids(ids), kept)


@pytest.mark.parametrize(
    "ids",
    [
        np.array([1.0]),
        np.array([True]),
        np.array([2**63], np.uint64),
        np.array([[1, 2]]),
        np.array([b"a"]),
        np.array(5),
        np.array(["2020-01-01"], "datetime64[ns]"),
        "ab",
        b"ab",
        5,
    ],
)
def test_array_that_holds_no_ids_is_refused(ids: Any) -> None:
    """Floats, bools, bytes, dates, matrices and single values are no ids, not even by conversion."""
    with pytest.raises(InvalidIdError):
        check_ids(ids)


@given(st.lists(IDS, min_size=1), st.data())
def test_id_twice_is_found_wherever_it_stands(ids: list[int | str], data: st.DataObject) -> None:
    """1 and "1" are two ids; the same id twice is an error that names it."""
    once = list(dict.fromkeys(ids))
    assert check_ids(once) == once
    again = data.draw(st.sampled_from(once))
    at = data.draw(st.integers(0, len(once)))
    with pytest.raises(DuplicateIdError) as caught:
        check_ids([*once[:at], again, *once[at:]])
    assert repr(again) in str(caught.value)


def test_number_and_its_digits_are_two_ids() -> None:
    """1 and "1" never meet."""
    assert check_ids([1, "1"]) == [1, "1"]


def test_enormous_int_is_refused_without_printing_it() -> None:
    """Python refuses to print ints of thousands of digits; the message must not fail over that."""
    digits = sys.get_int_max_str_digits() or 4300
    for check in (check_id, lambda value: check_ids([value]), lambda value: check_int("k", value, 1, 9)):
        with pytest.raises(InvalidInputError, match="expected"):
            check(10 ** (digits + 1))


# --- small arguments -----------------------------------------------------------------------------------------


def test_small_arguments_pass_in_their_plain_form() -> None:
    """NumPy integers become ints, any sequence of names becomes a tuple."""
    assert same(check_int("k", np.int32(5), 1, 9), 5)
    assert check_include(["vector", "text"]) == ("vector", "text")
    assert check_include(()) == ()
    assert check_include(iter(["vector"])) == ("vector",)  # type: ignore[arg-type]
    assert check_text(None) is None
    assert check_text("") == ""
    assert same(check_text(Colour.RED), "red")
    assert check_lengths(a=3, b=None, c=3) == 3


def test_wrong_choice_names_the_choices() -> None:
    """The message lists what is allowed."""
    from nopokedb.records import Space

    with pytest.raises(InvalidInputError, match=r"'cosine', 'l2', 'ip', got 'euclid'"):
        check_choice("space", "euclid", Space)
