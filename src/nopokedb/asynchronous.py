"""`AsyncNoPokeDB`: the methods of `NoPokeDB`, awaitable. Each runs in a thread, so the event loop never waits for a
disk; the native searches release the interpreter lock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from nopokedb.backups import Backup
from nopokedb.batch import Batch
from nopokedb.database import NoPokeDB
from nopokedb.embedding.embedder import Model
from nopokedb.engine import NamedSnapshot, Stats
from nopokedb.errors import NoPokeError
from nopokedb.filters import Scalar
from nopokedb.insight.outliers import Outlier
from nopokedb.insight.projection import Projection
from nopokedb.plan import Plan
from nopokedb.problems import Problem
from nopokedb.reading import MISSING
from nopokedb.recall import Recall
from nopokedb.records import Id, Part, Record
from nopokedb.views import View
from nopokedb.where import Where

P = ParamSpec("P")
T = TypeVar("T")
_PAGE = 256


class AsyncNoPokeDB:
    """Takes the arguments of `NoPokeDB` and opens the folder at the first await (`async with`, `open()` or any
    method), where its errors are raised too.

    async with AsyncNoPokeDB(dim=384, path="./data") as db:
        await db.add(vector, {"title": "a record"})
        hits = await db.query(vector, k=5)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arguments = (args, kwargs)
        self._database: NoPokeDB | None = None
        self._opening: asyncio.Task[NoPokeDB] | None = None

    async def open(self) -> NoPokeDB:
        """Open the folder if that has not happened yet; the handle underneath."""
        if self._database is None:
            if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
                args, kwargs = self._arguments
                self._opening = asyncio.create_task(asyncio.to_thread(NoPokeDB, *args, **kwargs))
            # A caller that is cancelled leaves the opening to the others, and to `close`.
            self._database = await asyncio.shield(self._opening)
        return self._database

    async def _run(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        database = await self.open() if self._database is None else self._database
        return await asyncio.to_thread(method, database, *args, **kwargs)

    async def add(
        self,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        id: Id | None = None,
        text: str | None = None,
    ) -> Id:
        """See `NoPokeDB.add`."""
        return await self._run(NoPokeDB.add, vector, metadata, id=id, text=text)

    async def add_many(
        self, vectors: Any = None, metadatas: Iterable[Mapping[str, Any] | None] | None = None, **options: Any
    ) -> list[Id]:
        """See `NoPokeDB.add_many`."""
        return await self._run(NoPokeDB.add_many, vectors, metadatas, **options)

    async def upsert(
        self, id: Any = MISSING, vector: Any = None, metadata: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """See `NoPokeDB.upsert`."""
        await self._run(NoPokeDB.upsert, id, vector, metadata, **options)

    async def upsert_many(
        self,
        ids: Any,
        vectors: Any = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        **options: Any,
    ) -> None:
        """See `NoPokeDB.upsert_many`."""
        await self._run(NoPokeDB.upsert_many, ids, vectors, metadatas, **options)

    async def update_many(
        self,
        ids: Iterable[Id] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        where: Where = None,
        merge: bool = True,
    ) -> int:
        """See `NoPokeDB.update_many`."""
        return await self._run(NoPokeDB.update_many, ids, metadata, where=where, merge=merge)

    async def delete(self, id: Any = MISSING, *, vid: Any = MISSING) -> bool:
        """See `NoPokeDB.delete`."""
        return await self._run(NoPokeDB.delete, id, vid=vid)

    async def delete_many(self, ids: Iterable[Id] | None = None, *, where: Where = None) -> int:
        """See `NoPokeDB.delete_many`."""
        return await self._run(NoPokeDB.delete_many, ids, where=where)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """See `NoPokeDB.batch`. The batch's own methods only collect and are called without await."""
        database = await self.open() if self._database is None else self._database
        collecting = database.batch()
        batch = await asyncio.to_thread(collecting.__enter__)
        try:
            yield batch
        except BaseException as error:
            await asyncio.to_thread(collecting.__exit__, type(error), error, error.__traceback__)
            raise
        else:
            await asyncio.to_thread(collecting.__exit__, None, None, None)

    async def get(self, id: Any = MISSING, *, vid: Any = MISSING) -> dict[str, Any] | None:
        """See `NoPokeDB.get`."""
        return await self._run(NoPokeDB.get, id, vid=vid)

    async def get_many(self, ids: Iterable[Id], *, include: Sequence[Part] = ("metadata",)) -> list[Record | None]:
        """See `NoPokeDB.get_many`."""
        return await self._run(NoPokeDB.get_many, ids, include=include)

    async def count(self, where: Where = None) -> int:
        """See `NoPokeDB.count`."""
        return await self._run(NoPokeDB.count, where)

    async def facet(self, field: str, where: Where = None, *, limit: int = 100) -> list[tuple[Scalar, int]]:
        """See `NoPokeDB.facet`."""
        return await self._run(NoPokeDB.facet, field, where, limit=limit)

    async def create_index(self, field: str) -> None:
        """See `NoPokeDB.create_index`."""
        await self._run(NoPokeDB.create_index, field)

    async def drop_index(self, field: str) -> bool:
        """See `NoPokeDB.drop_index`."""
        return await self._run(NoPokeDB.drop_index, field)

    async def scan(
        self,
        where: Where = None,
        *,
        order_by: str | None = None,
        after: Id | str | None = None,
        limit: int | None = None,
        include: Sequence[Part] = ("metadata",),
    ) -> AsyncIterator[Record]:
        """See `NoPokeDB.scan`; used with `async for`."""
        records = await self._run(NoPokeDB.scan, where, order_by=order_by, after=after, limit=limit, include=include)
        while page := await asyncio.to_thread(lambda: list(itertools.islice(records, _PAGE))):
            for record in page:
                yield record

    async def query(self, vector: Any = None, k: int = 5, ef: int | None = None, **options: Any) -> Any:
        """See `NoPokeDB.query`."""
        return await self._run(NoPokeDB.query, vector, k, ef, **options)

    async def query_many(self, vectors: Any, k: int = 5, ef: int | None = None, **options: Any) -> list[Any]:
        """See `NoPokeDB.query_many`."""
        return await self._run(NoPokeDB.query_many, vectors, k, ef, **options)

    async def compact(self) -> int:
        """See `NoPokeDB.compact`."""
        return await self._run(NoPokeDB.compact)

    async def optimize(self, progress: bool = False) -> None:
        """See `NoPokeDB.optimize`."""
        await self._run(NoPokeDB.optimize, progress)

    async def explain(self, vector: Any = None, k: int = 5, ef: int | None = None, **options: Any) -> Plan:
        """See `NoPokeDB.explain`."""
        return await self._run(NoPokeDB.explain, vector, k, ef, **options)

    async def measure_recall(
        self, sample: int = 200, k: int = 10, *, where: Where = None, queries: Any = None
    ) -> Recall:
        """See `NoPokeDB.measure_recall`."""
        return await self._run(NoPokeDB.measure_recall, sample, k, where=where, queries=queries)

    async def reembed(
        self, embed: str | Model, *, progress: bool = False, snapshot: str | None = None
    ) -> NamedSnapshot:
        """See `NoPokeDB.reembed`."""
        return await self._run(NoPokeDB.reembed, embed, progress=progress, snapshot=snapshot)

    async def duplicates(
        self, threshold: float, *, where: Where = None, limit: int = 1000, target_recall: float = 1.0
    ) -> list[list[Id]]:
        """See `NoPokeDB.duplicates`."""
        return await self._run(NoPokeDB.duplicates, threshold, where=where, limit=limit, target_recall=target_recall)

    async def outliers(self, count: int = 10, *, k: int = 10, where: Where = None) -> list[Outlier]:
        """See `NoPokeDB.outliers`."""
        return await self._run(NoPokeDB.outliers, count, k=k, where=where)

    async def project(self, dims: int = 2, sample: int | None = None, where: Where = None) -> Projection:
        """See `NoPokeDB.project`."""
        return await self._run(NoPokeDB.project, dims, sample, where)

    async def plot(
        self, path: str | Path, *, color: str | None = None, sample: int | None = 5_000, where: Where = None
    ) -> Projection:
        """See `NoPokeDB.plot`."""
        return await self._run(NoPokeDB.plot, path, color=color, sample=sample, where=where)

    async def save(self) -> None:
        """See `NoPokeDB.save`."""
        await self._run(NoPokeDB.save)

    async def backup(self, target: str | Path, *, since: int | str | Path | None = None) -> Backup:
        """See `NoPokeDB.backup`."""
        return await self._run(NoPokeDB.backup, target, since=since)

    async def snapshot(self, name: str) -> NamedSnapshot:
        """See `NoPokeDB.snapshot`."""
        return await self._run(NoPokeDB.snapshot, name)

    async def snapshots(self) -> list[NamedSnapshot]:
        """See `NoPokeDB.snapshots`."""
        return await self._run(NoPokeDB.snapshots)

    async def at(self, name: str) -> View:
        """See `NoPokeDB.at`. The view's own methods are not awaitable: call them in a thread where that matters."""
        return await self._run(NoPokeDB.at, name)

    async def rollback(self, name: str) -> int:
        """See `NoPokeDB.rollback`."""
        return await self._run(NoPokeDB.rollback, name)

    async def drop_snapshot(self, name: str) -> None:
        """See `NoPokeDB.drop_snapshot`."""
        await self._run(NoPokeDB.drop_snapshot, name)

    async def check(self, repair: bool = False, deep: bool = True) -> list[Problem]:
        """See `NoPokeDB.check`."""
        return await self._run(NoPokeDB.check, repair, deep)

    async def undo(self) -> int:
        """See `NoPokeDB.undo`."""
        return await self._run(NoPokeDB.undo)

    async def refresh(self) -> None:
        """See `NoPokeDB.refresh`."""
        await self._run(NoPokeDB.refresh)

    async def stats(self) -> Stats:
        """See `NoPokeDB.stats`."""
        return await self._run(NoPokeDB.stats)

    async def close(self) -> None:
        """See `NoPokeDB.close`."""
        if self._database is None and self._opening is not None:
            try:
                self._database = await asyncio.shield(self._opening)
            except NoPokeError:
                return  # it did not open: whoever asked for it got the error
        if self._database is not None:
            await asyncio.to_thread(self._database.close)

    async def __aenter__(self) -> AsyncNoPokeDB:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
