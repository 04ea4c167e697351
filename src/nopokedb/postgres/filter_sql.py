"""A filter as SQL over `fields` and `id`, with everything bound: values, keys and whole JSON paths.

A test becomes one jsonpath, which the operator `@?` asks of `fields` and the GIN index on it can answer:

    {"a.b": 1}    fields @? '$."a"."b" ? (@ == 1 && @.type() == "number")'

In lax mode a step into a list goes into each of its elements, and `?` looks at the elements of a list once: what
filters.py says, but that a comparison would unwrap a list inside a list again, hence `type()`. `$contains` asks
for lists and strs themselves, so its condition stands one step before the end. `$like`, and lists of many values, look
at the elements one by one in SQL.

An equality is asked for by the shapes that hold the value, where these are few, which takes half as long:

    {"a": 1}      fields @> '{"a":1}' OR fields @> '{"a":[1]}'

Keys and values are JSON inside of jsonpaths and shapes, escaped as in `fields`; these are parameters like any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import sql

from nopokedb.filters import And, Filter, Not, Or, Range, Test, like_pattern, range_of, typed
from nopokedb.postgres.codec import escape, key_of, scalar_text, string_text

_FEW = 32
"""Values of one `$in` that become part of the jsonpath."""
_FEW_SHAPES = 4
"""So many comparisons of whole shapes are faster than one jsonpath, by about half for two."""
_INT64 = range(-(2**63), 2**63)
_UNIT = "(?:\x01[\x01\x02]|[^\x01])"
"""One character of an escaped str."""
_ID_UNIT = r"(?:[^\\]|\\\\|\\000|\\3[0-7][0-7](?:\\2[0-7][0-7])*)"
"""One character of a str id in PostgreSQL's escape format."""
_TYPES = {"number": '"number"', "str": '"string"'}


@dataclass(slots=True)
class Condition:
    """A piece of SQL and what it binds, in order."""

    sql: sql.Composable
    values: list[Any] = field(default_factory=list)


TRUE, FALSE = sql.SQL("true"), sql.SQL("false")


def condition_of(node: Filter | None) -> Condition:
    """The condition that records pass; never NULL."""
    match node:
        case None:
            return Condition(TRUE)
        case Test(path=None):
            return _of_id(node)
        case Test():
            return _of_fields(node)
        case Not(part):
            inner = condition_of(part)
            return Condition(sql.SQL("NOT ({})").format(inner.sql), inner.values)
        case And(parts) | Or(parts):
            return _joined(parts, isinstance(node, And))
    raise AssertionError(node)


def _joined(parts: Sequence[Filter], every: bool) -> Condition:
    if not parts:
        return Condition(TRUE if every else FALSE)
    inner = [condition_of(part) for part in parts]
    joined = sql.SQL(" AND " if every else " OR ").join(sql.SQL("({})").format(part.sql) for part in inner)
    return Condition(joined, [value for part in inner for value in part.values])


# --- metadata ---------------------------------------------------------------------------------------------


def json_path(path: Sequence[str]) -> str:
    """The jsonpath that leads where the path leads."""
    return "$" + "".join(f".{string_text(step)}" for step in path)


def _of_fields(test: Test) -> Condition:
    path: tuple[str, ...] = test.path or ()
    match test.operator:
        case "exists":
            return _asked(json_path(path))
        case "any_of":
            return _any_of(path, test.operand)
        case "range":
            return _asked(f"{json_path(path)} ? ({_range(test.operand)})")
        case "contains":
            return _contains(path, test.operand)
        case "starts_with":
            starts = f" && @ starts with {string_text(test.operand)}" if test.operand else ""
            return _asked(f'{json_path(path)} ? (@.type() == "string"{starts})')
        case "like":
            return _like(path, test.operand)
    raise AssertionError(test)


def _asked(jsonpath: str) -> Condition:
    return Condition(sql.SQL("fields @? %s::jsonpath"), [jsonpath])


def _any_of(path: tuple[str, ...], operand: tuple[Any, ...]) -> Condition:
    parts = []
    if operand and len(operand) << len(path) <= _FEW_SHAPES:
        for value in operand:
            parts += [Condition(sql.SQL("fields @> %s::jsonb"), [shape]) for shape in _shapes(path, scalar_text(value))]
    elif operand and len(operand) <= _FEW:
        tests = " || ".join(f"({_equal(value)})" for value in operand)
        parts.append(_asked(f"{json_path(path)} ? ({tests})"))
    elif operand:
        # Each value, and whether an element is one of them: lists and objects equal no scalar.
        exists = sql.SQL(
            "EXISTS (SELECT FROM jsonb_path_query(fields, %s::jsonpath) AS element WHERE element = ANY(%s::jsonb[]))"
        )
        parts.append(Condition(exists, [f"{json_path(path)}[*]", [scalar_text(value) for value in operand]]))
    if None in operand:
        parts.append(Condition(sql.SQL("NOT fields @? %s::jsonpath"), [json_path(path)]))
    if not parts:
        return Condition(FALSE)
    joined = sql.SQL(" OR ").join(sql.SQL("({})").format(part.sql) for part in parts)
    return Condition(joined, [value for part in parts for value in part.values])


def _shapes(path: Sequence[str], value: str) -> list[str]:
    """JSON of what holds this value at the path: each step may lead into a list."""
    if not path:
        return [value]
    inner = [shape for tail in _shapes(path[1:], value) for shape in (tail, f"[{tail}]")]
    return [f"{{{string_text(path[0])}:{shape}}}" for shape in inner]


def _equal(value: Any) -> str:
    """The jsonpath condition that an element equals a scalar."""
    found = typed(value)
    assert found is not None
    kind = {"null": '"null"', "bool": '"boolean"', **_TYPES}[found[0]]
    return f"@ == {scalar_text(found[1])} && @.type() == {kind}"


def _range(bounds: Range) -> str:
    kind, low, high = range_of(bounds)
    parts = []
    if low is not None:
        parts.append(f"@ {'>' if bounds.above else '>='} {scalar_text(low)}")
    if high is not None:
        parts.append(f"@ {'<' if bounds.below else '<='} {scalar_text(high)}")
    return " && ".join([*parts, f"@.type() == {_TYPES[kind]}"])  # last: most elements fail the comparison


def _contains(path: tuple[str, ...], operand: Any) -> Condition:
    """The condition is asked of what holds the last step, so that its value is seen as it is, not unwrapped."""
    node = f"@.{string_text(path[-1])}"
    element = f'({node}.type() == "array" && exists({node} ? ({_equal(operand)})))'
    before = json_path(path[:-1])
    if not isinstance(operand, str):
        return _asked(f'{before} ? (@.type() == "object" && {element})')
    text = escape(operand)
    if text[:1] in ("\1", "\2"):  # could be found in the middle of an escape
        pattern, flag = f"^{_UNIT}*?{_literal(text)}", '"s"'
    else:
        pattern, flag = text, '"q"'
    like = f" && {node} like_regex {orjson.dumps(pattern).decode()} flag {flag}" if text else ""
    part = f'({node}.type() == "string"{like})'
    return _asked(f'{before} ? (@.type() == "object" && ({element} || {part}))')


def _like(path: tuple[str, ...], operand: str) -> Condition:
    text = sql.SQL("(element #>> '{{}}') COLLATE \"C\"").format()
    # `_` is one character of the str that was given: where there are escapes, a regular expression counts them as one.
    condition = sql.SQL(
        "EXISTS (SELECT FROM jsonb_path_query(fields, %s::jsonpath) AS element WHERE jsonb_typeof(element) = 'string' "
        "AND CASE WHEN strpos(element #>> '{{}}', %s) > 0 THEN {text} ~ %s ELSE {text} LIKE %s END)"
    ).format(text=text)
    return Condition(condition, [f"{json_path(path)}[*]", "\1", _regex(operand), escape(operand)])


def _regex(operand: str) -> str:
    """The pattern of `$like` as a regular expression over an escaped str."""
    parts = []
    for part in like_pattern(operand):
        parts.append({"%": f"{_UNIT}*", "_": _UNIT}.get(part) or _literal(escape(part[1:])))
    return f"^{''.join(parts)}$"


def _literal(text: str) -> str:
    """A regular expression for just this text."""
    return re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\1", text)


# --- ids --------------------------------------------------------------------------------------------------


def _of_id(test: Test) -> Condition:
    return _ID_TESTS[test.operator](test.operand)


def _id_any_of(operand: tuple[Any, ...]) -> Condition:
    keys = []
    for value in operand:
        if isinstance(value, str):
            keys.append(key_of(value))
        elif isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            keys += [key_of(int(value))] if int(value) in _INT64 else []
    return Condition(sql.SQL("id = ANY(%s)"), [keys])


def _id_range(bounds: Range) -> Condition:
    kind, low, high = range_of(bounds)
    if kind == "str":
        lowest, highest = b"\1", b"\2"
        if low is not None:
            lowest = key_of(low) + (b"\0" if bounds.above else b"")
        if high is not None:
            highest = key_of(high) + (b"" if bounds.below else b"\0")
    else:
        # The smallest int inside, and the smallest above all inside.
        first = _INT64.start if low is None else math.floor(low) + 1 if bounds.above else math.ceil(low)
        last = _INT64.stop if high is None else math.ceil(high) if bounds.below else math.floor(high) + 1
        lowest = b"\1" if first >= _INT64.stop else key_of(max(first, _INT64.start))
        highest = b"\1" if last >= _INT64.stop else key_of(max(last, _INT64.start))
    return Condition(sql.SQL("(id >= %s AND id < %s)"), [lowest, highest])


def _id_contains(operand: Any) -> Condition:
    if not isinstance(operand, str):
        return Condition(FALSE)
    # UTF-8 of a character is never found in the middle of others.
    return Condition(sql.SQL("(id >= '\\x01' AND position(%s in substring(id from 2)) > 0)"), [operand.encode()])


def _id_starts_with(operand: str) -> Condition:
    # No byte of UTF-8 is 0xff.
    return Condition(sql.SQL("(id >= %s AND id < %s)"), [b"\1" + operand.encode(), b"\1" + operand.encode() + b"\xff"])


def _id_like(operand: str) -> Condition:
    parts = []
    for part in like_pattern(operand):
        parts.append({"%": f"{_ID_UNIT}*", "_": _ID_UNIT}.get(part) or _literal(_octal(part[1:])))
    condition = sql.SQL("(id >= '\\x01' AND encode(substring(id from 2), 'escape') ~ %s)")
    return Condition(condition, [f"^{''.join(parts)}$"])


def _octal(character: str) -> str:
    """A character in PostgreSQL's escape format for bytes."""
    if character == "\\":
        return "\\\\"
    if character == "\0" or not character.isascii():
        return "".join(f"\\{byte:03o}" for byte in character.encode())
    return character


_ID_TESTS: dict[str, Callable[[Any], Condition]] = {
    "exists": lambda operand: Condition(TRUE),
    "any_of": _id_any_of,
    "range": _id_range,
    "contains": _id_contains,
    "starts_with": _id_starts_with,
    "like": _id_like,
}
