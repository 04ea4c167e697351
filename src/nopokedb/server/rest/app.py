"""The REST application: FastAPI routes and documents, our own short way from a request to an answer.

FastAPI makes the OpenAPI document of the table of routes. Its own validation is left out on purpose: the library checks
every value, with the same words on every surface, and a second check would cost more than the query.
"""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp

import nopokedb
from nopokedb.server.refusals import MethodError, NoSuchThingError
from nopokedb.server.rest.calls import Call
from nopokedb.server.rest.console import console_replies
from nopokedb.server.rest.documents import document, openapi_reply, page_reply
from nopokedb.server.rest.gate import Gate, HostRule
from nopokedb.server.rest.replies import Receive, Reply, Scope, Send, send_reply
from nopokedb.server.rest.routes import ROUTES, Route
from nopokedb.server.service import Service


class _LeanRoute(APIRoute):
    """A route that FastAPI documents and that answers by itself."""

    def __init__(self, route: Route, service: Service) -> None:
        super().__init__(
            route.path,
            _documented(route),
            methods=[route.method],
            summary=route.summary.partition("\n")[0],
            status_code=route.status,
            operation_id=_operation_id(route),
            tags=[route.path.split("/")[4] if route.path.count("/") > 3 else "server"],
        )
        handler, name = route.handler, route.name

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["operation"] = name
            reply = await handler(Call(service, scope.get("caller"), scope, receive))  # type: ignore[arg-type]
            await send_reply(send, reply, scope["request_id"])

        self.app = app  # in place of FastAPI's, which reads and checks the body


def make_app(service: Service, hosts: HostRule) -> ASGIApp:
    """The whole application, behind its gate."""
    app = FastAPI(title="NoPokeDB", version=nopokedb.__version__, openapi_url=None, redirect_slashes=False)
    for route in ROUTES:
        app.router.routes.append(_LeanRoute(route, service))
    found = document(app)
    for path, reply in (("/openapi.json", openapi_reply(found)), ("/docs", page_reply(found))):
        app.router.routes.append(_fixed(path, reply))
    for path, reply in console_replies().items():
        app.router.routes.append(_fixed(path, reply, is_open=True))

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        raise NoSuchThingError(f"expected the address of something, got {scope['path']!r:.200}")

    app.router.default = not_found

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app  # where the router looks for it
        try:
            await app.router(scope, receive, send)
        except HTTPException as error:
            if error.status_code == 405:
                raise MethodError(
                    f"expected another method than {scope['method']} for {scope['path']!r:.200}"
                ) from None
            raise

    return Gate(call, service, hosts)


def _fixed(path: str, reply: Reply, *, is_open: bool = False) -> StarletteRoute:
    """A route that always answers the same to everybody who has a key, or to everybody."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not is_open:
            scope["caller"].check("read", None)
        scope["operation"] = "console" if is_open else path.strip("/")
        await send_reply(send, reply, scope["request_id"])

    route = StarletteRoute(path, lambda request: None, methods=["GET"])
    route.app = app
    return route


def _documented(route: Route) -> Any:
    """A function with the signature that FastAPI documents."""

    def endpoint(**_: Any) -> None:
        raise AssertionError("answered by the route itself")

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name.partition(":")[0], kind, annotation=str)
        for name in (part[1:-1] for part in route.path.split("/") if part.startswith("{"))
    ]
    parameters += [inspect.Parameter(name, kind, annotation=str | None, default=None) for name in route.options]
    if route.body is not None:
        parameters.append(inspect.Parameter("body", kind, annotation=route.body))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__doc__ = route.summary
    return endpoint


def _operation_id(route: Route) -> str:
    words = [part.strip("{}").partition(":")[0] for part in route.path.split("/")[1:]]
    return "_".join([route.method.lower(), *words])
