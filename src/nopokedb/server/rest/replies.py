"""What goes back over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
_ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


@dataclass(slots=True)
class Reply:
    """A whole answer."""

    body: bytes
    status: int = 200
    media_type: bytes = JSON
    headers: tuple[Header, ...] = ()


@dataclass(slots=True)
class Stream:
    """An answer that is sent in parts, as they come."""

    parts: AsyncGenerator[bytes]
    media_type: bytes = NDJSON


async def send_stream(send: Send, stream: Stream, request_id: bytes) -> None:
    """Send it; nothing is sent before there is a first part, which may be empty."""
    headers = [(b"content-type", stream.media_type), (b"x-request-id", request_id), *_ALWAYS]
    async with aclosing(stream.parts) as parts:
        first = await anext(parts, b"")
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def send_reply(send: Send, reply: Reply | Stream, request_id: bytes) -> None:
    """Send it, with the headers that every answer has."""
    if isinstance(reply, Stream):
        await send_stream(send, reply, request_id)
        return
    headers = [
        (b"content-type", reply.media_type),
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-request-id", request_id),
        *_ALWAYS,
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
