"""Vectors between what transports carry and what the library takes: lists, or float32 in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from nopokedb.errors import InvalidVectorError
from nopokedb.records import Vectors, shown


def unpack(value: Any) -> Any:
    """One vector: an array where it came in base64, else as it came. (gRPC hands in arrays.)"""
    if value.__class__ is dict or isinstance(value, Mapping):
        return _floats(value)
    return value


def unpack_many(value: Any, dim: int) -> Any:
    """Vectors of one request: packed ones as an array of shape (n, dim)."""
    if isinstance(value, Mapping):
        floats = _floats(value)
        if floats.size % dim:
            raise InvalidVectorError(
                f"expected float32 vectors of {dim} components in base64, got {floats.size} values"
            )
        return floats.reshape(-1, dim)
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [unpack(item) for item in value]
    return value


def pack(vector: Any) -> dict[str, str]:
    """A vector in base64."""
    return {"base64": base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()}


def _floats(value: Mapping[str, Any]) -> Vectors:
    text = value.get("base64")
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidVectorError(f'expected a list of numbers or {{"base64": "..."}}, got {shown(dict(value))}')
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidVectorError(f"expected float32 values in base64, got what is no base64: {error}") from None
    if len(raw) % 4:
        raise InvalidVectorError(f"expected float32 values in base64, got {len(raw)} bytes, no multiple of 4")
    return np.frombuffer(raw, "<f4")
