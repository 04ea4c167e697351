"""Work that takes longer than a request: it is begun, and asked about by its id.

Jobs live in memory. Those that end with the process have left nothing half-done: a backup is whole or absent, and so is
each batch of an import.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from nopokedb.server.access import Caller
from nopokedb.server.refusals import NoSuchThingError, StoppingError, TooManyRequestsError
from nopokedb.server.statuses import describe, is_expected

_log = logging.getLogger("nopokedb.server")

MAX_WAITING = 100
_KEPT = 1_000

State: TypeAlias = Literal["waiting", "running", "done", "failed"]


@dataclass(slots=True)
class Job:
    """One piece of work on one collection."""

    id: str
    kind: str
    collection: str
    state: State
    created_at: str
    ended_at: str | None = None
    progress: float | None = None
    """Share that is done, 0 to 1, where it is known."""
    result: Any = None
    error: dict[str, Any] | None = None
    """As in the body of a failed request."""


class Jobs:
    """The jobs of a server: those that wait, run, and the last that ended."""

    def __init__(self, threads: int, root: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nopokedb-job")
        self._root = root
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, kind: str, collection: str, work: Callable[[Job], Any]) -> Job:
        """Begin a job as soon as a thread is free. `work` gets the job, to tell how far it is."""
        job = Job(secrets.token_hex(8), kind, collection, "waiting", _now())
        with self._lock:
            if self._closed:
                raise StoppingError("expected a running server, but it is being stopped; come back later")
            if sum(item.state == "waiting" for item in self._jobs.values()) >= MAX_WAITING:
                raise TooManyRequestsError(f"expected at most {MAX_WAITING} jobs to wait; come back later")
            ended = [id_ for id_, item in self._jobs.items() if item.ended_at is not None]
            for id_ in ended[: max(0, len(self._jobs) - _KEPT)]:
                del self._jobs[id_]
            self._jobs[job.id] = job
        self._pool.submit(self._run, job, work)
        return job

    def _run(self, job: Job, work: Callable[[Job], Any]) -> None:
        job.state = "running"
        try:
            result = work(job)
        except Exception as error:  # noqa: BLE001 - it is the answer to whoever asks about the job
            if not is_expected(error):
                _log.exception("a job failed", extra={"job": job.id})
            job.error = describe(error, job.id, self._root)["error"]
            job.ended_at, job.state = _now(), "failed"
        else:
            job.result, job.progress = result, 1.0
            job.ended_at, job.state = _now(), "done"

    def pending(self, kind: str) -> bool:
        """Whether a job of this kind waits or runs."""
        with self._lock:
            return any(job.kind == kind and job.ended_at is None for job in self._jobs.values())

    def get(self, caller: Caller, id_: str) -> Job:
        """The job, if the caller may see its collection."""
        job = self._jobs.get(id_)
        if job is None or not caller.sees(job.collection):
            raise NoSuchThingError(
                f"expected the id of a job, got {id_!r:.80}; jobs are forgotten when the server stops"
            )
        return job

    def all(self, caller: Caller) -> list[Job]:
        """The jobs that the caller may see, the newest first."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [job for job in reversed(jobs) if caller.sees(job.collection)]

    def close(self) -> None:
        """Wait for what runs; forget what has not begun."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
