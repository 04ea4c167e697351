"""What each gRPC method does: who calls, the request out of the message, the service, the reply.

Messages come as bytes, so that nothing is parsed before the key is known to be good; large ones are parsed in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from functools import cached_property
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError

from nopokedb.errors import NoPokeError
from nopokedb.records import check_choice
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.asked import request_of
from nopokedb.rpc.methods import ERROR_KEY, METHODS, SERVICE, Method
from nopokedb.rpc.told import ids_message, page_message
from nopokedb.server import requests
from nopokedb.server.access import Caller
from nopokedb.server.operations import OPERATIONS
from nopokedb.server.refusals import MalformedRequestError, TimeLimitError, TooLargeError
from nopokedb.server.rest.encoding import encode
from nopokedb.server.results import Answers, Records
from nopokedb.server.service import Service
from nopokedb.server.statuses import describe, is_expected, status_of
from nopokedb.server.streaming import scan_pages
from nopokedb.server.uploads import Upload, UploadFormat

_log = logging.getLogger("nopokedb.server")

_AT_ONCE = 128 * 2**10
"""Messages of up to this size take the event loop well below a millisecond; more are parsed in a thread."""
_FEW = 256
"""Hits or records that are written in the event loop; more are written in a thread."""
_LONGEST_MESSAGE = 2_000
"""Clients take 8 KiB of metadata by default, and the message is in it twice."""
_SLOW_S = 1.0
_GONE = 499
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Context = Any
"""grpc.aio.ServicerContext; the package has no types."""
Work = Callable[[Service, Caller, str, Any], Awaitable[Any]]


def _operation(name: str) -> Work:
    return lambda service, caller, collection, request: service.call(caller, name, collection, request)


async def _job(service: Service, caller: Caller, collection: str, request: requests.Name) -> Any:
    return service.jobs.get(caller, request.name)


async def _jobs(service: Service, caller: Caller, collection: str, request: requests.Nothing) -> Any:
    return {"jobs": service.jobs.all(caller)}


async def _backups(service: Service, caller: Caller, collection: str, request: requests.Nothing) -> Any:
    return {"backups": await service.backups(caller, collection)}


_WORK: dict[str, Work] = {
    **{name: _operation(name) for name in OPERATIONS},
    "create": lambda service, caller, name, request: service.create(caller, name, request),
    "describe": lambda service, caller, name, _: service.describe(caller, name),
    "drop": lambda service, caller, name, _: service.drop(caller, name),
    "list": lambda service, caller, *_: service.list_collections(caller),
    "backup": lambda service, caller, name, request: service.backup(caller, name, request),
    "check": lambda service, caller, name, request: service.check(caller, name, request),
    "compact": lambda service, caller, name, _: service.compact(caller, name),
    "optimize": lambda service, caller, name, _: service.optimize(caller, name),
    "restore": lambda service, caller, name, request: service.restore(caller, name, request),
    "backups": _backups,
    "drop_backup": lambda service, caller, name, request: service.drop_backup(caller, name, request),
    "job": _job,
    "jobs": _jobs,
}


def method_handlers(service: Service) -> grpc.GenericRpcHandler:
    """The handlers of all methods."""
    handlers = {method.name: grpc.unary_unary_rpc_method_handler(_unary(service, method)) for method in METHODS}
    handlers["Scan"] = grpc.unary_stream_rpc_method_handler(_scan(service))
    handlers["WriteStream"] = grpc.stream_stream_rpc_method_handler(_write_stream(service))
    handlers["Import"] = grpc.stream_unary_rpc_method_handler(_import(service))
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def serialized(message: Any) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]


def caller_of(service: Service, context: Context) -> Caller:
    """Whose key the call brings."""
    return service.keys.caller(key_in(context.invocation_metadata()))


def key_in(metadata: Any) -> bytes | None:
    """The authorization of a call."""
    return next((value.encode() for name, value in metadata or () if name == "authorization"), None)


def _unary(service: Service, method: Method) -> Callable[[bytes, Context], Awaitable[bytes]]:
    work, tell = _WORK[method.operation], method.tell

    async def handle(raw: bytes, context: Context) -> bytes:
        async with Answering(service, context, method.operation) as caller:
            collection, request = await _parsed(service, method, raw)
            result = await work(service, caller, collection, request)
            if tell is None:
                return serialized(pb.DocumentReply(json=encode(result)))
            if _size(result) <= _FEW:
                return serialized(tell(result))
            return await service.in_thread("read", lambda: serialized(tell(result)))
        raise AssertionError("an error has ended the call")

    return handle


def _scan(service: Service) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
    method = Method("Scan", "scan", pb.ScanRequest, requests.ScanAll, None, lambda *_: None)

    async def handle(raw: bytes, context: Context) -> AsyncIterator[bytes]:
        async with Answering(service, context, "scan") as caller, _upload_time(service):
            collection, request = await _parsed(service, method, raw)
            async with aclosing(scan_pages(service, caller, collection, request)) as pages:
                async for page in pages:
                    yield serialized(page_message(page))

    return handle


def _write_stream(service: Service) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]:
    method = next(method for method in METHODS if method.name == "Write")

    async def handle(batches: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async with Answering(service, context, "write") as caller, _upload_time(service):
            async for raw in batches:
                collection, request = await _parsed(service, method, raw)
                yield serialized(ids_message(await service.call(caller, "write", collection, request)))

    return handle


def _import(service: Service) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
    async def handle(parts: AsyncIterator[bytes], context: Context) -> bytes:
        async with Answering(service, context, "import") as caller, _upload_time(service):
            messages = aiter(parts)
            first = _message(pb.ImportRequest, await anext(messages, b""))
            caller.check("write", first.collection)
            check_choice("format", first.format, UploadFormat)
            upload = Upload(first.mode or "insert", first.batch_size if first.HasField("batch_size") else 1_000)

            async def data() -> AsyncIterator[bytes]:
                size, part = 0, first.data
                while True:
                    size += len(part)
                    if size > service.limits.max_upload_bytes:
                        raise TooLargeError(
                            f"expected at most {service.limits.max_upload_bytes} bytes (max_upload_bytes of this "
                            "server), got more"
                        )
                    yield part
                    raw = await anext(messages, None)
                    if raw is None:
                        return
                    part = _message(pb.ImportRequest, raw).data

            spool = await service.spooled(data())
            job = await service.import_file(caller, first.collection, spool, first.format, upload)
            return serialized(pb.DocumentReply(json=encode(job)))
        raise AssertionError("an error has ended the call")

    return handle


def _message(kind: type[Any], raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise MalformedRequestError(f"expected a message {kind.__name__}, got what is none: {error}") from None


async def _parsed(service: Service, method: Method, raw: bytes) -> tuple[str, Any]:
    """The collection and the request of a message."""

    def parse() -> tuple[str, Any]:
        message = _message(method.asked, raw)
        return getattr(message, "collection", ""), request_of(method.request, message)

    return parse() if len(raw) <= _AT_ONCE else await service.in_thread("read", parse)


def _size(result: Any) -> int:
    """How much there is to write."""
    if isinstance(result, Answers):
        return sum(map(len, result.answers))
    return len(result.records) if isinstance(result, Records) else 0


@asynccontextmanager
async def _upload_time(service: Service) -> AsyncIterator[None]:
    """At most the time of an upload for a stream; what is over it is answered as any limit on time."""
    seconds = service.limits.upload_timeout_s
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        if isinstance(error, NoPokeError):
            raise
        raise TimeLimitError(f"expected a stream of at most {seconds:g} s (upload_timeout_s of this server)") from None


class Answering:
    """One call from its key to its end: gives the caller, keeps to the number of calls at once, answers an error with
    its code, its sentence and its document, and counts the call."""

    def __init__(self, service: Service, context: Context, operation: str) -> None:
        self._service = service
        self._context = context
        self._operation = operation
        self._began = time.perf_counter()
        self._held = ExitStack()

    async def __aenter__(self) -> Caller:
        try:
            caller = caller_of(self._service, self._context)
            self._held.enter_context(self._service.admitted())
        except NoPokeError as error:
            self._note(status_of(error).http, None)
            await self._abort(error)
        return caller

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._held.close()
        if error is None:
            self._note(200, None)
        elif not isinstance(error, Exception):
            self._note(_GONE, None)  # whoever called has gone, or the server goes
        else:
            self._note(status_of(error).http, error)
            await self._abort(error)
        return False

    async def _abort(self, error: Exception) -> None:
        """End the call; raises."""
        document = describe(error, self._request_id, str(self._service.settings.root))["error"]
        document["message"] = document["message"][:_LONGEST_MESSAGE]
        code = getattr(grpc.StatusCode, status_of(error).grpc)
        await self._context.abort(code, document["message"], ((ERROR_KEY, orjson.dumps(document)),))

    def _note(self, status: int, error: Exception | None) -> None:
        """Count the call, and log it if it failed, was slow, or if all are to be logged."""
        seconds = time.perf_counter() - self._began
        self._service.metrics.observe("grpc", self._operation, status, seconds)
        if error is not None and not is_expected(error):
            _log.error("a request failed", extra={"request_id": self._request_id}, exc_info=error)
        if self._service.settings.log_requests or status >= 500 or seconds > _SLOW_S:
            _log.info(
                "request",
                extra={
                    "request_id": self._request_id,
                    "method": "grpc",
                    "path": self._operation,
                    "status": status,
                    "ms": round(seconds * 1000, 3),
                },
            )

    @cached_property
    def _request_id(self) -> str:
        given = next((v for k, v in self._context.invocation_metadata() or () if k == "x-request-id"), None)
        return given if isinstance(given, str) and _GOOD_ID.fullmatch(given) else os.urandom(8).hex()
