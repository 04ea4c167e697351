"""Answers in NDJSON: one document a line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import orjson

from nopokedb.server import requests
from nopokedb.server.access import Caller
from nopokedb.server.rest.encoding import record_line
from nopokedb.server.rest.replies import Receive
from nopokedb.server.statuses import describe, is_expected
from nopokedb.server.streaming import scan_pages

if TYPE_CHECKING:
    from nopokedb.server.service import Service

_log = logging.getLogger("nopokedb.server")


async def scan_lines(
    service: Service,
    caller: Caller,
    collection: str,
    request: requests.ScanAll,
    receive: Receive,
    request_id: str,
) -> AsyncGenerator[bytes]:
    """The records of a scan. The first part is empty, and comes when the state has been taken: an error until then is
    answered as any other. One that comes later is the last line."""
    packed = request.vector_format == "base64"
    pages = scan_pages(service, caller, collection, request)
    gone = asyncio.ensure_future(receive())  # the body has been read: what comes now is the end of the connection
    try:
        yield b"".join([record_line(record, packed=packed) for record in await anext(pages)])
        try:
            async for page in pages:
                if gone.done():
                    return
                yield b"".join([record_line(record, packed=packed) for record in page])
        except Exception as error:  # noqa: BLE001 - told to the client, in the only place that is left for it
            if not is_expected(error):
                _log.exception("a scan failed", extra={"request_id": request_id})
            yield orjson.dumps(describe(error, request_id, str(service.settings.root))) + b"\n"
    finally:
        gone.cancel()
        await pages.aclose()
