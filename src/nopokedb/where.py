"""What users write -> a filter: `where` dicts, and expressions with `F`. One table has all operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from nopokedb.errors import InvalidFilterError
from nopokedb.filters import And, Filter, Not, Or, Path, Range, Scalar, Test
from nopokedb.records import shown
from nopokedb.times import utc_text

Where: TypeAlias = Mapping[str, Any] | Filter | None
"""What a `where` argument may be."""

MAX_DEPTH = 32
MAX_NODES = 1_000
MAX_OPERANDS = 100_000
"""Values in one `$in`."""
MAX_PATTERN_BYTES = 10_000


def parse_filter(where: object) -> Filter | None:
    """The filter of a `where` argument: None, a dict, or a filter made with `F`.

    Raises `InvalidFilterError`, which names the place, for anything that docs/filters.md does not describe.
    """
    if where is None:
        return None
    if isinstance(where, Filter):
        node = where
    elif isinstance(where, Mapping):
        node = _parse(where, "where", 1)
    else:
        raise InvalidFilterError(f"expected where to be a dict or a filter made with F, got {shown(where)}")
    _check_size(node)
    return node


def parse_path(text: object, *, place: str = "the field") -> Path:
    """The steps of a dotted path; `\\` takes the next character as it is; `"$id"` is the id."""
    if not isinstance(text, str):
        raise InvalidFilterError(f"expected the name of a field as str in {place}, got {shown(text)}")
    if text == "$id":
        return None
    if text.startswith("$"):
        raise InvalidFilterError(
            f"expected a field in {place}, got {text!r:.80}; a field of that name is written \\$..."
        )
    _check_unicode(text, place)
    steps, step, characters = [], "", iter(text)
    for character in characters:
        if character == ".":
            steps.append(step)
            step = ""
        elif character == "\\":
            following = next(characters, None)
            if following is None:
                raise InvalidFilterError(f"expected a character after the last \\ of {text!r:.80} in {place}")
            step += following
        else:
            step += character
    steps.append(step)
    if len(steps) > MAX_DEPTH:
        raise InvalidFilterError(f"expected a path of at most {MAX_DEPTH} steps in {place}, got {len(steps)}")
    return tuple(steps)


def _parse(where: Mapping[Any, Any], place: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidFilterError(f"expected filters nested at most {MAX_DEPTH} deep, got more at {place:.200}")
    parts: list[Filter] = []
    for key, value in where.items():
        here = f"{place}[{key!r:.80}]"
        if key in ("$and", "$or"):
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence) or not value:
                raise InvalidFilterError(f"expected a list of at least one filter at {here}, got {shown(value)}")
            if len(value) > MAX_NODES:
                raise InvalidFilterError(f"expected at most {MAX_NODES} filters at {here}, got {len(value)}")
            inner = tuple(_part(part, f"{here}[{at}]", depth + 1) for at, part in enumerate(value))
            parts.append(And(inner) if key == "$and" else Or(inner))
        elif key == "$not":
            parts.append(Not(_part(value, here, depth + 1)))
        elif isinstance(key, str) and key.startswith("$") and key != "$id":
            raise InvalidFilterError(
                f"expected a field, $id, $and, $or or $not in {place}, got {key!r:.80}; a field of that name is "
                "written \\$..."
            )
        else:
            parts.append(_field(parse_path(key, place=place), value, here, depth + 1))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _part(value: object, place: str, depth: int) -> Filter:
    """A filter inside another one."""
    if isinstance(value, Filter):
        return value
    if isinstance(value, Mapping):
        return _parse(value, place, depth)
    raise InvalidFilterError(f"expected a filter (a dict) at {place}, got {shown(value)}")


def _field(path: Path, condition: object, place: str, depth: int) -> Filter:
    """What is asked of one field: a plain value, or operators."""
    if depth > MAX_DEPTH + 1:
        raise InvalidFilterError(f"expected filters nested at most {MAX_DEPTH} deep, got more at {place:.200}")
    if not isinstance(condition, Mapping):
        return _OPERATORS["$eq"](path, condition, place)
    if not condition:
        raise InvalidFilterError(f"expected a value or at least one operator at {place}, got {{}}")
    parts: list[Filter] = []
    for operator, operand in condition.items():
        here = f"{place}[{operator!r:.80}]"
        if operator == "$not" and isinstance(operand, Mapping):
            parts.append(Not(_field(path, operand, here, depth + 1)))
        elif operator in _OPERATORS:
            parts.append(_OPERATORS[operator](path, operand, here))
        elif isinstance(operator, str) and operator.startswith("$"):
            raise InvalidFilterError(
                f"expected one of {', '.join(sorted(_OPERATORS))} or $not with a dict at {place}, got {operator!r:.80}"
            )
        else:
            raise InvalidFilterError(
                f"expected a value or operators at {place}, got a dict with the key {operator!r:.80}; a field inside "
                "is named by a path like 'author.name'"
            )
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _scalar(value: object, place: str) -> Scalar:
    """A value to compare with, in its plain form."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_unicode(value, place)
        return str.__str__(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidFilterError(f"expected an int of 64 bits at {place}, got {shown(value)}")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidFilterError(f"expected a finite number at {place}, got {value}; JSON has no such value")
        return float(value)
    if isinstance(value, datetime):
        return utc_text(value, place, InvalidFilterError)
    hint = "; for several values use $in, $contains_any or $contains_all" if isinstance(value, list | tuple) else ""
    raise InvalidFilterError(f"expected a str, number, bool, None or datetime at {place}, got {shown(value)}{hint}")


def _check_unicode(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidFilterError(f"expected valid Unicode at {place}, got {text!a:.80} ({error.reason})") from None


def _bound(value: object, place: str) -> str | int | float:
    """A value that has an order."""
    bound = _scalar(value, place)
    if bound is None or isinstance(bound, bool):
        raise InvalidFilterError(f"expected a number, str or datetime to order by at {place}, got {bound!r}")
    return bound


def _scalars(value: object, place: str) -> tuple[Scalar, ...]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | set | frozenset):
        raise InvalidFilterError(f"expected a list of values at {place}, got {shown(value)}")
    if len(value) > MAX_OPERANDS:
        raise InvalidFilterError(f"expected at most {MAX_OPERANDS} values at {place}, got {len(value)}")
    return tuple(_scalar(item, f"{place}[{at}]") for at, item in enumerate(value))


def _several(value: object, place: str) -> tuple[Scalar, ...]:
    values = _scalars(value, place)
    if not values:
        raise InvalidFilterError(f"expected at least one value at {place}, got an empty list")
    if len(values) > MAX_NODES:
        raise InvalidFilterError(f"expected at most {MAX_NODES} values at {place}, got {len(values)}")
    return values


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise InvalidFilterError(f"expected a str at {place}, got {shown(value)}")
    _check_unicode(value, place)
    return str.__str__(value)


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InvalidFilterError(f"expected true or false at {place}, got {shown(value)}")
    return bool(value)


def _between(path: Path, value: object, place: str) -> Filter:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != 2:
        raise InvalidFilterError(f"expected [low, high] at {place}, got {shown(value)}")
    low, high = (_bound(item, f"{place}[{at}]") for at, item in enumerate(value))
    if isinstance(low, str) != isinstance(high, str):
        raise InvalidFilterError(f"expected two numbers or two strs at {place}, got {low!r:.80} and {high!r:.80}")
    return Test(path, "range", Range(low, high))


def _like_test(path: Path, value: object, place: str) -> Filter:
    text = _text(value, place)
    if len(text.encode()) > MAX_PATTERN_BYTES:
        raise InvalidFilterError(f"expected a pattern of at most {MAX_PATTERN_BYTES} bytes at {place}")
    if (len(text) - len(text.rstrip("\\"))) % 2:
        raise InvalidFilterError(f"expected a character after the last \\ of the pattern at {place}, got {text!r:.80}")
    return Test(path, "like", text)


def _one_or_not(path: Path, yes: bool, test: Filter) -> Filter:
    return test if yes else Not(test)


# THE table of operators: how each is checked, and of which tests it is made.
_OPERATORS: dict[str, Callable[[Path, object, str], Filter]] = {
    "$eq": lambda path, value, place: Test(path, "any_of", (_scalar(value, place),)),
    "$ne": lambda path, value, place: Not(Test(path, "any_of", (_scalar(value, place),))),
    "$in": lambda path, value, place: Test(path, "any_of", _scalars(value, place)),
    "$nin": lambda path, value, place: Not(Test(path, "any_of", _scalars(value, place))),
    "$gt": lambda path, value, place: Test(path, "range", Range(low=_bound(value, place), above=True)),
    "$gte": lambda path, value, place: Test(path, "range", Range(low=_bound(value, place))),
    "$lt": lambda path, value, place: Test(path, "range", Range(high=_bound(value, place), below=True)),
    "$lte": lambda path, value, place: Test(path, "range", Range(high=_bound(value, place))),
    "$between": _between,
    "$exists": lambda path, value, place: _one_or_not(path, _flag(value, place), Test(path, "exists")),
    "$is_null": lambda path, value, place: _one_or_not(path, _flag(value, place), Test(path, "any_of", (None,))),
    "$contains": lambda path, value, place: Test(path, "contains", _scalar(value, place)),
    "$contains_any": lambda path, value, place: Or(
        tuple(Test(path, "contains", item) for item in _several(value, place))
    ),
    "$contains_all": lambda path, value, place: And(
        tuple(Test(path, "contains", item) for item in _several(value, place))
    ),
    "$starts_with": lambda path, value, place: Test(path, "starts_with", _text(value, place)),
    "$like": _like_test,
}
OPERATORS = (*sorted(_OPERATORS), "$and", "$or", "$not")
"""The names of all operators."""


def _check_size(node: Filter) -> None:
    """Few enough nodes, not too deep: also of filters built with operators."""
    count, level = 0, [node]
    for _ in range(MAX_DEPTH + 1):
        count += len(level)
        if count > MAX_NODES:
            raise InvalidFilterError(f"expected a filter of at most {MAX_NODES} nodes, got more")
        below: list[Filter] = []
        for item in level:
            match item:
                case And(parts) | Or(parts):
                    below += parts
                case Not(part):
                    below.append(part)
        if not below:
            return
        level = below
    raise InvalidFilterError(f"expected a filter at most {MAX_DEPTH} deep, got more")


class F:
    """A field in a filter: `(F("year") >= 2020) & F("author.name").startswith("A")`.

    The name is a path as in a `where` dict: dots lead into objects, `\\` takes the next character as it is, `"$id"` is
    the record's id. With `literal=True` the name is one key as it stands.

    Comparisons (`== != > >= < <=`) and the methods give filters, to be combined with `&`, `|`, `~`; put each
    comparison in parentheses. Raises `InvalidFilterError` for values that cannot be compared.
    """

    __slots__ = ("_name", "_path")

    def __init__(self, name: str, *, literal: bool = False) -> None:
        self._path = (name,) if literal and isinstance(name, str) else parse_path(name, place="F(...)")
        self._name = name

    def _test(self, operator: str, value: Any) -> Filter:
        return _OPERATORS[operator](self._path, value, f"F({self._name!r:.80}) {operator}")

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return self._test("$eq", value)

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return self._test("$ne", value)

    def __gt__(self, value: Any) -> Filter:
        return self._test("$gt", value)

    def __ge__(self, value: Any) -> Filter:
        return self._test("$gte", value)

    def __lt__(self, value: Any) -> Filter:
        return self._test("$lt", value)

    def __le__(self, value: Any) -> Filter:
        return self._test("$lte", value)

    __hash__ = None  # type: ignore[assignment]  # comparing builds a filter

    def is_in(self, values: Any) -> Filter:
        """`$in`."""
        return self._test("$in", values)

    def not_in(self, values: Any) -> Filter:
        """`$nin`."""
        return self._test("$nin", values)

    def between(self, low: Any, high: Any) -> Filter:
        """`$between`, both ends included."""
        return self._test("$between", [low, high])

    def exists(self, yes: bool = True) -> Filter:
        """`$exists`."""
        return self._test("$exists", yes)

    def is_null(self, yes: bool = True) -> Filter:
        """`$is_null`: null or missing."""
        return self._test("$is_null", yes)

    def contains(self, value: Any) -> Filter:
        """`$contains`: an element of a list, a part of a str."""
        return self._test("$contains", value)

    def contains_any(self, values: Any) -> Filter:
        """`$contains_any`."""
        return self._test("$contains_any", values)

    def contains_all(self, values: Any) -> Filter:
        """`$contains_all`."""
        return self._test("$contains_all", values)

    def startswith(self, text: str) -> Filter:
        """`$starts_with`."""
        return self._test("$starts_with", text)

    def like(self, pattern: str) -> Filter:
        """`$like`: `%` any text, `_` one character, `\\` escapes; case-sensitive."""
        return self._test("$like", pattern)
