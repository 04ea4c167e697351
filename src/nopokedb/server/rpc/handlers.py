"""What each gRPC method does: who calls, the request out of the message, the service, the reply.

Messages come as bytes, so that nothing is parsed before the key is known to be good; large ones are parsed in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError

from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.asked import request_of
from nopokedb.rpc.methods import ERROR_KEY, METHODS, SERVICE, Method
from nopokedb.rpc.told import ids_message, page_message
from nopokedb.server import requests
from nopokedb.server.access import Caller
from nopokedb.server.operations import OPERATIONS
from nopokedb.server.refusals import MalformedRequestError, TimeLimitError
from nopokedb.server.rest.encoding import encode
from nopokedb.server.results import Answers, Records
from nopokedb.server.service import Service
from nopokedb.server.statuses import describe, is_expected, status_of
from nopokedb.server.streaming import scan_pages

_log = logging.getLogger("nopokedb.server")

_AT_ONCE = 128 * 2**10
"""Messages of up to this size take the event loop well below a millisecond; more are parsed in a thread."""
_FEW = 256
"""Hits or records that are written in the event loop; more are written in a thread."""
_LONGEST_DETAILS = 4_000
"""Clients take 8 KiB of metadata by default."""
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Context = Any
"""grpc.aio.ServicerContext; the package has no types."""
Work = Callable[[Service, Caller, str, Any], Awaitable[Any]]


def _operation(name: str) -> Work:
    return lambda service, caller, collection, request: service.call(caller, name, collection, request)


async def _job(service: Service, caller: Caller, collection: str, request: requests.Name) -> Any:
    return service.jobs.get(caller, request.name)


_WORK: dict[str, Work] = {
    **{name: _operation(name) for name in OPERATIONS},
    "create": lambda service, caller, name, request: service.create(caller, name, request),
    "describe": lambda service, caller, name, _: service.describe(caller, name),
    "drop": lambda service, caller, name, _: service.drop(caller, name),
    "list": lambda service, caller, *_: service.list_collections(caller),
    "backup": lambda service, caller, name, request: service.backup(caller, name, request),
    "check": lambda service, caller, name, request: service.check(caller, name, request),
    "compact": lambda service, caller, name, _: service.compact(caller, name),
    "job": _job,
}


def method_handlers(service: Service) -> grpc.GenericRpcHandler:
    """The handlers of all methods."""
    handlers = {method.name: grpc.unary_unary_rpc_method_handler(_unary(service, method)) for method in METHODS}
    handlers["Scan"] = grpc.unary_stream_rpc_method_handler(_scan(service))
    handlers["WriteStream"] = grpc.stream_stream_rpc_method_handler(_write_stream(service))
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def caller_of(service: Service, context: Context) -> Caller:
    """Whose key the call brings."""
    return service.keys.caller(key_in(context.invocation_metadata()))


def key_in(metadata: Any) -> bytes | None:
    """The authorization of a call."""
    return next((value.encode() for name, value in metadata or () if name == "authorization"), None)


def _unary(service: Service, method: Method) -> Callable[[bytes, Context], Awaitable[bytes]]:
    work, tell = _WORK[method.operation], method.tell

    async def handle(raw: bytes, context: Context) -> bytes:
        with_id = _Told(service, context, method.operation)
        try:
            caller = caller_of(service, context)
            with service.admitted():
                collection, request = await _parsed(service, method, raw)
                result = await work(service, caller, collection, request)
                if tell is None:
                    return pb.DocumentReply(json=encode(result)).SerializeToString()
                if _size(result) <= _FEW:
                    return tell(result).SerializeToString()  # type: ignore[no-any-return]
                return await service.in_thread("read", lambda: tell(result).SerializeToString())
        except Exception as error:  # noqa: BLE001 - each is answered, and defects are logged
            return await with_id.abort(error)

    return handle


def _scan(service: Service) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
    method = Method("Scan", "scan", pb.ScanRequest, requests.ScanAll, None, lambda *_: None)

    async def handle(raw: bytes, context: Context) -> AsyncIterator[bytes]:
        with_id = _Told(service, context, "scan")
        try:
            caller = caller_of(service, context)
            with service.admitted():
                collection, request = await _parsed(service, method, raw)
                async with (
                    _upload_time(service),
                    aclosing(scan_pages(service, caller, collection, request)) as pages,
                ):
                    async for page in pages:
                        yield page_message(page).SerializeToString()
        except Exception as error:  # noqa: BLE001 - as above
            await with_id.abort(error)

    return handle


def _write_stream(service: Service) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]:
    method = next(method for method in METHODS if method.name == "Write")

    async def handle(batches: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        with_id = _Told(service, context, "write")
        try:
            caller = caller_of(service, context)
            with service.admitted():
                async with _upload_time(service):
                    async for raw in batches:
                        collection, request = await _parsed(service, method, raw)
                        yield ids_message(await service.call(caller, "write", collection, request)).SerializeToString()
        except Exception as error:  # noqa: BLE001 - as above
            await with_id.abort(error)

    return handle


async def _parsed(service: Service, method: Method, raw: bytes) -> tuple[str, Any]:
    """The collection and the request of a message."""

    def parse() -> tuple[str, Any]:
        try:
            message = method.asked.FromString(raw)
        except DecodeError as error:
            raise MalformedRequestError(
                f"expected a message {method.asked.__name__}, got what is none: {error}"
            ) from None
        return getattr(message, "collection", ""), request_of(method.request, message)

    return parse() if len(raw) <= _AT_ONCE else await service.in_thread("read", parse)


def _size(result: Any) -> int:
    """How much there is to write."""
    if isinstance(result, Answers):
        return sum(map(len, result.answers))
    return len(result.records) if isinstance(result, Records) else 0


class _upload_time:
    """At most the time of an upload for a stream; what is over it is answered as any limit on time."""

    def __init__(self, service: Service) -> None:
        self._seconds = service.limits.upload_timeout_s
        self._timeout = asyncio.timeout(self._seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError:
            raise TimeLimitError(
                f"expected a stream of at most {self._seconds:g} s (upload_timeout_s of this server)"
            ) from None


class _Told:
    """How a call that fails is answered."""

    def __init__(self, service: Service, context: Context, operation: str) -> None:
        self._service = service
        self._context = context
        self._operation = operation

    async def abort(self, error: Exception) -> Any:
        """End the call with the code, the sentence and the document of the error; raises."""
        request_id = self._request_id()
        if not is_expected(error):
            _log.exception("a request failed", extra={"request_id": request_id}, exc_info=error)
        document = describe(error, request_id, str(self._service.settings.root))
        message = document["error"]["message"] = document["error"]["message"][:_LONGEST_DETAILS]
        code = getattr(grpc.StatusCode, status_of(error).grpc)
        await self._context.abort(code, message, ((ERROR_KEY, orjson.dumps(document["error"])),))

    def _request_id(self) -> str:
        given = next((v for k, v in self._context.invocation_metadata() or () if k == "x-request-id"), None)
        if isinstance(given, str) and _GOOD_ID.fullmatch(given):
            return given
        return os.urandom(8).hex()
