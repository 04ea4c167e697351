"""What every request passes before anything is done for it: its id, Host and Origin, the key, the number of requests.

Nothing is read of a body, and no collection is touched, before the key is known to be good.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import orjson

from nopokedb.server.refusals import ForbiddenError, Refusal
from nopokedb.server.rest.bodies import ClientGoneError
from nopokedb.server.rest.replies import Receive, Reply, Scope, Send, send_reply
from nopokedb.server.service import Service
from nopokedb.server.statuses import describe, is_expected, status_of

_log = logging.getLogger("nopokedb.server")

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SLOW_S = 1.0
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], service: Service, hosts: HostRule
    ) -> None:
        self._app = app
        self._service = service
        self._hosts = hosts
        self._root = str(service.settings.root)
        self._traced = service.settings.opentelemetry
        self._next_slow = 0.0
        self._prefix, self._counter = secrets.token_hex(5).encode(), itertools.count(1)
        self._log_all = service.settings.log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websockets, and the life of the server is not told by ASGI
        if not self._traced:
            await self._answer(scope, receive, send)
            return
        carried = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._service.tracing.span(scope["method"], scope["path"], carried):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = given if given is not None and _GOOD_ID.fullmatch(given) else self._new_id()
        scope["headers_by_name"], scope["request_id"] = headers, request_id
        status = 0

        async def watched(message: Any) -> None:
            nonlocal status
            if not status:
                status = message["status"]
            await send(message)

        try:
            self._hosts.check(headers)
            if not is_open(scope["path"]):
                scope["caller"] = self._service.keys.caller(headers.get(b"authorization"))
            with self._service.admitted():
                await self._app(scope, receive, watched)
        except ClientGoneError:
            status = 499
        except Exception as error:
            if not is_expected(error):
                _log.exception("a request failed", extra={"request_id": request_id.decode()})
            if status:
                raise
            await send_reply(watched, error_reply(error, request_id, self._root), request_id)
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _new_id(self) -> bytes:
        """An id that no other request has. Counted, not drawn: a system call per request would hand the interpreter to
        the threads that search, and wait for it."""
        return b"%s-%x" % (self._prefix, next(self._counter))

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count the request, and log it if it failed, was slow, or if all are to be logged."""
        operation = scope.get("operation", "none")
        self._service.metrics.observe("rest", operation, status, seconds)
        if self._traced:
            self._service.tracing.name(operation, status)
        slow = seconds > _SLOW_S and time.monotonic() > self._next_slow
        if slow:
            self._next_slow = time.monotonic() + 1.0  # where all are slow, one a second says it
        if self._log_all or status >= 500 or slow:
            caller = scope.get("caller")
            _log.info(
                "request",
                extra={
                    "request_id": scope["request_id"].decode(),
                    "method": scope["method"],
                    "path": scope["path"],
                    "operation": operation,
                    "status": status,
                    "ms": round(seconds * 1e3, 3),
                    "caller": None if caller is None else caller.name,
                },
            )


def is_open(path: str) -> bool:
    """Whether an address is for everybody: health, and the files of the console, which hold nothing but itself."""
    return path in OPEN_PATHS or path == "/" or path.startswith("/console/")


def error_reply(error: BaseException, request_id: bytes, root: str) -> Reply:
    """How an error is answered."""
    status = status_of(error).http
    body = orjson.dumps(describe(error, request_id.decode(), root))
    headers = []
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (413, 415):
        headers.append((b"connection", b"close"))  # the rest of the body is not wanted
    if isinstance(error, Refusal) and error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    return Reply(body, status, headers=tuple(headers))


class HostRule:
    """Which Host and Origin headers are answered. A page of another site that has a name resolve to this server (DNS
    rebinding) sends its own name as Host; a page that posts here sends its own Origin."""

    def __init__(self, bind: str, allowed: tuple[str, ...], *, loopback: bool) -> None:
        self._names = {name.lower() for name in allowed} | {bind.lower()} | (_LOCAL if loopback else set())
        self._any_address = not loopback
        """An address is no name, so nobody can have it resolve to something else."""

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raise `ForbiddenError` for a foreign one."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = _host_name(host)
        if name not in self._names and not (self._any_address and _is_address(name)):
            raise ForbiddenError(
                f"expected one of this server's names as Host, got {host!r:.100}; the server can be told more names "
                "(--allow-host)"
            )
        origin = headers.get(b"origin")
        if origin is not None:
            parts = urlsplit(origin.decode("latin-1").lower())
            if parts.netloc != host:
                raise ForbiddenError(f"expected no page of another origin, got {origin.decode('latin-1')!r:.100}")


def _host_name(host: str) -> str:
    """A Host header without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
