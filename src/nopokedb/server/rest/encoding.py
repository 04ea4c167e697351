"""Results as JSON. Vectors are written as the shortest decimals that are the same float32 again, or in base64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from nopokedb.plan import Plan
from nopokedb.records import Group, Hit, Record
from nopokedb.server.results import Answer, Answers, Embedded, Page, Records
from nopokedb.server.vectors import pack


def encode(result: Any) -> bytes:
    """The JSON bytes of a result."""
    return orjson.dumps(_plain(result), default=_other, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC)


def _plain(result: Any) -> Any:
    """What orjson can write, with the names of the API."""
    if isinstance(result, Answers):
        answers = [_answer(answer, result) for answer in result.answers]
        return {"results": answers} if result.many else answers[0]
    if isinstance(result, Page):
        return {"records": _records(result.records, packed=result.packed), "after": result.after}
    if isinstance(result, Records):
        return {"records": _records(result.records, packed=result.packed)}
    if isinstance(result, Embedded):
        return {"vectors": pack(result.vectors), "dim": result.dim}
    return result


def record_of(record: Record, *, packed: bool) -> Any:
    """One record."""
    if not packed or record.vector is None:
        return record
    return asdict(record) | {"vector": pack(record.vector)}


def record_line(record: Record, *, packed: bool) -> bytes:
    """One record as a line of a stream."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(record_of(record, packed=packed), option=option)


def _records(records: Sequence[Record | None], *, packed: bool) -> Any:
    return [None if item is None else record_of(item, packed=packed) for item in records] if packed else records


def _answer(answer: Answer, asked: Answers) -> dict[str, Any]:
    if asked.grouped:
        return {"groups": [{"key": g.key, "hits": _hits(g.hits, asked)} for g in answer if isinstance(g, Group)]}
    return {"hits": _hits(answer, asked)}


def _hits(hits: Sequence[Any], asked: Answers) -> Sequence[Hit]:
    if hits and "vector" in hits[0]:
        for hit in hits:
            hit["vector"] = pack(hit["vector"]) if asked.packed else np.array(hit["vector"], np.float32)
    return hits


def _other(value: Any) -> Any:
    """What orjson asks about."""
    if isinstance(value, Plan):
        return value.to_dict()
    raise TypeError(f"no JSON for {type(value).__name__}")
