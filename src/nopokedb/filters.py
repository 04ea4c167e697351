"""Filters on metadata: a `where` dict or an `F` expression becomes one small tree, the same for every engine.

    Filter = And(parts) | Or(parts) | Not(part) | Test(path, operator, operand)

There are six tests; all other operators are made of them (`$ne` is Not of `any_of`, `$contains_all` an And of
`contains`). What a test means is said once, by `holds`: engines translate tests into their own language and are
compared with it. docs/filters.md says the same for users; where.py makes filters of what users write.

A path leads to *nodes*: each step goes into a dict by key; on a list it goes into each of its dicts. What a test looks
at are the *elements* of the nodes: a node itself, or what is in it where it is a list. A path that leads nowhere is
missing, which equals null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import orjson

from nopokedb.errors import InvalidFilterError
from nopokedb.records import Id

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


def each_test(node: Filter) -> Iterator[Test]:
    """All tests in a filter."""
    match node:
        case Test():
            yield node
        case Not(part):
            yield from each_test(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from each_test(part)


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


def group_keys(nodes: list[Any]) -> list[tuple[str, Any]]:
    """The groups that a record with these nodes in the field belongs to: kind and value of each element, once; null
    where it has none, nothing where there are only objects."""
    if not nodes:
        return [("null", None)]
    return list(dict.fromkeys(found for element in elements_of(nodes) if (found := typed(element)) is not None))


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


def path_text(path: tuple[str, ...]) -> str:
    """A path as `parse_path` reads it."""
    text = ".".join(step.replace("\\", "\\\\").replace(".", "\\.") for step in path)
    return "\\" + text if text.startswith("$") else text


def text_of(test: Test) -> str:
    """A test for people."""
    place = "$id" if test.path is None else path_text(test.path)
    operand = test.operand
    match test.operator:
        case "range":
            above, below = ">" if operand.above else ">=", "<" if operand.below else "<="
            parts = [] if operand.low is None else [f"{place} {above} {operand.low!r:.60}"]
            parts += [] if operand.high is None else [f"{place} {below} {operand.high!r:.60}"]
            return " and ".join(parts)
        case "exists":
            return f"{place} exists"
        case "any_of":
            values = ", ".join(f"{value!r:.60}" for value in operand[:4]) + (", ..." if len(operand) > 4 else "")
            return f"{place} = {values}" if len(operand) == 1 else f"{place} in ({values})"
    return f"{place} {test.operator.replace('_', ' ')} {operand!r:.60}"


def _parts(node: Filter, kind: type[And] | type[Or]) -> tuple[Filter, ...]:
    """The parts of a node of this kind; any other node is a part itself."""
    if not isinstance(node, Filter):
        raise InvalidFilterError(f"expected a filter made with F, got {node!r:.200}")
    return node.parts if isinstance(node, kind) else (node,)
