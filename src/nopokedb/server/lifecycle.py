"""The life of a server process: bind, say where, serve, and stop cleanly on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from nopokedb.errors import InvalidInputError
from nopokedb.server.rest.app import make_app
from nopokedb.server.rest.gate import HostRule
from nopokedb.server.rest.protocol import BoundedProtocol
from nopokedb.server.rpc.serving import grpc_port
from nopokedb.server.service import Service
from nopokedb.server.settings import ServerSettings

_KEEP_S = 5.0
_SWITCH_S = 0.001
"""How long one thread may keep the interpreter while another waits for it. Python's 5 ms would be the time that the
event loop waits for a worker."""
_log = logging.getLogger("nopokedb.server")


class _Uvicorn(uvicorn.Server):
    """Uvicorn, which leaves signals to us: it would end the process by the signal, not with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: ServerSettings, announce: Callable[[str, str | None], None]) -> None:
    """Serve until told to stop; then requests in flight finish, collections are closed with a checkpoint.

    `announce` is called with the addresses of REST and of gRPC once requests are taken.
    """
    with contextlib.closing(_bind(settings.host, settings.port)) as listening:
        check_exposure(settings, listening)
        service = Service(settings)
        try:
            _loop_factory_runner(_serve(service, listening, announce))
        finally:
            service.close()


def check_exposure(settings: ServerSettings, listening: socket.socket) -> None:
    """Refuse an address that others can reach where no keys are asked for."""
    if not is_loopback(listening) and settings.keys is None and settings.api_key is None:
        raise InvalidInputError(
            f"expected keys for a server that others can reach, got none for {settings.host}: give --keys FILE "
            "(made by `nopokedb keys create`) or NOPOKEDB_API_KEY, or bind to 127.0.0.1"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InvalidInputError("expected both --tls-cert and --tls-key, got one of them")


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


async def _serve(service: Service, listening: socket.socket, announce: Callable[[str, str | None], None]) -> None:
    settings = service.settings
    hosts = HostRule(settings.host, settings.allowed_hosts, loopback=is_loopback(listening))
    config = uvicorn.Config(
        make_app(service, hosts),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    server = _Uvicorn(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        service.stopping = True
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, service.reload_keys)
    keeping = loop.create_task(_keep(service))
    try:
        async with grpc_port(service, listening.getsockname()[0]) as grpc_address:
            telling = loop.create_task(_tell(server, service, listening, grpc_address, announce))
            await server.serve(sockets=[listening])
            telling.cancel()
    finally:
        keeping.cancel()


async def _tell(
    server: uvicorn.Server,
    service: Service,
    listening: socket.socket,
    grpc_address: str | None,
    announce: Callable[[str, str | None], None],
) -> None:
    """Say where the server is, once it takes requests."""
    host, port = listening.getsockname()[:2]
    while not server.started:
        await asyncio.sleep(0.005)
    scheme = "http" if service.settings.tls_cert is None else "https"
    announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", grpc_address)


async def _keep(service: Service) -> None:
    """Now and then, keep the open collections within the limit on memory."""
    while True:
        await asyncio.sleep(_KEEP_S)
        await service.keep()


def _loop_factory_runner(main: object) -> None:
    sys.setswitchinterval(_SWITCH_S)
    try:
        import uvloop
    except ImportError:  # Windows has none
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)  # type: ignore[arg-type]
