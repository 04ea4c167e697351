"""One test of a filter as SQL over the records' JSONB, with everything bound: values, and JSON paths too.

    SELECT group_concat(label) FROM (
        SELECT label, id, metadata AS m, json_extract(metadata, :path) AS v FROM records WHERE <labels> LIMIT -1
    ) WHERE <condition on v and m>

`LIMIT -1` keeps SQLite from copying `json_extract` into every place that names v: it is computed once a row, and is
nearly all of the cost. So conditions look at v first, and at the JSON's types only for rows that may pass:

    v of           is                       so a condition must
    number         the number               -
    true, false    1, 0                     ask json_type where 0 or 1 pass: true is not 1
    str            the text                 -
    list, dict     JSON text, "[..." "{..." ask json_type where such a text passes
    null           NULL                     -
    missing        NULL                     -

Elements of lists are compared through json_each. Where that is not enough (a list of dicts on the way of a path, keys
that a JSON path of SQLite cannot hold, NUL characters in a pattern match), the row goes to `filters.holds`, the Python
function that says what filters mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apsw
import orjson

from nopokedb.filters import Range, Test, holds, like_pattern, range_of, typed
from nopokedb.metadata_json import decode_metadata

_LIST = "v >= '[' AND v < '\\'"
"""v may be a list as JSON text. A str that begins so goes the same way: json_each gives it back as one element."""
_IS_TEXT = "(v < '[' OR (v >= '\\' AND v < '{') OR v >= '|' OR json_type(m, :path) = 'text')"
_IS_NUMBER = "(v NOT IN (0, 1) OR json_type(m, :path) NOT IN ('true', 'false'))"
_ELEMENTS = "SELECT 1 FROM json_each(m, :path)"
_ASK = "nopokedb_holds(:test, id, json(m))"


@dataclass(slots=True)
class Condition:
    """A piece of SQL and what it binds."""

    sql: str
    bindings: dict[str, Any] = field(default_factory=dict)


def add_functions(connection: apsw.Connection) -> None:
    """Let statements on this connection ask `filters.holds`."""

    def ask(test: Any, id_: Any, metadata: Any) -> bool:
        return holds(test, id_, None if metadata is None else decode_metadata(metadata))

    connection.create_scalar_function("nopokedb_holds", ask, 3, deterministic=True)  # type: ignore[arg-type]


def select_labels(test: Test) -> Condition:
    """The statement that gives the labels in [:start, :stop) that pass, as text with commas."""
    if test.path is None:
        # An id is an int or a str: no JSON, nothing to ask.
        source = "SELECT label, id, NULL AS m, id AS v FROM records"
        condition = _of_id(test)
    elif not _has_json_path(test.path):
        source = "SELECT label, id, metadata AS m, NULL AS v FROM records"
        condition = Condition(_ASK, {"test": apsw.pyobject(test)})
    else:
        source = "SELECT label, id, metadata AS m, json_extract(metadata, :path) AS v FROM records"
        condition = _of_metadata(test, test.path)
    within = "WHERE label >= :start AND label < :stop LIMIT -1"
    # Only constant pieces of this module come together here.
    sql = f"SELECT group_concat(label) FROM ({source} {within}) WHERE {condition.sql}"  # noqa: S608
    return Condition(sql, condition.bindings)


def select_groups(path: tuple[str, ...]) -> Condition | None:
    """The statement that gives each value of a field, as JSON, with the labels below :stop that have it, as text with
    commas. None where the path may lead through a list, or cannot be one of SQLite's."""
    if len(path) != 1 or not _has_json_path(path):
        return None
    sql = (
        "SELECT metadata -> :path AS value, group_concat(label) FROM records "
        "WHERE label < :stop AND value IS NOT NULL GROUP BY value"
    )
    return Condition(sql, {"path": _json_path(path)})


def _has_json_path(path: tuple[str, ...]) -> bool:
    return not any('"' in step or "\\" in step or "\0" in step for step in path)


def _of_id(test: Test) -> Condition:
    return _scalar(test, "v", "typeof(v) = 'text'")


def _of_metadata(test: Test, path: tuple[str, ...]) -> Condition:
    """The condition over v, lists and the ways that lead through lists included."""
    bindings: dict[str, Any] = {"path": _json_path(path), "test": apsw.pyobject(test)}
    # A list on the way hides what is behind it from the JSON path: v is NULL then.
    on_the_way = []
    for depth in range(1, len(path)):
        bindings[f"way{depth}"] = _json_path(path[:depth])
        on_the_way.append(f"json_type(m, :way{depth}) = 'array'")
    if test.operator == "exists":
        sql = "json_type(m, :path) IS NOT NULL"
        missing = "json_type(m, :path) IS NULL"
        if on_the_way:
            sql += f" OR ({missing} AND ({' OR '.join(on_the_way)}) AND {_ASK})"
        return Condition(sql, bindings)
    scalar, element = _scalar(test, "v", _IS_TEXT), _element(test)
    bindings |= scalar.bindings | element.bindings
    sql = f"({scalar.sql}) OR ({_LIST} AND {element.sql})"
    null = test.operator == "any_of" and None in test.operand
    if on_the_way:
        way = f"({' OR '.join(on_the_way)})"
        sql += f" OR (v IS NULL AND CASE WHEN {way} THEN {_ASK} ELSE {int(null)} END)"
    elif null:
        sql += " OR v IS NULL"
    return Condition(sql, bindings)


def _scalar(test: Test, v: str, is_text: str) -> Condition:
    """The condition on v itself. With ids `is_text` is the whole truth; in JSON it sorts out lists and dicts."""
    operand = test.operand
    of_id = test.path is None
    match test.operator:
        case "exists":
            return Condition("1")
        case "any_of":
            return _scalar_any_of(operand, is_text, of_id)
        case "range":
            kind, low, high = range_of(operand)
            condition = _bounds(operand, v)
            if kind == "str":
                condition.sql += f" AND v >= '' AND {is_text}"
            else:
                condition.sql += " AND v <= 9e999"  # every str is above every number
                if not of_id and _may_hold(operand, low, high):
                    condition.sql += f" AND {_IS_NUMBER}"
            return condition
        case "contains":
            if not isinstance(operand, str):
                return Condition("0")
            return Condition(f"v >= '' AND instr(v, :text) > 0 AND {is_text}", {"text": operand})
        case "starts_with":
            return Condition(f"v >= :text AND instr(v, :text) = 1 AND {is_text}", {"text": operand})
        case "like":
            asked = {"test": apsw.pyobject(test)}
            if "\0" in operand:
                return Condition(f"v >= '' AND {is_text} AND {_ASK}", asked)
            # GLOB minds the case, as LIKE does not; it ends at a NUL character.
            matched = f"CASE WHEN instr(v, char(0)) > 0 THEN {_ASK} ELSE v GLOB :glob END"
            return Condition(f"v >= '' AND {is_text} AND {matched}", {"glob": _glob(operand), **asked})
    raise AssertionError(test)


def _scalar_any_of(operand: tuple[Any, ...], is_text: str, of_id: bool) -> Condition:
    numbers, strs, bools = _by_kind(operand)
    parts: list[str] = []
    bindings: dict[str, Any] = {}
    if numbers:
        sql, bound = _equal("v", numbers, "numbers")
        bindings |= bound
        parts.append(f"{sql} AND {_IS_NUMBER}" if not of_id and {0, 1} & set(numbers) else sql)
    if strs:
        sql, bound = _equal("v", strs, "strs")
        bindings |= bound
        like_json = any(text[:1] in ("[", "{") for text in strs)
        parts.append(f"{sql} AND {is_text}" if like_json and not of_id else sql)
    if not of_id:
        parts += [f"v = {int(value)} AND json_type(m, :path) = '{'true' if value else 'false'}'" for value in bools]
    return Condition(" OR ".join(f"({part})" for part in parts) or "0", bindings)


def _element(test: Test) -> Condition:
    """The condition that an element of a list passes."""
    operand, before = test.operand, "1"
    bindings: dict[str, Any] = {}
    match test.operator:
        case "any_of":
            condition, before, bindings = _element_any_of(operand)
        case "contains":
            condition, before, bindings = _element_any_of((operand,))
        case "range":
            kind, _, _ = range_of(operand)
            bounds = _bounds(operand, "value")
            types = "type = 'text'" if kind == "str" else "type IN ('integer', 'real')"
            condition, bindings = f"{types} AND {bounds.sql}", bounds.bindings
        case "starts_with":
            condition, bindings = "type = 'text' AND instr(value, :text) = 1", {"text": operand}
        case "like":
            if "\0" in operand:
                return Condition(_ASK, {"test": apsw.pyobject(test)})
            condition, bindings = "type = 'text' AND value GLOB :glob", {"glob": _glob(operand)}
            # A text with a NUL inside may match otherwise than GLOB says; lists with one are rare.
            exists = f"EXISTS ({_ELEMENTS} WHERE {condition})"
            sql = f"CASE WHEN instr(v, '\\u0000') > 0 THEN {_ASK} ELSE {exists} END"
            return Condition(sql, {**bindings, "test": apsw.pyobject(test)})
        case _:
            raise AssertionError(test)
    return Condition(f"{before} AND EXISTS ({_ELEMENTS} WHERE {condition})", bindings)


def _element_any_of(operand: tuple[Any, ...]) -> tuple[str, str, dict[str, Any]]:
    numbers, strs, bools = _by_kind(operand)
    parts, before = [], "1"
    bindings: dict[str, Any] = {}
    if numbers:
        sql, bound = _equal("value", numbers, "numbers")
        bindings |= bound
        parts.append(f"type IN ('integer', 'real') AND {sql}")
    if strs:
        sql, bound = _equal("value", strs, "strs")
        bindings |= bound
        parts.append(f"type = 'text' AND {sql}")
    parts += [f"type = '{'true' if value else 'false'}'" for value in bools]
    if None in operand:
        parts.append("type = 'null'")
    if len(operand) == 1 and strs:
        # The element as it stands in the list's text: most lists are sorted out without json_each.
        before, bindings["quoted"] = "instr(v, :quoted) > 0", orjson.dumps(strs[0]).decode()
    return " OR ".join(f"({part})" for part in parts) or "0", before, bindings


def _by_kind(operand: tuple[Any, ...]) -> tuple[list[Any], list[str], list[bool]]:
    numbers, strs, bools = [], [], set()
    for value in operand:
        found = typed(value)
        assert found is not None
        if found[0] == "number":
            numbers.append(found[1])
        elif found[0] == "str":
            strs.append(found[1])
        elif found[0] == "bool":
            bools.add(found[1])
    return numbers, strs, sorted(bools)


def _equal(what: str, values: list[Any], name: str) -> tuple[str, dict[str, Any]]:
    if len(values) == 1:
        return f"{what} = :{name}", {name: values[0]}
    return f"{what} IN (SELECT value FROM json_each(:{name}))", {  # noqa: S608  # a name of this module
        name: orjson.dumps(values).decode()
    }


def _bounds(bounds: Range, what: str) -> Condition:
    _, low, high = range_of(bounds)
    parts: list[str] = []
    bindings: dict[str, Any] = {}
    if low is not None:
        parts.append(f"{what} {'>' if bounds.above else '>='} :low")
        bindings["low"] = low
    if high is not None:
        parts.append(f"{what} {'<' if bounds.below else '<='} :high")
        bindings["high"] = high
    return Condition(" AND ".join(parts), bindings)


def _may_hold(bounds: Range, low: Any, high: Any) -> bool:
    """Whether 0 or 1 lies in the range, which is what SQLite makes of false and true."""
    return any((low is None or low <= value) and (high is None or value <= high) for value in (0, 1))


def _json_path(path: tuple[str, ...]) -> str:
    return "$" + "".join(f'."{step}"' for step in path)


def _glob(pattern: str) -> str:
    """The pattern of `$like` as one of GLOB."""
    translated = {"%": "*", "_": "?"}
    return "".join(
        translated.get(part) or (f"[{part[1:]}]" if part[1:] in "*?[" else part[1:]) for part in like_pattern(pattern)
    )
