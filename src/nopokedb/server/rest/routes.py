"""The one table of REST routes: method, path, what is done, and what is in the body.

Most do one operation of operations.py with the request in the body. The rest have a function of their own, which gets a
`Call`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nopokedb.errors import InvalidInputError, RecordNotFoundError
from nopokedb.records import Id
from nopokedb.server import requests
from nopokedb.server.metrics import CONTENT_TYPE
from nopokedb.server.operations import OPERATIONS
from nopokedb.server.requests import build
from nopokedb.server.rest.calls import Call
from nopokedb.server.rest.encoding import encode
from nopokedb.server.rest.replies import Reply, Stream
from nopokedb.server.rest.streams import scan_lines
from nopokedb.server.rest.uploading import OPTIONS, begin_import, format_of, write_upload

_COLLECTION = "/v1/collections/{name}"
_DIGITS = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table."""

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Reply | Stream]]
    summary: str
    role: str
    body: type[Any] | None = None
    options: tuple[str, ...] = ()
    """Names that may stand after `?`."""
    status: int = 200
    operation: str = ""
    """Its name in metrics and logs; that of the handler unless given."""

    @property
    def name(self) -> str:
        return self.operation or self.handler.__name__.strip("_")


def _operation(method: str, path: str, name: str, *, from_path: str | None = None) -> Route:
    """A route that does one operation. Its request is the body or, with `from_path`, one part of the path."""
    operation = OPERATIONS[name]

    async def handler(call: Call) -> Reply:
        call.caller.check(operation.role, call.name)  # before the body is read
        if from_path is not None:
            request = operation.request(call.path(from_path))
        elif operation.request is requests.Nothing:
            request = requests.Nothing()
        else:
            body = await call.body()
            request = build(operation.request, {} if body is None else body)
        return Reply(encode(await call.service.call(call.caller, name, call.name, request)))

    summary = (operation.request.__doc__ if operation.request not in _BARE else operation.run.__doc__) or name
    body = None if from_path is not None or operation.request is requests.Nothing else operation.request
    return Route(method, f"{_COLLECTION}{path}", handler, summary, operation.role, body, operation=name)


async def _write(call: Call) -> Reply:
    """Records as JSON, or as a stream or file of any length."""
    call.caller.check("write", call.name)
    if kind := format_of(call):
        return await write_upload(call, kind)
    call.options()
    request = build(requests.WriteRecords, await call.body())
    return Reply(encode(await call.service.call(call.caller, "write", call.name, request)))


_WRITE = "Write records: JSON in one atomic batch, or NDJSON, Arrow, Parquet or CSV of any length in many."
_IMPORT = "Take a file of records (NDJSON, Arrow, Parquet, CSV), and write them in a job."
_BARE = (requests.Nothing, requests.Name, requests.Field)


# --- collections ----------------------------------------------------------------------------------------------


async def _list(call: Call) -> Reply:
    return Reply(encode({"collections": await call.service.list_collections(call.caller)}))


async def _create(call: Call) -> Reply:
    call.caller.check("admin", call.name)
    body = await call.body()
    created = await call.service.create(
        call.caller, call.name, build(requests.CreateCollection, {} if body is None else body)
    )
    return Reply(encode(created), 201 if created.created else 200)


async def _describe(call: Call) -> Reply:
    return Reply(encode(await call.service.describe(call.caller, call.name)))


async def _drop(call: Call) -> Reply:
    return Reply(encode(await call.service.drop(call.caller, call.name)))


# --- jobs -----------------------------------------------------------------------------------------------------


async def _backup(call: Call) -> Reply:
    call.caller.check("admin", call.name)
    request = build(requests.Backup, await call.body())
    return Reply(encode(await call.service.backup(call.caller, call.name, request)), 202)


async def _backups(call: Call) -> Reply:
    return Reply(encode({"backups": await call.service.backups(call.caller, call.name)}))


async def _drop_backup(call: Call) -> Reply:
    request = requests.Name(call.path("backup"))
    return Reply(encode(await call.service.drop_backup(call.caller, call.name, request)))


async def _restore(call: Call) -> Reply:
    call.caller.check("admin", call.name)
    request = build(requests.Restore, await call.body())
    return Reply(encode(await call.service.restore(call.caller, call.name, request)), 202)


async def _check(call: Call) -> Reply:
    call.caller.check("admin", call.name)
    body = await call.body()
    request = build(requests.Check, {} if body is None else body)
    return Reply(encode(await call.service.check(call.caller, call.name, request)), 202)


async def _compact(call: Call) -> Reply:
    return Reply(encode(await call.service.compact(call.caller, call.name)), 202)


async def _optimize(call: Call) -> Reply:
    return Reply(encode(await call.service.optimize(call.caller, call.name)), 202)


async def _job(call: Call) -> Reply:
    return Reply(encode(call.service.jobs.get(call.caller, call.path("job"))))


async def _jobs(call: Call) -> Reply:
    return Reply(encode({"jobs": call.service.jobs.all(call.caller)}))


# --- one record -----------------------------------------------------------------------------------------------

_RECORD = f"{_COLLECTION}/records/{{id:path}}"


def id_of(text: str, id_type: str) -> Id:
    """The id in a path: an int if it is all digits, perhaps behind a minus; with `id_type=str` always a str."""
    if id_type not in ("auto", "str"):
        raise InvalidInputError(f"expected id_type to be auto or str, got {id_type!r:.80}")
    if id_type == "auto" and _DIGITS.fullmatch(text):
        # More digits than an id can have stay too many: Python is not made to read them all.
        return int(text[:32])
    return text


async def _get_record(call: Call) -> Reply:
    options = call.options("id_type", "include", "vector_format", "at")
    key = id_of(call.path("id"), options.get("id_type", "auto"))
    include = options.get("include", "metadata,vector,text")
    request = requests.GetRecords(
        [key],
        tuple(part for part in include.split(",") if part),  # type: ignore[misc]  # the library checks the names
        options.get("vector_format", "list"),  # type: ignore[arg-type]
        options.get("at"),
    )
    found = await call.service.call(call.caller, "get", call.name, request)
    if found.records[0] is None:
        raise RecordNotFoundError(f"expected a record with id {key!r}, found none")
    return Reply(encode(found)[len(b'{"records":[') : -2])


async def _delete_record(call: Call) -> Reply:
    key = id_of(call.path("id"), call.options("id_type").get("id_type", "auto"))
    found = await call.service.call(call.caller, "delete", call.name, requests.DeleteRecords([key]))
    return Reply(encode({"deleted": bool(found.count)}))


async def _scan_all(call: Call) -> Stream:
    call.caller.check("read", call.name)
    request = build(requests.ScanAll, await call.body())
    return Stream(scan_lines(call.service, call.caller, call.name, request, call.receive, call.request_id))


# --- the health of the server ---------------------------------------------------------------------------------


async def _healthz(call: Call) -> Reply:
    return Reply(b'{"status":"ok"}')


async def _readyz(call: Call) -> Reply:
    """Ready to write: there is room on the disk, and no collection has lost its ability to write."""
    reasons = await call.service.troubles()
    # Whoever asks has no key: names of collections are for those who have one.
    return Reply(encode({"status": "not ready" if reasons else "ready", "reasons": reasons}), 503 if reasons else 200)


async def _metrics(call: Call) -> Reply:
    call.caller.check("read", None)
    return Reply(await call.service.in_thread("slow", call.service.metrics.text), media_type=CONTENT_TYPE)


ROUTES: tuple[Route, ...] = (
    # The router tries them in order, so the one that is used most stands first.
    _operation("POST", "/query", "query"),
    _operation("POST", "/records/get", "get"),
    _operation("POST", "/records/delete", "delete"),
    Route("POST", f"{_COLLECTION}/records", _write, _WRITE, "write", requests.WriteRecords, OPTIONS),
    _operation("PATCH", "/records", "update"),
    Route(
        "GET", _RECORD, _get_record, "One whole record.", "read", None, ("id_type", "include", "vector_format", "at")
    ),
    Route("DELETE", _RECORD, _delete_record, "Delete one record.", "write", None, ("id_type",)),
    _operation("POST", "/batch", "batch"),
    _operation("POST", "/ids", "reserve_ids"),
    _operation("POST", "/scan", "scan"),
    Route(
        "POST",
        "/v1/collections/{name}/scan/stream",
        _scan_all,
        "All records of one state, one JSON document a line; an error while they are sent is the last line.",
        "read",
        requests.ScanAll,
    ),
    _operation("POST", "/count", "count"),
    _operation("POST", "/facet", "facet"),
    _operation("POST", "/explain", "explain"),
    _operation("POST", "/measure_recall", "measure_recall"),
    _operation("POST", "/sample", "sample"),
    _operation("POST", "/embed", "embed"),
    _operation("GET", "/stats", "stats"),
    _operation("POST", "/indexes", "create_index"),  # for names that cannot stand in a path
    _operation("POST", "/indexes/drop", "drop_index"),
    _operation("PUT", "/indexes/{field}", "create_index", from_path="field"),
    _operation("DELETE", "/indexes/{field}", "drop_index", from_path="field"),
    _operation("GET", "/snapshots", "snapshots"),
    _operation("POST", "/snapshots", "create_snapshot"),
    _operation("GET", "/snapshots/{snapshot}", "snapshot", from_path="snapshot"),
    _operation("PUT", "/snapshots/{snapshot}", "create_snapshot", from_path="snapshot"),
    _operation("DELETE", "/snapshots/{snapshot}", "drop_snapshot", from_path="snapshot"),
    _operation("POST", "/snapshots/{snapshot}/rollback", "rollback", from_path="snapshot"),
    _operation("POST", "/undo", "undo"),
    _operation("POST", "/save", "save"),
    Route("GET", "/v1/collections", _list, "Names of the collections that the key may use.", "read"),
    Route("PUT", _COLLECTION, _create, "Make a collection.", "admin", requests.CreateCollection),
    Route("GET", _COLLECTION, _describe, "A collection and its settings.", "read"),
    Route("DELETE", _COLLECTION, _drop, "Delete a collection with all its records.", "admin"),
    Route("POST", f"{_COLLECTION}/backup", _backup, "Begin a backup.", "admin", requests.Backup, status=202),
    Route("GET", f"{_COLLECTION}/backups", _backups, "Names and sizes of the backups.", "admin"),
    Route("DELETE", f"{_COLLECTION}/backups/{{backup}}", _drop_backup, "Delete a backup.", "admin"),
    Route(
        "POST",
        f"{_COLLECTION}/restore",
        _restore,
        "Begin to make a collection of backups.",
        "admin",
        requests.Restore,
        status=202,
    ),
    Route("POST", f"{_COLLECTION}/import", begin_import, _IMPORT, "write", None, OPTIONS, status=202),
    Route("POST", f"{_COLLECTION}/check", _check, "Begin a check.", "admin", requests.Check, status=202),
    Route("POST", f"{_COLLECTION}/compact", _compact, "Begin a compaction.", "admin", status=202),
    Route("POST", f"{_COLLECTION}/optimize", _optimize, "Begin an optimization.", "admin", status=202),
    Route("GET", "/v1/jobs", _jobs, "The jobs that the key may see, the newest first.", "read"),
    Route("GET", "/v1/jobs/{job}", _job, "One job.", "read"),
    Route("GET", "/healthz", _healthz, "Whether the process answers.", "open"),
    Route("GET", "/readyz", _readyz, "Whether the server can write.", "open"),
    Route("GET", "/metrics", _metrics, "Numbers for Prometheus.", "read"),
)
