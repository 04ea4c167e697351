"""Queries that wait at the same time and ask alike are answered by one call of the library.

Nobody waits for company: a query that finds a free worker is begun at once. Those that come while all workers are
busy are taken together, which costs one hop to a thread and one pass of the Python code for all of them. Answers are
the same either way, since distances do not depend on how many are asked at once. Each call keeps to one thread:
OpenMP's would wait for each other, and take the cores that other calls use.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nopokedb import NoPokeDB
from nopokedb.database import engine_of
from nopokedb.engine import Query
from nopokedb.server.results import Answer

MAX_TOGETHER = 32
"""Queries of one call. More would make each wait for all the others, and gain nothing."""


@dataclass(slots=True)
class _Waiting:
    db: NoPokeDB
    query: Query
    answer: asyncio.Future[Answer]
    leave: Callable[[], None]
    """Gives the collection back, once the call is over, whoever still waits for it."""


class Coalescing:
    """Asks collections, from the event loop."""

    def __init__(self, pool: Executor, workers: int) -> None:
        self._pool = pool
        self._free = workers
        self._due = False
        self._waiting: dict[Hashable, deque[_Waiting]] = {}
        """By what makes them alike; the first key has waited longest."""

    def ask(self, db: NoPokeDB, query: Query, leave: Callable[[], None]) -> asyncio.Future[Answer]:
        """The answer to a plain query of one vector."""
        loop = asyncio.get_running_loop()
        item = _Waiting(db, query, loop.create_future(), leave)
        key = (id(db), query.k, query.ef, query.recall, query.include, query.max_distance, query.where)
        queue = self._waiting.get(key)
        if queue is None:
            queue = self._waiting[key] = deque()
        queue.append(item)
        if self._free and not self._due:
            # After the requests that the event loop has read already: they may ask alike.
            self._due = True
            loop.call_soon(self._begin_all, loop)
        return item.answer

    def _begin_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep the workers busy."""
        self._due = False
        while self._free and self._waiting:
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the queries that have waited longest to a worker."""
        key, queue = next(iter(self._waiting.items()))
        # What waits is shared among the workers that are free.
        together = [queue.popleft() for _ in range(min(-(-len(queue) // self._free), MAX_TOGETHER))]
        del self._waiting[key]
        if queue:
            self._waiting[key] = queue  # behind the others
        self._free -= 1
        loop.run_in_executor(self._pool, _answer, together).add_done_callback(
            lambda done: self._end(loop, together, done)
        )

    def _end(self, loop: asyncio.AbstractEventLoop, together: list[_Waiting], done: asyncio.Future[list[Any]]) -> None:
        self._free += 1
        self._begin_all(loop)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        found = [error] * len(together) if error is not None else done.result()
        for item, answer in zip(together, found, strict=True):
            item.leave()
            if item.answer.done():
                continue  # nobody waits for it any more
            if isinstance(answer, BaseException):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)


def _answer(together: list[_Waiting]) -> list[Any]:
    """For each query its answer, or the error that it met; one that fails does not take the others along."""
    first = together[0]
    engine = engine_of(first.db)
    if len(together) == 1:
        return [engine.query(first.query)[0]]
    vectors = np.concatenate([item.query.vectors for item in together if item.query.vectors is not None])
    try:
        return list(engine.query(replace(first.query, vectors=vectors, all_cores=False)))
    except Exception:  # noqa: BLE001 - each is asked again by itself, and gets its own error
        return [_alone(item) for item in together]


def _alone(item: _Waiting) -> Any:
    try:
        return engine_of(item.db).query(item.query)[0]
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        return error
