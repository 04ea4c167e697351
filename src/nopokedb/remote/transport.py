"""What a transport must do: the one thing that REST and gRPC differ in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from nopokedb.records import Record
from nopokedb.server import requests


class Transport(Protocol):
    """Requests to one server. Any number of threads may use it."""

    def call(self, operation: str, collection: str, request: Any, timeout_s: float) -> Any:
        """Ask one operation, once; what it answers, as a type of server/results.py or of the library.

        Raises what the server raised, `NotBegunError` if it cannot be reached, and `AnswerLostError` if the connection
        or the time ended first.
        """
        ...

    def scan(self, collection: str, request: requests.ScanAll, timeout_s: float) -> Iterator[Record]:
        """The records of one state, as they arrive. The server has taken the state when this returns; closing the
        iterator ends the scan."""
        ...

    def close(self) -> None: ...
