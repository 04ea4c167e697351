"""`F`: filters written as Python expressions. They become the same tree as a `where` dict."""

from __future__ import annotations

from typing import Any

from nopokedb.filters import OPERATORS, Filter, parse_path


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
        return OPERATORS[operator](self._path, value, f"F({self._name!r:.80}) {operator}")

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
