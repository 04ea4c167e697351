"""A scan as a stream: one state of a collection, page by page, for as long as somebody takes the pages."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nopokedb.records import Record
from nopokedb.server import reading, requests
from nopokedb.server.access import Caller
from nopokedb.server.collections import Collections
from nopokedb.server.limits import check_request

if TYPE_CHECKING:
    from nopokedb.server.service import Service

PAGE = 256
"""Records of one page: few enough for a thread to be free again soon."""


async def scan_pages(
    service: Service, caller: Caller, collection: str, request: requests.ScanAll
) -> AsyncGenerator[list[Record]]:
    """Pages of records. The first is empty: the state has been taken when it comes."""
    caller.check("read", collection)
    check_request(requests.Count(request.where), service.limits)
    reading.is_packed(request.vector_format)
    scan = _OpenScan(service.collections, collection, request)
    try:
        await service.in_thread("read", scan.begin)
        yield []
        while page := await service.in_thread("read", scan.page):
            yield page
    finally:
        # In a thread of its own kind of work: a page may be under way, which has the lock.
        service.run_later(scan.close)


class _OpenScan:
    """The iterator of a scan and the collection that it holds open. Its calls come from several threads, and `close`
    may come while another one runs."""

    def __init__(self, collections: Collections, name: str, request: requests.ScanAll) -> None:
        self._collections = collections
        self._name = name
        self._request = request
        self._lock = threading.Lock()
        self._held = ExitStack()
        self._closed = False
        self._records: Iterator[Record] = iter(())

    def begin(self) -> None:
        """Take the state."""
        with self._lock:
            if not self._closed:
                db = self._held.enter_context(self._collections.using(self._name))
                self._records = reading.scan_all(db, self._request)

    def page(self) -> list[Record]:
        """The next records, none at the end."""
        with self._lock:
            return list(itertools.islice(self._records, PAGE))

    def close(self) -> None:
        """Let go of the state and of the collection."""
        with self._lock:
            self._closed = True
            self._records = iter(())
            self._held.close()
