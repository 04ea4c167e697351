"""What one request may ask for, checked in one place for every transport, before anything is done."""

from __future__ import annotations

from typing import Any

import orjson

from nopokedb.server.refusals import LimitError
from nopokedb.server.settings import Limits


def check_request(request: Any, limits: Limits) -> None:
    """Raise `LimitError` for a request that is larger than this server takes. Values of other types than expected pass:
    the library refuses them."""
    for name in request.__slots__:
        value = getattr(request, name)
        if value is None or (check := _CHECKS.get(name)) is None:
            continue
        check(name, value, limits)


def _at_most(name: str, value: Any, high: int, what: str) -> None:
    if value.__class__ is int and value > high:
        raise LimitError(f"expected {name} of at most {high} ({what} of this server), got {value:.6g}")


def _check_k(name: str, value: Any, limits: Limits) -> None:
    _at_most(name, value, limits.max_k, "max_k")


def _check_page(name: str, value: Any, limits: Limits) -> None:
    _at_most(name, value, limits.max_page, "max_page")


def _check_length(name: str, value: Any, limits: Limits) -> None:
    if isinstance(value, list) and len(value) > limits.max_batch:
        raise LimitError(
            f"expected at most {limits.max_batch} {name} in one request (max_batch of this server), got {len(value)}; "
            "send several requests, or a stream"
        )


def _check_queries(name: str, value: Any, limits: Limits) -> None:
    if isinstance(value, list) and len(value) > limits.max_queries:
        raise LimitError(
            f"expected at most {limits.max_queries} {name} in one request (max_queries of this server), got "
            f"{len(value)}"
        )


def _check_where(name: str, value: Any, limits: Limits) -> None:
    try:
        size = len(orjson.dumps(value))
    except TypeError:
        return  # the library says what is wrong with it
    if size > limits.max_filter_bytes:
        raise LimitError(
            f"expected a filter of at most {limits.max_filter_bytes} bytes as JSON (max_filter_bytes of this server), "
            f"got {size}"
        )


_CHECKS = {
    "k": _check_k,
    "ef": _check_k,
    "sample": _check_k,
    "limit": _check_page,
    "size": _check_page,
    "records": _check_length,
    "ids": _check_length,
    "changes": _check_length,
    "texts": _check_length,
    "vectors": _check_queries,
    "queries": _check_queries,
    "where": _check_where,
}
