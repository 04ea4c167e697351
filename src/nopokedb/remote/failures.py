"""What can go wrong between a client and its server, and what may be tried again.

A request that surely was not begun is sent again, whatever it was. One whose answer was lost is sent again only if it
reads, or does the same when done twice: a write may have taken place, which its error says.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nopokedb import errors
from nopokedb.errors import NoPokeError, OutcomeUnknownError, QueryTimeoutError, UnavailableError
from nopokedb.server import refusals

T = TypeVar("T")

_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts; the last one repeats. Each is stretched by chance, so that clients do not come at once."""
REPEATABLE = frozenset(
    {
        *("query", "explain", "get", "scan", "count", "facet", "measure_recall", "stats", "sample", "embed"),
        *("snapshots", "snapshot", "describe", "list", "job", "jobs", "backups"),
        *("create", "create_index", "save"),  # done twice, they leave what they leave when done once
    }
)
"""Operations that may be sent again when their answer was lost."""


class NotBegunError(UnavailableError):
    """The server cannot be reached: it has not seen the request."""


class AnswerLostError(UnavailableError):
    """The request was sent, and the connection or the time ended before there was an answer."""


class TimeOverError(AnswerLostError):
    """The time of the call ended before there was an answer."""


_NOT_BEGUN = (NotBegunError, refusals.TooManyRequestsError, refusals.StoppingError)


def attempted(operation: str, timeout_s: float, call: Callable[[float], T]) -> T:
    """What the call gives, tried again where that is safe and while there is time; it is told the seconds left."""
    deadline = time.monotonic() + timeout_s
    for attempt in range(1_000_000):
        try:
            return call(max(0.001, deadline - time.monotonic()))
        except UnavailableError as error:
            repeatable = operation in REPEATABLE
            if isinstance(error, AnswerLostError) and not repeatable:
                raise OutcomeUnknownError(
                    f"{error}; it was a write, which is whole or absent: read before writing again"
                ) from error
            if isinstance(error, TimeOverError):
                raise QueryTimeoutError(str(error)) from error
            _pause(attempt, deadline, error)
        except _NOT_BEGUN as error:
            _pause(attempt, deadline, error)
    raise AssertionError("the deadline ends the attempts")


def _pause(attempt: int, deadline: float, error: BaseException) -> None:
    """Wait before the next attempt; raise the error if there is no time for one."""
    seconds = _PAUSES[min(attempt, len(_PAUSES) - 1)] * random.uniform(1.0, 1.5)
    if time.monotonic() + seconds >= deadline:
        raise error
    time.sleep(seconds)


def error_of(document: Any) -> NoPokeError:
    """The exception that an error of the server was: the same class, with the same words."""
    found = document if isinstance(document, dict) else {}
    kind, message = str(found.get("type", "")), str(found.get("message", "an answer that is none of this server's"))
    error = _class_of(kind)(message)
    error.committed = tuple(found.get("committed", ()))
    if request_id := found.get("request_id"):
        error.add_note(f"request {request_id} of the server")
    return error


def _class_of(name: str) -> Callable[[str], NoPokeError]:
    for module in (errors, refusals):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, NoPokeError):
            return found
    return NoPokeError
