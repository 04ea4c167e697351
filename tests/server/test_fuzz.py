"""Requests made of the OpenAPI document, right and wrong: whatever comes, no answer is a 5xx."""

from __future__ import annotations

import asyncio
import json
import os
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nopokedb.server.rest.app import make_app
from nopokedb.server.rest.gate import HostRule
from nopokedb.server.rest.routes import ROUTES, Route
from nopokedb.server.service import Service
from nopokedb.server.settings import ServerSettings

KEYS = st.text(string.ascii_letters + "$.", max_size=4)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FILTERS = st.sampled_from(
    [{}, {"n": 1}, {"n": {"$gte": 1}}, {"$not": {"n": {"$in": [1, "x"]}}}, {"$id": 0}, {"n": {"$x": 1}}]
)
NAMED: dict[str, st.SearchStrategy[Any]] = {
    "where": FILTERS | ANYTHING,
    "vector": st.just([1.0, 0.0]) | ANYTHING,
    "metadata": st.dictionaries(st.sampled_from(["n", "a.b", ""]), ANYTHING, max_size=2),
    "name": st.sampled_from(["s", "../x", "", "a" * 200]),
    "at": st.sampled_from(["s", "absent"]),
    "embed": st.sampled_from(["wordllama", "x"]),
}


def of_schema(schema: dict[str, Any], schemas: dict[str, Any], name: str = "") -> st.SearchStrategy[Any]:
    """Values that fit a schema, and now and then one that does not."""
    if name in NAMED:
        return NAMED[name]
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]]) | st.text(max_size=3)
    if "anyOf" in schema:
        return st.one_of([of_schema(item, schemas) for item in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        required = set(schema.get("required", ()))
        parts = {key: of_schema(value, schemas, key) for key, value in schema["properties"].items()}
        must = {key: part for key, part in parts.items() if key in required}
        may = {key: part for key, part in parts.items() if key not in required}
        return st.fixed_dictionaries(must, optional=may)
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {}), schemas), max_size=3)
    plain = {
        "integer": st.integers(-5, 50) | st.integers(-(2**70), 2**70),
        "number": st.floats(-2, 2) | st.integers(-3, 3),
        "string": st.text(max_size=6),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return plain.get(kind or "", ANYTHING)


class InProcess:
    """The application in this process, with a collection `c` that has records and a snapshot."""

    def __init__(self, folder: Path) -> None:
        self.service = Service(ServerSettings(folder))
        self._app = make_app(self.service, HostRule("127.0.0.1", (), loopback=True))
        self._runner = asyncio.Runner()
        assert self.ask("PUT", "/v1/collections/c", {"dim": 2}).status_code == 201
        records = [{"vector": [n + 1.0, 1.0], "metadata": {"n": n}} for n in range(5)]
        assert self.ask("POST", "/v1/collections/c/records", {"records": records}).status_code == 200
        assert self.ask("PUT", "/v1/collections/c/snapshots/s").status_code == 200
        self.document: dict[str, Any] = self.ask("GET", "/openapi.json").json()

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                headers = {"content-type": "application/json"}
                return await client.request(method, path, content=json.dumps(body).encode(), headers=headers)

        return self._runner.run(send())

    def close(self) -> None:
        self._runner.close()
        self.service.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    made = InProcess(tmp_path_factory.mktemp("fuzz") / "collections")
    yield made
    made.close()


EXAMPLES = int(os.environ.get("NOPOKEDB_FUZZ_EXAMPLES", "40"))
"""Requests per route; a long run takes 1,000."""
UNHURRIED = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
WITH_BODIES = [route for route in ROUTES if route.body is not None]


@pytest.mark.parametrize("route", WITH_BODIES, ids=lambda route: f"{route.method} {route.path[21:]}")
def test_no_body_is_answered_with_5xx(server: InProcess, route: Route) -> None:
    """Bodies that fit the document, nearly fit it, or not at all, on a collection with records."""
    path = route.path.replace("{name}", "c")
    operation = server.document["paths"][route.path.replace(":path", "")][route.method.lower()]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]

    @UNHURRIED
    @given(of_schema(schema, server.document["components"]["schemas"]) | ANYTHING)
    def fuzz(body: Any) -> None:
        answer = server.ask(route.method, path, body)
        assert answer.status_code < 500, answer.text
        assert answer.status_code < 400 or answer.json()["error"]["message"]

    fuzz()


def test_no_path_is_answered_with_5xx(server: InProcess) -> None:
    """Any name, id, field or option in a path."""
    paths = [
        (route.method, route.path)
        for route in ROUTES
        if "{" in route.path and route.body is None and not route.path.endswith("/optimize")
    ]
    texts = st.text(max_size=8)

    @UNHURRIED
    @given(st.sampled_from(paths), st.sampled_from(["c", "absent"]) | texts, texts, texts)
    def fuzz(route: tuple[str, str], name: str, part: str, query: str) -> None:
        method, path = route
        if method == "DELETE" and path.endswith("{name}"):
            name = "absent"
        path = path.replace("{name}", quote(name, safe=""))
        for pattern in ("{id:path}", "{field}", "{snapshot}", "{backup}", "{job}"):
            path = path.replace(pattern, quote(part, safe=""))
        answer = server.ask(method, f"{path}?{quote(query, safe='=&')}")
        assert answer.status_code < 500, (method, path, query, answer.text)

    fuzz()
