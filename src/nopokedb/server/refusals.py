"""What a server refuses on its own account, before or instead of asking the library."""

from __future__ import annotations

from nopokedb.errors import InvalidInputError, NoPokeError


class Refusal(NoPokeError):
    """Root of the refusals."""

    retry_after_s: float | None = None
    """When to come back."""


class MalformedRequestError(Refusal, ValueError):
    """The body is not JSON, or not what its content type says."""


class UnauthorizedError(Refusal, PermissionError):
    """No key, or one that is not valid."""


class ForbiddenError(Refusal, PermissionError):
    """The key does not allow this, or the request comes from a foreign page."""


class NoSuchThingError(Refusal, LookupError):
    """Nothing has this address: no such route, job or backup."""


class MethodError(Refusal):
    """The address is there, but not for this method."""


class MediaTypeError(Refusal):
    """A content type or encoding that the address does not take."""


class ConflictError(Refusal):
    """What is to be made exists already."""


class TooLargeError(Refusal):
    """The body is over its limit."""


class LimitError(InvalidInputError):
    """k, a batch or a filter is over the server's limit; the library itself would have taken it."""


class TooManyRequestsError(Refusal):
    """So many requests are at work that this one was not begun."""

    retry_after_s = 1.0


class TimeLimitError(Refusal, TimeoutError):
    """The request took longer than the server's time limit. A write may have taken place."""


class StoppingError(Refusal):
    """The server is being stopped; nothing was begun."""

    retry_after_s = 5.0


class UnsupportedError(Refusal, NotImplementedError):
    """This server lacks what is asked for."""


class DiskFullError(Refusal, OSError):
    """The disk is full. Reads go on."""
