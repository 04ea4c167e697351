"""Metadata as JSON bytes: what is valid, there and back, and merged.

As all that a write is given they pass through here once, above every engine (see records.py); engines keep the bytes.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import orjson

from nopokedb.errors import InvalidMetadataError
from nopokedb.records import MAX_METADATA_BYTES, MAX_METADATA_DEPTH, Metadata, shown
from nopokedb.times import utc_text

_PLAIN = frozenset({str, int, bool, type(None)})


def encode_metadata(metadata: object) -> bytes:
    """The JSON bytes of a metadata object; None means `{}`.

    Keys are str; values are what JSON has: str, int, float, bool, None, lists (tuples become lists) and dicts,
    nested up to 64 deep. Datetimes with a time zone become UTC text of a fixed width, so they sort as time does.
    """
    if metadata is None:
        return b"{}"
    if not isinstance(metadata, dict):
        raise InvalidMetadataError(f"expected metadata to be a dict, got {type(metadata).__name__}")
    plain: dict[Any, Any] = metadata if type(metadata) is dict else _clean(metadata, "metadata", 1)
    for key, value in plain.items():
        if type(key) is not str or (type(value) not in _PLAIN and not (type(value) is float and math.isfinite(value))):
            plain = _clean(plain, "metadata", 1)  # nested or unusual: look at every value
            break
    try:
        encoded = orjson.dumps(plain, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except TypeError as error:  # a lone surrogate, or an int past 64 bits
        place = _unfit_place(plain, "metadata")
        raise InvalidMetadataError(f"expected what JSON can hold, got {place} ({error})") from None
    if len(encoded) > MAX_METADATA_BYTES:
        raise InvalidMetadataError(
            f"expected metadata of at most {MAX_METADATA_BYTES} bytes as JSON, got {len(encoded)}"
        )
    return encoded


def _clean(value: Any, place: str, depth: int) -> Any:
    """A copy of plain JSON types, or an error that names the place."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, dict | list | tuple):
        if depth > MAX_METADATA_DEPTH:
            raise InvalidMetadataError(
                f"expected metadata nested at most {MAX_METADATA_DEPTH} deep, got more at {place:.80}"
            )
        if not isinstance(value, dict):
            return [_clean(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
        cleaned = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidMetadataError(
                    f"expected str keys in {place}, got {type(key).__name__} {key!r:.80}; convert it with str()"
                )
            cleaned[str.__str__(key)] = _clean(item, f"{place}[{key!r}]", depth + 1)
        return cleaned
    if isinstance(value, datetime):
        return utc_text(value, place, InvalidMetadataError)
    if isinstance(value, str | int) and not isinstance(value, np.generic):  # enums and other subclasses
        return str.__str__(value) if isinstance(value, str) else int(value)
    if kind is float:
        if math.isfinite(value):
            return value
        raise InvalidMetadataError(f"expected finite numbers, got {value} at {place}; JSON has no such value")
    hint = "; use .item() or .tolist()" if isinstance(value, np.generic | np.ndarray) else ""
    raise InvalidMetadataError(f"expected a JSON value at {place}, got {kind.__name__}{hint}")


def _unfit_place(value: Any, place: str) -> str:
    """Where the first value is that the encoder refuses: an int past 64 bits, or text that is not valid Unicode."""
    if isinstance(value, dict):
        children = [(f"a key {key!a:.80} in {place}", key) for key in value]
        children += [(f"{place}[{key!a:.80}]", item) for key, item in value.items()]
    elif isinstance(value, list):
        children = [(f"{place}[{at}]", item) for at, item in enumerate(value)]
    else:
        return f"{shown(value) if isinstance(value, int) else ascii(value)[:200]} at {place}"
    for name, child in children:
        try:
            orjson.dumps(child)
        except TypeError:
            return _unfit_place(child, name)
    return place


def decode_metadata(encoded: bytes | str) -> Metadata:
    """The dict that `encode_metadata` wrote, a fresh one each time."""
    return orjson.loads(encoded)  # type: ignore[no-any-return]


def merge_metadata(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396: None removes a key, dicts merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_metadata(merged.get(key), value)
    return merged
