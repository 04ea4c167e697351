"""Filters on metadata: a `where` dict or an `F` expression becomes one small tree, the same for every engine.

    Filter = And(parts) | Or(parts) | Not(part) | Test(path, operator, operand)

There are seven tests; all other operators are made of them (`$ne` is Not of `any_of`, `$contains_all` an And of
`contains`). What a test means is said once, by `holds`: engines translate tests into their own language and are
compared with it. docs/filters.md says the same for users.

A path leads to *nodes*: each step goes into a dict by key; on a list it goes into each of its dicts. What a test looks
at are the *elements* of the nodes: a node itself, or what is in it where it is a list. A path that leads nowhere is
missing, which equals null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import orjson

from nopokedb.errors import InvalidFilterError
from nopokedb.records import Id, shown, utc_text

MAX_DEPTH = 32
MAX_NODES = 1_000
MAX_OPERANDS = 100_000
"""Values in one `$in`."""
MAX_PATTERN_BYTES = 10_000

Path: TypeAlias = tuple[str, ...] | None
"""Steps into the metadata; None stands for the record's id."""
Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of one kind, numbers or strs; None is no bound."""

    low: str | int | float | None = None
    high: str | int | float | None = None
    above: bool = False
    """`low` itself is outside."""
    below: bool = False
    """`high` itself is outside."""


class Filter:
    """A condition on records; combine conditions with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        return And((*_parts(self, And), *_parts(other, And)))

    def __or__(self, other: Filter) -> Filter:
        return Or((*_parts(self, Or), *_parts(other, Or)))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> bool:
        raise InvalidFilterError("expected filters combined with &, | and ~, got and, or, not or a chained comparison")


@dataclass(frozen=True, slots=True)
class And(Filter):
    """Every part holds; all records where there is none."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """Some part holds; no record where there is none."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The part does not hold: the complement, records without the field included."""

    part: Filter


@dataclass(frozen=True, slots=True, eq=False)
class Test(Filter):
    """One test of one path. `operand` by operator:

    any_of       tuple of scalars: an element equals one of them
    range        `Range`: an element of its kind lies within
    exists       None: the path leads somewhere
    contains     a scalar: an element of a list equals it, or a str has it as a part
    starts_with  a str: an element is a str that begins so
    like         a str: an element is a str that matches the pattern; `%` any text, `_` one character, `\\` escapes
    """

    __test__: ClassVar[bool] = False  # pytest would collect a class of this name

    path: Path
    operator: Literal["any_of", "range", "exists", "contains", "starts_with", "like"]
    operand: Any = None

    @property
    def key(self) -> bytes:
        """The same for equal tests, other for all others: 1, 1.0 and True differ."""
        operand = self.operand
        if isinstance(operand, Range):
            operand = [operand.low, operand.high, operand.above, operand.below]
        return orjson.dumps([self.operator, self.path, operand])


def filter_key(node: Filter) -> bytes:
    """The same for filters that are written alike."""
    match node:
        case Test():
            return node.key
        case Not(part):
            return b"!(" + filter_key(part) + b")"
        case And(parts) | Or(parts):
            return (b"&(" if isinstance(node, And) else b"|(") + b",".join(map(filter_key, parts)) + b")"
    raise AssertionError(node)


def tests_of(node: Filter) -> Iterator[Test]:
    """All tests in a filter."""
    match node:
        case Test():
            yield node
        case Not(part):
            yield from tests_of(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from tests_of(part)


# --- what a filter means ----------------------------------------------------------------------------------


def holds(node: Filter, id_: Id, metadata: Any) -> bool:
    """Whether a record passes: the meaning of every filter, in plain Python."""
    match node:
        case Test(path, operator, operand):
            nodes = [id_] if path is None else nodes_at(metadata, path)
            return _HOLDS[operator](nodes, operand)
        case Not(part):
            return not holds(part, id_, metadata)
        case And(parts):
            return all(holds(part, id_, metadata) for part in parts)
        case Or(parts):
            return any(holds(part, id_, metadata) for part in parts)
    raise AssertionError(node)


def nodes_at(metadata: Any, path: Sequence[str]) -> list[Any]:
    """The nodes that the path leads to; none if it is missing."""
    nodes = [metadata]
    for step in path:
        reached = []
        for node in nodes:
            for item in node if isinstance(node, list) else (node,):
                if isinstance(item, dict) and step in item:
                    reached.append(item[step])
        nodes = reached
    return nodes


def elements_of(nodes: Sequence[Any]) -> Iterator[Any]:
    """What a test looks at: nodes, and what is in those that are lists."""
    for node in nodes:
        if isinstance(node, list):
            yield from node
        else:
            yield node


def typed(value: Any) -> tuple[str, Any] | None:
    """A scalar with its kind, so that equal means equal: `true` is not 1, and 1 is 1.0. None for lists and dicts."""
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float):
        # JSON ints past 64 bits (signed) are kept as floats by SQLite and are compared as floats everywhere.
        return "number", float(value) if isinstance(value, int) and value >= 2**63 else value
    return ("str", value) if isinstance(value, str) else None


def _any_of(nodes: list[Any], operand: tuple[Scalar, ...]) -> bool:
    wanted = {typed(value) for value in operand}
    if not nodes:
        return ("null", None) in wanted
    return any(typed(element) in wanted for element in elements_of(nodes))


def _in_range(nodes: list[Any], bounds: Range) -> bool:
    kind, low, high = range_of(bounds)
    for element in elements_of(nodes):
        found = typed(element)
        if found is None or found[0] != kind:
            continue
        value = found[1]
        if (low is None or (value > low if bounds.above else value >= low)) and (
            high is None or (value < high if bounds.below else value <= high)
        ):
            return True
    return False


def range_of(bounds: Range) -> tuple[str, Any, Any]:
    """The kind of a range's bounds, and the bounds as they are compared."""
    low, high = typed(bounds.low), typed(bounds.high)
    assert low is not None and high is not None
    return (low[0] if bounds.low is not None else high[0]), low[1], high[1]


def _contains(nodes: list[Any], operand: Scalar) -> bool:
    for node in nodes:
        if isinstance(node, list):
            if typed(operand) in map(typed, node):
                return True
        elif isinstance(node, str) and isinstance(operand, str) and operand in node:
            return True
    return False


def _starts_with(nodes: list[Any], operand: str) -> bool:
    return any(isinstance(element, str) and element.startswith(operand) for element in elements_of(nodes))


def _like(nodes: list[Any], operand: str) -> bool:
    pattern = like_pattern(operand)
    return any(isinstance(element, str) and _matches(pattern, element) for element in elements_of(nodes))


_HOLDS: dict[str, Callable[[list[Any], Any], bool]] = {
    "any_of": _any_of,
    "range": _in_range,
    "exists": lambda nodes, _: bool(nodes),
    "contains": _contains,
    "starts_with": _starts_with,
    "like": _like,
}


def like_pattern(text: str) -> list[str]:
    """The pattern of `$like`: "%" any text, "_" one character, and "=c" the character c."""
    parts, characters = [], iter(text)
    for character in characters:
        if character == "\\":
            parts.append("=" + next(characters))  # the parser has refused one at the end
        else:
            parts.append(character if character in "%_" else "=" + character)
    return parts


def _matches(pattern: list[str], text: str) -> bool:
    """Wildcard matching that goes back to the last `%` only: at most length times length steps."""
    at = place = 0
    star, mark = -1, 0
    while place < len(text):
        if at < len(pattern) and (pattern[at] == "_" or pattern[at] == "=" + text[place]):
            at, place = at + 1, place + 1
        elif at < len(pattern) and pattern[at] == "%":
            star, mark = at, place
            at += 1
        elif star >= 0:
            mark += 1
            at, place = star + 1, mark
        else:
            return False
    return all(part == "%" for part in pattern[at:])


# --- from a dict to a filter ------------------------------------------------------------------------------


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
        raise InvalidFilterError(f"expected a field in {place}, got {text!r:.80}; a field of that name is written \\$...")
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
        return OPERATORS["$eq"](path, condition, place)
    if not condition:
        raise InvalidFilterError(f"expected a value or at least one operator at {place}, got {{}}")
    parts = []
    for operator, operand in condition.items():
        here = f"{place}[{operator!r:.80}]"
        if operator == "$not" and isinstance(operand, Mapping):
            parts.append(Not(_field(path, operand, here, depth + 1)))
        elif operator in OPERATORS:
            parts.append(OPERATORS[operator](path, operand, here))
        elif isinstance(operator, str) and operator.startswith("$"):
            raise InvalidFilterError(
                f"expected one of {', '.join(sorted(OPERATORS))} or $not with a dict at {place}, got {operator!r:.80}"
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
OPERATORS: dict[str, Callable[[Path, object, str], Filter]] = {
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



def _parts(node: Filter, kind: type[And] | type[Or]) -> tuple[Filter, ...]:
    if not isinstance(node, Filter):
        raise InvalidFilterError(f"expected a filter made with F, got {shown(node)}")
    return node.parts if isinstance(node, kind) else (node,)  # type: ignore[attr-defined, no-any-return]


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
