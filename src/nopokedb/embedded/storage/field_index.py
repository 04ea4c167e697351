"""Indexes on fields of the metadata: which labels have which value, as sorted tables beside the records.

    fields(number PRIMARY KEY, path UNIQUE, automatic, ready)     path: JSON list of the steps
    field_values(field, kind, value, label) WITHOUT ROWID         one entry for each value of each record version

A value is an element of the field as filters see it (`filters.elements_of`), so lists and lists of dicts are indexed
like plain values; a missing field has one entry of kind null. The tables are written in the transaction that writes
the records, so they fit to them after any stop. They are derived: `drop` and `create` make them anew.

An expression index of SQLite would need the path as text inside the statement that makes it. Here, as everywhere, keys
and values are bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apsw
import google_crc32c
import orjson

from nopokedb.embedded.storage.filter_sql import Condition
from nopokedb.filters import Test, elements_of, nodes_at, range_of, typed

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS fields(number INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE,"
    " automatic INTEGER NOT NULL, ready INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS field_values(field INTEGER NOT NULL, kind INTEGER NOT NULL, value NOT NULL,"
    " label INTEGER NOT NULL, PRIMARY KEY(field, kind, value, label)) WITHOUT ROWID",
)
_KINDS = {"null": 0, "bool": 1, "number": 2, "str": 3}
_MAX_VALUE_BYTES = 512
"""Longer strs are cut. A cut value differs from every operand that is shorter, and compares with it as the whole."""
_MAX_OPERAND_BYTES = 500


def path_key(path: tuple[str, ...]) -> str:
    """How a path stands in the table."""
    return orjson.dumps(path).decode()


def entries(fields: dict[int, tuple[str, ...]], label: int, metadata: Any) -> Iterator[tuple[int, int, Any, int]]:
    """The rows of `field_values` for one record version."""
    for number, path in fields.items():
        nodes = nodes_at(metadata, path)
        if not nodes:
            yield number, 0, 0, label
            continue
        seen = set()
        for element in elements_of(nodes):
            found = typed(element)
            if found is None or found in seen:
                continue
            seen.add(found)
            kind, value = found
            if kind == "str":
                value = cut(value)
            yield number, _KINDS[kind], 0 if value is None else value, label


def cut(text: str) -> str:
    """At most the first 512 bytes, in whole characters."""
    encoded = text.encode()
    return text if len(encoded) <= _MAX_VALUE_BYTES else encoded[:_MAX_VALUE_BYTES].decode(errors="ignore")


def insert(connection: apsw.Connection, rows: Iterable[tuple[int, int, Any, int]]) -> None:
    """Add entries; those that are there already stay."""
    connection.executemany("INSERT OR IGNORE INTO field_values VALUES(?, ?, ?, ?)", rows)


def digest(rows: Iterable[tuple[int, Any, int]]) -> tuple[int, int]:
    """Number and checksum of (kind, value, label), whatever their order: equal for equal sets."""
    count = total = 0
    for kind, value, label in rows:
        count += 1
        total += google_crc32c.value(orjson.dumps([kind, value, label]))
    return count, total


def select_from_index(test: Test, number: int) -> Condition | None:
    """The statement that gives the labels below :stop that pass, as text with commas. None: not from the index."""
    parts: list[str] = []
    bindings: dict[str, Any] = {"field": number}
    match test.operator:
        case "any_of":
            by_kind: dict[str, list[Any]] = {}
            for value in test.operand:
                found = typed(value)
                assert found is not None
                by_kind.setdefault(found[0], []).append(0 if value is None else found[1])
            if any(len(text.encode()) > _MAX_OPERAND_BYTES for text in by_kind.get("str", ())):
                return None
            for kind, values in by_kind.items():
                bindings[kind] = values[0] if len(values) == 1 else orjson.dumps(values).decode()
                same = f"= :{kind}" if len(values) == 1 else f"IN (SELECT value FROM json_each(:{kind}))"  # noqa: S608
                parts.append(f"kind = {_KINDS[kind]} AND value {same}")
        case "range":
            kind, low, high = range_of(test.operand)
            if any(isinstance(bound, str) and len(bound.encode()) > _MAX_OPERAND_BYTES for bound in (low, high)):
                return None
            part = f"kind = {_KINDS[kind]}"
            for bound, name, sign in (
                (low, "low", ">" if test.operand.above else ">="),
                (high, "high", "<" if test.operand.below else "<="),
            ):
                if bound is not None:
                    part += f" AND value {sign} :{name}"
                    bindings[name] = bound
            parts.append(part)
        case "starts_with" if len(test.operand.encode()) <= _MAX_OPERAND_BYTES:
            bindings["low"], bindings["high"] = test.operand, _behind(test.operand)
            parts.append("kind = 3 AND value >= :low" + (" AND value < :high" if bindings["high"] else ""))
        case _:
            return None
    if not parts:
        return Condition("SELECT NULL", {})
    # Only constant pieces of this module come together here.
    selects = [
        f"SELECT label FROM field_values WHERE field = :field AND {part} AND label < :stop"  # noqa: S608
        for part in parts
    ]
    return Condition(f"SELECT group_concat(label) FROM ({' UNION ALL '.join(selects)})", bindings)  # noqa: S608


def select_numbers(number: int) -> Condition:
    """The statement that gives the numbers of a field with the labels below :stop that have them, ascending."""
    sql = "SELECT value, label FROM field_values WHERE field = :field AND kind = 2 AND label < :stop ORDER BY value"
    return Condition(sql, {"field": number})


def _behind(prefix: str) -> str:
    """The first str behind all that begin with the prefix; "" if there is none."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return ""
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)  # no str holds surrogates
