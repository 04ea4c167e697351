"""The port of gRPC: opened beside REST's, guarded by the same keys, closed after the last answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from nopokedb.errors import InvalidInputError, NoPokeError
from nopokedb.rpc.methods import SERVICE
from nopokedb.server.rpc.handlers import key_in, method_handlers
from nopokedb.server.service import Service
from nopokedb.server.statuses import status_of

_HEALTH = "grpc.health.v1.Health"
_REFLECTION = "/grpc.reflection."


@asynccontextmanager
async def grpc_port(service: Service, host: str) -> AsyncIterator[str | None]:
    """Serve gRPC while the block runs, beside REST on the address `host`; yields where, None if it is not wanted.

    At the end calls in flight finish, and new ones are refused.
    """
    settings = service.settings
    if settings.grpc_port is None:
        yield None
        return
    server = grpc.aio.server(
        interceptors=(_ReflectionGuard(service),),
        options=(
            ("grpc.max_receive_message_length", service.limits.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second server on this port is an error, not half of the requests
        ),
        maximum_concurrent_rpcs=2 * service.limits.max_concurrent,  # refused before they hold memory; see `admitted`
    )
    server.add_generic_rpc_handlers((method_handlers(service),))
    health = _Health(service)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((SERVICE, _HEALTH, reflection.SERVICE_NAME), server)
    target = f"[{host}]" if ":" in host else host
    port = _bound(server, service, f"{target}:{settings.grpc_port}")
    await server.start()
    await health.look()
    try:
        yield f"grpc{'' if settings.tls_cert is None else 's'}://{target}:{port}"
    finally:
        await health.enter_graceful_shutdown()
        await server.stop(settings.shutdown_timeout_s)


def _bound(server: Any, service: Service, target: str) -> int:
    """The port that the server listens on."""
    settings = service.settings
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
            return server.add_secure_port(target, grpc.ssl_server_credentials((pair,)))  # type: ignore[no-any-return]
        return server.add_insecure_port(target)  # type: ignore[no-any-return]
    except RuntimeError as error:
        raise InvalidInputError(f"expected a free address for gRPC, got {target}: {error}") from None


class _Health(health_aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """The standard health service. It needs no key, as /readyz, and says as much."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    async def Check(self, request: Any, context: Any) -> Any:
        """Looks first, as /readyz does."""
        await self.look()
        return await super().Check(request, context)

    async def look(self) -> None:
        """Say whether the server can write."""
        ready = not await self._service.troubles()
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self.set(name, status)


class _ReflectionGuard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the package has no types
    """Reflection is for those who have a key, as /docs. (Other methods look at keys themselves.)"""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """See grpc.aio.ServerInterceptor."""
        if details.method.startswith(_REFLECTION):
            try:
                self._service.keys.caller(key_in(details.invocation_metadata)).check("read", None)
            except NoPokeError as error:
                return _refusal(error)
        return await continuation(details)


def _refusal(error: NoPokeError) -> Any:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(getattr(grpc.StatusCode, status_of(error).grpc), str(error))

    return grpc.stream_stream_rpc_method_handler(refuse)
