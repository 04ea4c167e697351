"""Between records and what PostgreSQL stores: ids, vectors, metadata, texts. Pure functions.

What is true is kept to the last bit: ids and vectors as bytes, metadata as the JSON text that was given. What filters
and full-text search look at (`fields`, `terms`) is derived from it in a form that PostgreSQL can hold.

    id       bytea    0x00 and the int with its sign bit flipped, big-endian, or 0x01 and the UTF-8 of the str: the
                      order of the bytes is the order of ids, and a str may have any character
    vector   vector   pgvector's binary form: two int16 (dimension, 0), float4 big-endian
    metadata json     as given; `json` keeps the text, where `jsonb` would sort keys and rewrite numbers
    fields   jsonb    the same value for filters, see `fields_of`
    document text     the text, with the two characters that it cannot hold escaped, see `escape`
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from nopokedb.records import Id, Vectors

_FLIP = 1 << 63
_UNUSUAL = re.compile(rb"\\u000[01]|[0-9]{16}|[0-9][eE]")
"""JSON that `fields_of` has to look into: rare, so most metadata are taken as they are."""
_EXACT_FLOATS = 1e16
"""From here on the shortest digits of a float are not its value any more."""


# --- ids --------------------------------------------------------------------------------------------------


def key_of(id_: Id) -> bytes:
    """The stored form of an id."""
    if isinstance(id_, str):
        return b"\1" + id_.encode()
    return b"\0" + (id_ + _FLIP).to_bytes(8, "big")


def id_of(key: bytes) -> Id:
    """The id of a stored form."""
    if key[0]:
        return key[1:].decode()
    return int.from_bytes(key[1:], "big") - _FLIP


# --- vectors ----------------------------------------------------------------------------------------------


def vector_bytes(vectors: Vectors) -> list[bytes]:
    """pgvector's binary form of each row of shape (n, dim)."""
    count, dim = vectors.shape
    out = np.empty((count, dim + 1), ">f4")
    out[:, 1:] = vectors
    raw = out.view(np.uint8)
    raw[:, :4] = np.frombuffer(struct.pack(">HH", dim, 0), np.uint8)
    whole, width = raw.tobytes(), 4 * (dim + 1)
    return [whole[at : at + width] for at in range(0, count * width, width)]


def vectors_of(values: Sequence[bytes], dim: int) -> Vectors:
    """Shape (n, dim) of n vectors in pgvector's binary form."""
    stored = np.frombuffer(b"".join(values), ">f4").reshape(len(values), dim + 1)
    return np.ascontiguousarray(stored[:, 1:], dtype="<f4")


# --- text -------------------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """Text as PostgreSQL can hold it: U+0000 becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002. One to one, and
    in the same order."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    if "\1" in text:
        return text.replace("\1\1", "\0").replace("\1\2", "\1")
    return text


# --- metadata ---------------------------------------------------------------------------------------------


def fields_of(metadata: bytes) -> bytes:
    """Metadata as filters see it: strs and keys escaped, and numbers in digits that compare as the numbers do.

    `jsonb` compares numbers by their digits. The shortest digits of a float order floats as they should, but above
    1e16 they are not its exact value, which an int may have: those are written out. Ints of 2**63 and above count as
    floats everywhere.
    """
    if not _UNUSUAL.search(metadata):
        return metadata
    return _dumped(orjson.loads(metadata)).encode()


def number_text(value: float) -> str:
    """The digits of a number in `fields`, and in what is compared with it."""
    if isinstance(value, int):
        return str(value) if value < _FLIP else repr(float(value))
    if _EXACT_FLOATS <= abs(value) <= _FLIP and value != _FLIP:
        return str(int(value))
    return repr(value)


def string_text(value: str) -> str:
    """A str as JSON, in quotes, escaped as in `fields`."""
    return orjson.dumps(escape(value)).decode()


def scalar_text(value: Any) -> str:
    """A scalar as JSON, as it is in `fields`."""
    if isinstance(value, str):
        return string_text(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return number_text(value)


def _dumped(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{string_text(key)}:{_dumped(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumped, value)) + "]"
    return scalar_text(value)


def shown_scalar(fields: bytes) -> Any:
    """A scalar of `fields` as users see it."""
    value = orjson.loads(fields)
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= _FLIP:
        return float(value)
    return value
