"""Records, hits and groups as rows of tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from nopokedb import Group, Hit, Record

_SHOWN_TEXT = 200
_SHOWN_NUMBERS = 6


def record_document(record: Record, include: Sequence[str]) -> dict[str, Any]:
    """A record as JSON has it, with the parts that were asked for."""
    document: dict[str, Any] = {"id": record.id}
    for part in include:
        value = getattr(record, part)
        document[part] = value.tolist() if part == "vector" and value is not None else value
    return document


def answers_document(answers: Sequence[Hit | Group]) -> dict[str, Any]:
    """Hits or groups as JSON has them."""
    if any(isinstance(answer, Group) for answer in answers):
        return {"groups": [{"key": group.key, "hits": group.hits} for group in answers if isinstance(group, Group)]}
    return {"hits": list(answers)}


def cell(part: str, value: Any) -> str:
    """A part of a record in one cell. An int id and a str one look different."""
    if value is None:
        return ""
    if part == "vector":
        numbers = [f"{number:.4g}" for number in value[:_SHOWN_NUMBERS]]
        return f"[{', '.join(numbers)}{', ...' if len(value) > _SHOWN_NUMBERS else ''}] ({len(value)})"
    text = str(value) if part == "text" else orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 3] + "..."


def record_rows(records: Sequence[Record], include: Sequence[str]) -> list[tuple[object, ...]]:
    """A row for each record."""
    return [(cell("id", r.id), *(cell(part, getattr(r, part)) for part in include)) for r in records]


def hit_columns(include: Sequence[str]) -> tuple[str, ...]:
    """The columns of hits."""
    return ("id", "score", "distance", *include)


def hit_rows(hits: Sequence[Hit], include: Sequence[str]) -> list[tuple[object, ...]]:
    """A row for each hit."""
    return [
        (
            cell("id", hit.id),
            f"{hit.score:.6g}",
            "" if hit.distance is None else f"{hit.distance:.6g}",
            *(cell(part, hit.get(part)) for part in include),
        )
        for hit in hits
    ]
