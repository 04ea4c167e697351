"""Bodies of requests, read within the limits on size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from nopokedb.server.refusals import MalformedRequestError, MediaTypeError, TimeLimitError, TooLargeError
from nopokedb.server.rest.replies import Receive
from nopokedb.server.service import Service

_PARSED_AT_ONCE = 128 * 2**10
"""JSON of up to this size takes the event loop well below a millisecond; more is parsed in a thread."""


class ClientGoneError(Exception):
    """The client hung up; there is nobody to answer."""


async def read_json(receive: Receive, headers: dict[bytes, bytes], service: Service) -> Any:
    """The body as JSON; None where there is none."""
    kind = media_type(headers)
    if kind != b"application/json":
        raise MediaTypeError(f"expected the content type application/json, got {kind.decode('latin-1')!r:.80}")
    body = await read_body(receive, headers, service)
    if not body:
        return None
    try:
        if len(body) <= _PARSED_AT_ONCE:
            return orjson.loads(body)
        return await service.in_thread("read", lambda: orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise MalformedRequestError(f"expected JSON in UTF-8, got what is none: {error}") from None


def media_type(headers: dict[bytes, bytes]) -> bytes:
    """The content type without its parameters; JSON where there is none."""
    return headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()


async def read_body(receive: Receive, headers: dict[bytes, bytes], service: Service) -> bytes:
    """The whole body."""
    limits = service.limits
    check_headers(headers, limits.max_body_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part = message.get("body", b"")
                size += len(part)
                if size > limits.max_body_bytes:
                    raise too_large(size, limits.max_body_bytes)
                if not message.get("more_body", False):
                    return b"".join((*parts, part)) if parts else part
                parts.append(part)
    except TimeoutError:
        raise TimeLimitError(
            f"expected the whole request within {limits.timeout_s:g} s (timeout_s of this server), got {size} bytes"
        ) from None


async def stream_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> AsyncIterator[bytes]:
    """The body part by part."""
    check_headers(headers, limit)
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(size, limit)
        if part:
            yield part
        if not message.get("more_body", False):
            return


def check_headers(headers: dict[bytes, bytes], limit: int) -> None:
    """Refuse what the headers give away already."""
    if (encoding := headers.get(b"content-encoding", b"identity").strip().lower()) != b"identity":
        raise MediaTypeError(
            f"expected a body without content encoding, got {encoding.decode('latin-1')!r:.80}: this "
            "server unpacks nothing"
        )
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise too_large(int(length), limit)


def too_large(size: int, limit: int) -> TooLargeError:
    return TooLargeError(
        f"expected a body of at most {limit} bytes, got {'at least ' if size > limit else ''}{size}; send several "
        "requests, or a stream of records"
    )
