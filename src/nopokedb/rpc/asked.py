"""Requests: between the dataclasses of server/requests.py and gRPC's messages, which have the same names of fields.

A field that is not set in a message has its default, as a name that is left out of a JSON body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar

import numpy as np
import orjson

from nopokedb.records import Id
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.server.refusals import MalformedRequestError
from nopokedb.server.requests import Change, RecordInput, build

R = TypeVar("R")
_FLOAT32 = np.dtype("<f4")


# --- ids and JSON -----------------------------------------------------------------------------------------


def id_message(id_: Id) -> pb.Id:
    """An id; ints and strs are told apart."""
    return pb.Id(text=id_) if isinstance(id_, str) else pb.Id(number=id_)


def id_of(message: pb.Id) -> Id | None:
    """None where the message has neither kind."""
    kind = message.WhichOneof("kind")
    return None if kind is None else getattr(message, kind)


def json_of(value: Any) -> bytes:
    """A value as JSON; bytes are JSON already."""
    return value if isinstance(value, bytes) else orjson.dumps(value)


def _value_of(encoded: bytes) -> Any:
    try:
        return orjson.loads(encoded)
    except orjson.JSONDecodeError as error:
        raise MalformedRequestError(f"expected JSON in UTF-8, got what is none: {error}") from None


def _floats_of(raw: bytes) -> Any:
    if len(raw) % _FLOAT32.itemsize:
        raise MalformedRequestError(f"expected float32 values, got {len(raw)} bytes, no multiple of 4")
    return np.frombuffer(raw, _FLOAT32)


def vectors_message(vectors: Any) -> pb.Vectors:
    """Vectors of shape (n, dim)."""
    rows = np.ascontiguousarray(vectors, _FLOAT32)
    return pb.Vectors(values=rows.tobytes(), dim=rows.shape[1])


def vectors_of(message: pb.Vectors) -> Any:
    """Shape (n, dim)."""
    floats = _floats_of(message.values)
    if not message.dim or floats.size % message.dim:
        raise MalformedRequestError(f"expected vectors of dim {message.dim}, got {floats.size} values")
    return floats.reshape(-1, message.dim)


# --- into messages ----------------------------------------------------------------------------------------


def _put_vector(message: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        message.vector_text = value
    else:
        message.vector = np.ascontiguousarray(value, _FLOAT32).tobytes()


def _put_vectors(message: Any, name: str, value: Any) -> None:
    if isinstance(value, list):
        message.vector_texts.words.extend(value)
    else:
        getattr(message, name).CopyFrom(vectors_message(value))


def _put_words(message: Any, name: str, value: Any) -> None:
    words = getattr(message, name)
    words.SetInParent()  # no words are not the same as none given
    words.words.extend([value] if isinstance(value, str) else value)


def _put_parts(messages: Any, items: Any) -> None:
    for item in items:
        fill(messages.add(), item)


def _put_text(message: Any, name: str, value: Any) -> None:
    if isinstance(message, pb.QueryRequest):
        _put_words(message, name, value)
    else:
        message.text = value


_PUT: dict[str, Callable[[Any, str, Any], None]] = {
    "id": lambda message, name, value: message.id.CopyFrom(id_message(value)),
    "after": lambda message, name, value: message.after.CopyFrom(id_message(value)),
    **dict.fromkeys(
        ("ids", "like", "unlike"),
        lambda message, name, value: getattr(message, name).extend(map(id_message, value)),
    ),
    **dict.fromkeys(("metadata", "where"), lambda message, name, value: setattr(message, name, json_of(value))),
    **dict.fromkeys(
        ("records", "changes"),
        lambda message, name, value: _put_parts(getattr(message, name), value),
    ),
    **dict.fromkeys(
        ("texts", "indexed_fields", "backups"), lambda message, name, value: getattr(message, name).extend(value)
    ),
    "vector": _put_vector,
    "vectors": _put_vectors,
    "queries": _put_vectors,
    "include": _put_words,
    "text": _put_text,
    "vector_format": lambda message, name, value: None,  # vectors have one form here
}


def fill(message: Any, request: Any) -> Any:
    """The message, with what the request says."""
    for name in request.__slots__:
        value = getattr(request, name)
        if value is None:
            continue
        put = _PUT.get(name)
        if put is None:
            setattr(message, name, value)
        else:
            put(message, name, value)
    return message


# --- out of messages --------------------------------------------------------------------------------------


def _word_list(message: pb.Words) -> list[str]:
    return list(message.words)


def _text(value: Any) -> Any:
    """One text, or one for each question."""
    if isinstance(value, str):
        return value
    words = list(value.words)
    return words[0] if len(words) == 1 else words


def _ids(value: Any) -> list[Id | None]:
    return [id_of(item) for item in value]


_TAKE: dict[str, Callable[[Any], Any]] = {
    "id": id_of,
    "after": id_of,
    **dict.fromkeys(("ids", "like", "unlike"), _ids),
    **dict.fromkeys(("metadata", "where"), _value_of),
    "vector": _floats_of,
    "vectors": vectors_of,
    "queries": vectors_of,
    "include": lambda message: tuple(message.words),
    "text": _text,
    "records": lambda value: [request_of(RecordInput, item) for item in value],
    "changes": lambda value: [request_of(Change, item) for item in value],
    **dict.fromkeys(("texts", "indexed_fields", "backups"), list),
}
_OTHER_NAMES = {"vector_text": "vector", "vector_texts": "vectors"}


def request_of(kind: type[R], message: Any) -> R:
    """The request that a message is."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.name
        if name == "collection":
            continue
        if name in _OTHER_NAMES:
            values[_OTHER_NAMES[name]] = value if name == "vector_text" else _word_list(value)
            continue
        take = _TAKE.get(name)
        values[name] = value if take is None else take(value)
    for name, empty in _needed(kind, message.DESCRIPTOR):  # type: ignore[arg-type]  # a class can be hashed
        if name not in values:
            values[name] = None if empty == b"" else type(empty)(empty)
    return build(kind, values)


@cache
def _needed(kind: Any, message: Any) -> tuple[tuple[str, Any], ...]:
    """Names of fields that a request must have, with what they are in a message where nothing was set: an empty list or
    str, or 0, which the library judges. (Empty bytes are no JSON: they become None.)"""
    without = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]
    found = []
    for name in without:
        field = message.fields_by_name[name]
        found.append((name, [] if field.is_repeated else field.default_value))
    return tuple(found)
