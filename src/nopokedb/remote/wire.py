"""From what engines are asked back to what is sent: filters, texts, orders and whole questions.

The class above the engine has parsed them; servers parse again, because they trust nobody. What is written here means
the same when it is parsed: tests compare.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from nopokedb.engine import DEFAULT_RECALL, Order, Query
from nopokedb.filters import And, Filter, Not, Or, Path, Range, Test, path_text
from nopokedb.server import requests
from nopokedb.text_query import Clause, TextQuery

_LARGEST = sys.float_info.max
_SIGNS = {"should": "", "must": "+", "must_not": "-"}
_OPERATORS = {"any_of": "$in", "contains": "$contains", "starts_with": "$starts_with", "like": "$like"}


def field_text(path: Path) -> str:
    """A path as `parse_path` reads it."""
    return "$id" if path is None else path_text(path)


def where_of(node: Filter | None) -> dict[str, Any] | None:
    """A filter as a `where` dict."""
    match node:
        case None:
            return None
        case Test():
            return {field_text(node.path): _condition(node)}
        case Not(Test() as test):
            return {field_text(test.path): _negated(test)}
        case Not(part):
            return {"$not": where_of(part)}
        case Or(parts):
            return {"$or": [where_of(part) for part in parts]}
        case And(parts):
            written = [where_of(part) or {} for part in parts]
            merged = {name: value for part in written for name, value in part.items()}
            # One dict where that says the same: what was written so stays within the limit on depth.
            if len(merged) == len(written) and all(len(part) == 1 for part in written):
                return merged
            return {"$and": written}
    raise AssertionError(node)


def _condition(test: Test) -> dict[str, Any]:
    """What is asked of one field."""
    operand = test.operand
    if isinstance(operand, Range):
        if operand.high is None:
            return {"$gt" if operand.above else "$gte": operand.low}
        if operand.low is None:
            return {"$lt" if operand.below else "$lte": operand.high}
        # One element of a list lies between both: two operators would be content with two elements.
        assert not (operand.above or operand.below), operand
        return {"$between": [operand.low, operand.high]}
    if test.operator == "exists":
        return {"$exists": True}
    return {_OPERATORS[test.operator]: list(operand) if test.operator == "any_of" else operand}


def _negated(test: Test) -> dict[str, Any]:
    if test.operator == "any_of":
        return {"$nin": list(test.operand)}
    return {"$exists": False} if test.operator == "exists" else {"$not": _condition(test)}


def text_of(query: TextQuery) -> str:
    """A text query as `parse_text_query` reads it."""
    return " ".join(map(_clause_text, query.clauses))


def _clause_text(clause: Clause) -> str:
    sign = _SIGNS[clause.occur]
    if clause.kind == "phrase":
        return f'{sign}"{clause.text}"'
    return f"{sign}{clause.text}{'*' if clause.kind == 'prefix' else ''}"


def order_text(order: Order | None) -> str | None:
    """The order of a scan as `order_by` has it."""
    if order is None:
        return None
    text = field_text(order.path)
    if order.descending:
        return f"-{text}"
    return f"\\{text}" if text.startswith("-") else text


def question_of(query: Query, at: str | None) -> requests.Query:
    """A question as servers are asked it."""
    asked = requests.Query(
        k=query.k, where=where_of(query.where), include=tuple(query.include), vector_format="base64", at=at
    )
    vectors: Any = query.vectors
    if vectors is not None and len(vectors) == 1:
        asked.vector = vectors[0]
    else:
        asked.vectors = vectors
    if query.ef is not None:
        asked.ef = query.ef
    elif query.recall != DEFAULT_RECALL:
        asked.target_recall = query.recall
    if query.max_distance is not None:
        asked.max_distance = finite(query.max_distance)
    if query.plain:
        return asked
    if query.texts:
        texts = [text_of(text) for text in query.texts]
        asked.text = texts[0] if len(texts) == 1 else texts
    if query.like:
        asked.like, asked.unlike = list(query.like), list(query.unlike) or None
    if query.alpha is not None:
        asked.fusion, asked.alpha = "weighted", query.alpha
    asked.diversity, asked.highlight = query.diversity, query.highlight
    if query.group_size:
        asked.group_by, asked.group_size = field_text(query.group_by), query.group_size
    return asked


def finite(value: float) -> float:
    """JSON has no infinity: the largest number says the same of a distance."""
    return value if math.isfinite(value) else math.copysign(_LARGEST, value)
