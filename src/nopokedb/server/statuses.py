"""The one table from what happened to what is answered: HTTP status and gRPC code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, NamedTuple

import apsw

from nopokedb import errors
from nopokedb.server import refusals


class Status(NamedTuple):
    """How an error is answered."""

    http: int
    grpc: str
    """Name of the code in `grpc.StatusCode`."""


STATUSES: tuple[tuple[type[BaseException], Status], ...] = (
    # The first class that fits counts, so the more particular ones stand first.
    (refusals.MalformedRequestError, Status(400, "INVALID_ARGUMENT")),
    (refusals.UnauthorizedError, Status(401, "UNAUTHENTICATED")),
    (refusals.ForbiddenError, Status(403, "PERMISSION_DENIED")),
    (refusals.NoSuchThingError, Status(404, "NOT_FOUND")),
    (refusals.MethodError, Status(405, "UNIMPLEMENTED")),
    (refusals.MediaTypeError, Status(415, "INVALID_ARGUMENT")),
    (refusals.ConflictError, Status(409, "ALREADY_EXISTS")),
    (refusals.TooLargeError, Status(413, "RESOURCE_EXHAUSTED")),
    (refusals.TooManyRequestsError, Status(429, "RESOURCE_EXHAUSTED")),
    (refusals.TimeLimitError, Status(503, "DEADLINE_EXCEEDED")),
    (refusals.StoppingError, Status(503, "UNAVAILABLE")),
    (refusals.UnsupportedError, Status(501, "UNIMPLEMENTED")),
    (refusals.DiskFullError, Status(507, "RESOURCE_EXHAUSTED")),
    (errors.BatchTooLargeError, Status(413, "RESOURCE_EXHAUSTED")),
    (errors.SettingsMismatchError, Status(409, "FAILED_PRECONDITION")),
    (errors.InvalidInputError, Status(422, "INVALID_ARGUMENT")),
    (errors.ArchiveError, Status(422, "INVALID_ARGUMENT")),
    (errors.DuplicateIdError, Status(409, "ALREADY_EXISTS")),
    (errors.RecordNotFoundError, Status(404, "NOT_FOUND")),
    (errors.CollectionNotFoundError, Status(404, "NOT_FOUND")),
    (errors.SnapshotNotFoundError, Status(404, "NOT_FOUND")),
    (errors.NothingToUndoError, Status(409, "FAILED_PRECONDITION")),
    (errors.NotADatabaseError, Status(409, "FAILED_PRECONDITION")),
    (errors.ReadOnlyError, Status(403, "PERMISSION_DENIED")),
    (errors.DatabaseLockedError, Status(503, "UNAVAILABLE")),
    (errors.NeedsRecoveryError, Status(503, "UNAVAILABLE")),
    (errors.OutcomeUnknownError, Status(500, "UNKNOWN")),
    (errors.NeedsReopenError, Status(503, "UNAVAILABLE")),
    (errors.ClosedError, Status(503, "UNAVAILABLE")),
    (errors.CorruptionError, Status(500, "DATA_LOSS")),
    (ImportError, Status(501, "UNIMPLEMENTED")),  # an extra that this server does not have; the message names it
    (NotImplementedError, Status(501, "UNIMPLEMENTED")),
    (MemoryError, Status(503, "RESOURCE_EXHAUSTED")),
)
DISK_FULL = Status(507, "RESOURCE_EXHAUSTED")
DEFECT = Status(500, "INTERNAL")

_FULL = (errno.ENOSPC, errno.EDQUOT)


def status_of(error: BaseException) -> Status:
    """How the error is answered. What the table does not have is a defect of the server."""
    if is_disk_full(error):
        return DISK_FULL
    return next((status for kind, status in STATUSES if isinstance(error, kind)), DEFECT)


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk is behind the error. SQLite tells of it in its own way."""
    return any(
        isinstance(item, refusals.DiskFullError | apsw.FullError) or (isinstance(item, OSError) and item.errno in _FULL)
        for item in _chain(error)
    )


def is_expected(error: BaseException) -> bool:
    """Whether the error's own message is for the caller; else it is a defect, and told to the log only."""
    return status_of(error) is not DEFECT


def describe(error: BaseException, request_id: str, root: str) -> dict[str, Any]:
    """The body of an answer: what was expected, what came, what to do. Paths are told as below the root."""
    kind, message = type(error).__name__, str(error).replace(root.rstrip("/") + "/", "")
    if not is_expected(error):
        kind, message = "InternalError", "expected an answer, got a defect of the server; its log has the request id"
    elif not isinstance(error, errors.NoPokeError):
        kind = "DiskFullError" if is_disk_full(error) else "UnsupportedError"
    found: dict[str, Any] = {"type": kind, "message": message, "request_id": request_id}
    if committed := getattr(error, "committed", ()):
        found["committed"] = list(committed)
    return {"error": found}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
