"""REST: operations as HTTP requests with JSON bodies, over a pool of connections."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from nopokedb.records import Group, Hit, Record
from nopokedb.remote.address import Address
from nopokedb.remote.documents import collection_of, plan_of, recall_of, snapshot_of, snapshots_of, stats_of
from nopokedb.remote.failures import AnswerLostError, NotBegunError, TimeOverError, error_of
from nopokedb.server import requests
from nopokedb.server.results import Answer, Answers, Counted, Created, Done, Facets, Records, Written

_KEEP_ALIVE_S = 30.0
"""Idle connections are given up before the server does that (75 s): a request on one that it just closed is lost."""
_MAX_IDLE = 32


class _Route(NamedTuple):
    method: str
    path: str
    """Below the collection. {} stands for the name in the request."""
    result: Callable[[Any], Any]


def _written(document: Any) -> Written:
    return Written(document["ids"])


def _counted(document: Any) -> Counted:
    return Counted(document["count"])


def _done(document: Any) -> Done:
    return Done(document["done"])


def _same(document: Any) -> Any:
    return document


def _vector(value: Any) -> Any:
    return np.frombuffer(base64.b64decode(value["base64"]), "<f4")


def _record(document: Any) -> Record | None:
    if document is None:
        return None
    vector = document.get("vector")
    return Record(
        document["id"],
        document.get("metadata"),
        None if vector is None else _vector(vector).copy(),
        document.get("text"),
        document.get("cursor"),
    )


def _records(document: Any) -> Records:
    return Records(list(map(_record, document["records"])), False)


def _answers(document: Any) -> Answers:
    several = document.get("results")
    found: list[Answer] = [_answer(document)] if several is None else [_answer(item) for item in several]
    return Answers(found, several is not None, False, False)


def _answer(document: Any) -> Answer:
    if "groups" in document:
        return [Group(group["key"], [_hit(hit) for hit in group["hits"]]) for group in document["groups"]]
    return [_hit(hit) for hit in document["hits"]]


def _hit(document: Any) -> Hit:
    hit = Hit(document)
    if "vector" in hit:
        hit["vector"] = _vector(hit["vector"]).tolist()
    return hit


def _created(document: Any) -> Created:
    return Created(document["name"], document["dim"], document["space"], document["created"])


ROUTES: dict[str, _Route] = {
    "query": _Route("POST", "/query", _answers),
    "explain": _Route("POST", "/explain", plan_of),
    "get": _Route("POST", "/records/get", _records),
    "count": _Route("POST", "/count", _counted),
    "facet": _Route("POST", "/facet", lambda document: Facets([tuple(item) for item in document["values"]])),
    "measure_recall": _Route("POST", "/measure_recall", recall_of),
    "sample": _Route("POST", "/sample", _records),
    "embed": _Route("POST", "/embed", lambda document: _vector(document["vectors"]).reshape(-1, document["dim"])),
    "stats": _Route("GET", "/stats", stats_of),
    "write": _Route("POST", "/records", _written),
    "batch": _Route("POST", "/batch", _written),
    "update": _Route("PATCH", "/records", _counted),
    "delete": _Route("POST", "/records/delete", _counted),
    "reserve_ids": _Route("POST", "/ids", _written),
    "undo": _Route("POST", "/undo", _counted),
    "save": _Route("POST", "/save", _done),
    "create_index": _Route("POST", "/indexes", _done),
    "drop_index": _Route("POST", "/indexes/drop", _done),
    "snapshots": _Route("GET", "/snapshots", snapshots_of),
    "snapshot": _Route("GET", "/snapshots/{}", snapshot_of),
    "create_snapshot": _Route("PUT", "/snapshots/{}", snapshot_of),
    "drop_snapshot": _Route("DELETE", "/snapshots/{}", _done),
    "rollback": _Route("POST", "/snapshots/{}/rollback", _counted),
    "backup": _Route("POST", "/backup", _same),
    "restore": _Route("POST", "/restore", _same),
    "backups": _Route("GET", "/backups", lambda document: document["backups"]),
    "drop_backup": _Route("DELETE", "/backups/{}", _done),
    "check": _Route("POST", "/check", _same),
    "compact": _Route("POST", "/compact", _same),
    "optimize": _Route("POST", "/optimize", _same),
    "create": _Route("PUT", "", _created),
    "describe": _Route("GET", "", collection_of),
    "drop": _Route("DELETE", "", _done),
}
_ELSEWHERE = {
    "list": _Route("GET", "/v1/collections", lambda document: document["collections"]),
    "job": _Route("GET", "/v1/jobs/{}", _same),
    "jobs": _Route("GET", "/v1/jobs", lambda document: document["jobs"]),
}
"""Not below a collection."""


class RestTransport:
    """See `Transport`."""

    def __init__(self, address: Address, api_key: str | None) -> None:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._address = address
        self._client = httpx.Client(
            base_url=address.server,
            headers=headers,
            verify=ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE")) if address.secure else False,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=_MAX_IDLE, keepalive_expiry=_KEEP_ALIVE_S
            ),
            trust_env=False,  # no proxies, and no other password than the key
            follow_redirects=False,
        )

    def call(self, operation: str, collection: str, request: Any, timeout_s: float) -> Any:
        """See `Transport.call`."""
        route = ROUTES.get(operation)
        if route is None:
            route = _ELSEWHERE[operation]
            path = route.path
        else:
            path = f"/v1/collections/{quote(collection, safe='')}{route.path}"
        body = None
        if "{}" in path:
            path = path.format(quote(str(request.name), safe=""))
        elif request.__class__ is not requests.Nothing:
            body = orjson.dumps(request, default=_packed)
        answer = self._sent(self._client.build_request(route.method, path, content=body, timeout=timeout_s))
        try:
            content = answer.read()
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        finally:
            answer.close()
        return route.result(_read(answer, content))

    def scan(self, collection: str, request: requests.ScanAll, timeout_s: float) -> Iterator[Record]:
        """See `Transport.scan`."""
        answer = self._sent(
            self._client.build_request(
                "POST",
                f"/v1/collections/{quote(collection, safe='')}/scan/stream",
                content=orjson.dumps(request, default=_packed),
                timeout=timeout_s,
            )
        )
        if answer.status_code != 200:
            try:
                _read(answer, answer.read())
            finally:
                answer.close()
        return self._lines(answer)

    def _lines(self, answer: httpx.Response) -> Iterator[Record]:
        """The records of a stream; its last line tells of an error, if there was one."""
        rest = b""
        try:
            for part in answer.iter_raw():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    document = orjson.loads(line)
                    if "error" in document:
                        raise error_of(document["error"])
                    record = _record(document)
                    assert record is not None
                    yield record
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        finally:
            answer.close()

    def close(self) -> None:
        self._client.close()

    def _sent(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request, its body unread."""
        try:
            return self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotBegunError(
                f"expected a server at {self._address.server}, but it cannot be reached: {error}"
            ) from error
        except httpx.HTTPError as error:
            raise self._lost(error) from error

    def _lost(self, error: httpx.HTTPError) -> AnswerLostError:
        """What became of a request that was sent."""
        kind = TimeOverError if isinstance(error, httpx.TimeoutException) else AnswerLostError
        return kind(f"expected an answer of {self._address.server}, got none: {str(error) or type(error).__name__}")


def _packed(value: Any) -> Any:
    """What orjson asks about: vectors in base64, and JSON that is written already."""
    if isinstance(value, bytes):
        return orjson.Fragment(value)
    return {"base64": base64.b64encode(np.asarray(value, "<f4").tobytes()).decode()}


def _read(answer: httpx.Response, content: bytes) -> Any:
    """The document of an answer; raises what the server raised."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        document = None
    if answer.is_success and document is not None:
        return document
    found = document.get("error") if isinstance(document, dict) else None
    if found is None:
        found = {
            "message": f"expected an answer of a NoPokeDB server, got status {answer.status_code} of something else"
        }
    raise error_of(found)
