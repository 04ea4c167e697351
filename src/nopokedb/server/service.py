"""The service layer: where every transport meets the library.

A transport knows who calls, takes a request apart, and calls `Service.call(caller, operation, collection, request)`.
What happens there is the same for all: rights, limits, the open collection, a thread to work in, and time. Errors come
out as exceptions; `statuses.py` says how they are answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nopokedb import NoPokeDB, restore
from nopokedb.errors import InvalidInputError
from nopokedb.opening import check_name
from nopokedb.server import keeping, reading, requests
from nopokedb.server.access import Caller, Role
from nopokedb.server.coalescing import Coalescing
from nopokedb.server.collections import Collections
from nopokedb.server.jobs import Job, Jobs
from nopokedb.server.keys import Keys
from nopokedb.server.limits import check_request
from nopokedb.server.metrics import Metrics
from nopokedb.server.operations import OPERATIONS, Operation
from nopokedb.server.refusals import ConflictError, StoppingError, TimeLimitError, TooManyRequestsError
from nopokedb.server.results import Answers, Collection, Created, Done
from nopokedb.server.settings import ServerSettings
from nopokedb.server.tracing import NoTracing, Spans, Tracing
from nopokedb.server.uploads import PART_BYTES, Spool, Upload, clear, write_file
from nopokedb.server.vectors import unpack
from nopokedb.transfer.formats import Format

_log = logging.getLogger("nopokedb.server")
T = TypeVar("T")
_WRITE_THREADS = 32
"""Writers wait for the disk together: the more there are, the more share one sync."""
_SLOW_THREADS = 4


class Service:
    """One folder of collections, for any number of transports on one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.limits = settings.limits
        settings.root.mkdir(parents=True, exist_ok=True)
        clear(settings.upload_folder, self.limits.upload_timeout_s)
        self.collections = Collections(
            settings.root,
            max_memory=settings.max_memory,
            max_open=settings.max_open,
            models=settings.models,
            min_free=settings.min_free_bytes,
        )
        self._pools = {
            "read": ThreadPoolExecutor(settings.threads, thread_name_prefix="nopokedb-read"),
            "write": ThreadPoolExecutor(_WRITE_THREADS, thread_name_prefix="nopokedb-write"),
            "slow": ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix="nopokedb-slow"),
        }
        self.metrics = Metrics(self.collections)
        self.tracing: Tracing = Spans() if settings.opentelemetry else NoTracing()
        self.jobs = Jobs(settings.job_threads, str(settings.root))
        self.keys = Keys(settings.keys, settings.api_key)
        self._coalescing = Coalescing(self._pools["read"], max(2, os.cpu_count() or 1))
        self.active = 0
        """Requests at work or waiting."""
        self.stopping = False

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request, from before its body is read until it is answered; refuse it if there are too many."""
        if self.stopping:
            raise StoppingError("expected a running server, but it is being stopped; come back later")
        if self.active >= self.limits.max_concurrent:
            raise TooManyRequestsError(
                f"expected at most {self.limits.max_concurrent} requests at once (max_concurrent of this server); "
                "come back later"
            )
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    async def call(self, caller: Caller, operation: str, collection: str, request: Any) -> Any:
        """Do an operation on a collection; its result (results.py, or a type of the library)."""
        wanted = OPERATIONS[operation]
        caller.check(wanted.role, collection)
        check_request(request, self.limits)
        if operation == "query" and (answers := await self._query_at_once(collection, request)) is not None:
            return answers
        return await self.in_thread(wanted.pool, lambda: self._run(wanted, collection, request))

    async def on_collection(self, pool: str, name: str, work: Callable[[NoPokeDB], T]) -> T:
        """Write to a collection in a thread, however long it takes: for parts of uploads, which have a time of their
        own. The caller's rights are known to be enough."""

        def run() -> T:
            with self.collections.using(name, writing=True) as db:
                return work(db)

        return await asyncio.get_running_loop().run_in_executor(self._pools[pool], run)

    async def in_thread(self, pool: str, work: Callable[[], T]) -> T:
        """Run in a thread, within the time limit. What was begun is not cut off when the time is over."""
        loop = asyncio.get_running_loop()
        return await self.within_time(loop.run_in_executor(self._pools[pool], work))

    async def within_time(self, answer: asyncio.Future[T]) -> T:
        """Wait for an answer as long as a request may take."""
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await answer
        except TimeoutError:
            raise TimeLimitError(
                f"expected an answer within {self.limits.timeout_s:g} s (timeout_s of this server), got none; "
                "if this was a write, it may have taken place"
            ) from None

    def run_later(self, work: Callable[[], object]) -> None:
        """Run in a thread that nobody waits for."""
        self._pools["slow"].submit(work)

    def _run(self, operation: Operation, collection: str, request: Any) -> Any:
        with self.collections.using(collection, writing=operation.writing) as db:
            return operation.run(db, request)

    async def _query_at_once(self, collection: str, request: requests.Query) -> Answers | None:
        """The short way for the common query: one vector, and nothing but a filter beside it. It is checked here, in
        the event loop, and answered together with others that wait. None: the query is of another kind, or the
        collection is not open yet."""
        if request.vectors is not None or request.at is not None or request.text is not None:
            return None
        vector = unpack(request.vector)
        if vector is None or vector.__class__ is str:
            return None
        entered = self.collections.try_enter(collection)
        if entered is None:
            return None
        slot, db = entered
        try:
            packed = reading.is_packed(request.vector_format)
            query = reading.question(db, vector, request)
        except BaseException:
            self.collections.leave(slot)
            raise
        if not query.plain:
            self.collections.leave(slot)
            return None
        answer = self._coalescing.ask(db, query, lambda: self.collections.leave(slot))
        return Answers([await self.within_time(answer)], False, False, packed)

    # --- collections -----------------------------------------------------------------------------------------

    async def list_collections(self, caller: Caller) -> list[str]:
        """Names of the collections that the caller may use."""
        names = await self.in_thread("read", self.collections.names)
        return [name for name in names if caller.sees(name)]

    async def create(self, caller: Caller, name: str, request: requests.CreateCollection) -> Created:
        """Make a collection, or find that it is there with these settings."""
        caller.check("admin", name)

        def work() -> Created:
            created = self.collections.create(name, request)
            with self.collections.using(name) as db:
                return Created(name, db.dim, db.space, created)

        return await self.in_thread("slow", work)

    async def describe(self, caller: Caller, name: str) -> Collection:
        """What a collection is."""
        caller.check("read", name)

        def work() -> Collection:
            with self.collections.using(name) as db:
                return reading.describe(db, name)

        return await self.in_thread("read", work)

    async def drop(self, caller: Caller, name: str) -> Done:
        """Delete a collection with all its records."""
        caller.check("admin", name)
        await self.in_thread("slow", lambda: self.collections.drop(name))
        return Done(True)

    # --- jobs ------------------------------------------------------------------------------------------------

    async def backup(self, caller: Caller, name: str, request: requests.Backup) -> Job:
        """Begin a backup."""
        folder = self.settings.backup_folder

        def prepare() -> None:
            with self.collections.using(name):
                keeping.check_backup(folder, name, request)

        return await self.begin(
            caller, "admin", "backup", name, prepare, lambda db, _: keeping.backup(db, folder, name, request)
        )

    async def backups(self, caller: Caller, name: str) -> list[dict[str, Any]]:
        """The backups of a collection, which may be gone by now."""
        caller.check("admin", name)
        return await self.in_thread("slow", lambda: keeping.backups(self.settings.backup_folder, name))

    async def drop_backup(self, caller: Caller, name: str, request: requests.Name) -> Done:
        """Delete a backup of a collection, which may be gone by now. Not while one is restored: its files are read more
        than once, and another of the same name may come."""
        caller.check("admin", name)
        if self.jobs.pending("restore"):
            raise ConflictError("expected no restore to wait or run while a backup is deleted; come back later")
        return await self.in_thread("slow", lambda: keeping.drop_backup(self.settings.backup_folder, name, request))

    async def restore(self, caller: Caller, name: str, request: requests.Restore) -> Job:
        """Begin to make a collection of backups, which may be of another one."""
        caller.check("admin", name)
        source = name if request.backup_of is None else check_name(request.backup_of)
        caller.check("admin", source)

        def begin() -> Job:
            files = keeping.backup_files(self.settings.backup_folder, source, request.backups)
            with self.collections.reserved(name):  # there is no such collection
                pass
            return self.jobs.submit("restore", name, lambda _: {"count": restore_files(files)})

        def restore_files(files: list[Path]) -> int:
            with self.collections.reserved(name) as folder:
                return restore(files, folder)

        return await self.in_thread("slow", begin)

    async def import_file(self, caller: Caller, name: str, spool: Spool, kind: Format, upload: Upload) -> Job:
        """Begin to write the records of a file, which is gone when the job ends or does not begin."""

        def work(db: NoPokeDB, job: Job) -> dict[str, int]:
            def advance(share: float | None) -> None:
                job.progress = share

            try:
                return {"count": write_file(db, spool.path, kind, upload, advance)}
            finally:
                spool.close()

        try:
            return await self.begin(caller, "write", "import", name, lambda: None, work)
        except BaseException:
            spool.close()
            raise

    async def spooled(self, pieces: AsyncIterator[bytes]) -> Spool:
        """What comes in, as a file. Threads write it, in parts of a size that is worth one."""
        spool = await self.in_thread("slow", lambda: Spool(self.settings.upload_folder))
        try:
            part = bytearray()
            async for piece in pieces:
                part += piece
                if len(part) >= PART_BYTES:
                    whole = bytes(part)
                    await self.in_thread("slow", lambda: spool.write(whole))  # noqa: B023 - awaited at once
                    part.clear()
            await self.in_thread("slow", lambda: spool.finish(bytes(part)))
        except BaseException:
            spool.close()
            raise
        return spool

    async def check(self, caller: Caller, name: str, request: requests.Check) -> Job:
        """Begin a check."""
        return await self.begin(caller, "admin", "check", name, lambda: None, lambda db, _: keeping.check(db, request))

    async def compact(self, caller: Caller, name: str) -> Job:
        """Begin a compaction."""
        return await self.begin(caller, "admin", "compact", name, lambda: None, lambda db, _: keeping.compact(db))

    async def optimize(self, caller: Caller, name: str) -> Job:
        """Begin to put everything in order."""
        return await self.begin(caller, "admin", "optimize", name, lambda: None, keeping.optimize)

    async def begin(
        self,
        caller: Caller,
        role: Role,
        kind: str,
        name: str,
        prepare: Callable[[], None],
        work: Callable[[NoPokeDB, Job], Any],
    ) -> Job:
        """Check what can be checked at once, then begin a job on the collection."""
        caller.check(role, name)

        def run(job: Job) -> Any:
            with self.collections.using(name, writing=role == "write") as db:
                return work(db, job)

        def begin() -> Job:
            prepare()
            with self.collections.using(name):  # there is such a collection
                return self.jobs.submit(kind, name, run)

        return await self.in_thread("slow", begin)

    # --- the server itself -----------------------------------------------------------------------------------

    def reload_keys(self) -> None:
        """Read the keys file again."""
        try:
            count = self.keys.reload()
        except (InvalidInputError, OSError) as error:
            _log.error("the keys stay as they are: %s", error, extra={"event": "keys_not_reloaded"})
        else:
            _log.info("%d keys", count, extra={"event": "keys_reloaded"})

    async def troubles(self) -> list[str]:
        """Why this server cannot write everything; empty if it can."""

        def look() -> list[str]:
            found = []
            if self.stopping:
                found.append("the server is being stopped")
            if self.collections.disk_full or not self.collections.has_room:
                found.append("the disk is full")
            if failed := self.collections.failures():
                found.append(f"collections that cannot be written: {len(failed)}")
            return found

        return await asyncio.get_running_loop().run_in_executor(self._pools["slow"], look)

    async def keep(self) -> None:
        """Open again what a failed write has closed, and close idle collections where memory is short."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pools["slow"], self.collections.mend)
        await loop.run_in_executor(self._pools["slow"], self.collections.make_room)

    # --- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for what the threads do, then close every collection with a checkpoint."""
        self.stopping = True
        self.jobs.close()
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self.collections.close()
        self.tracing.close()
