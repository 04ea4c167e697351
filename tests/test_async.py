"""`AsyncNoPokeDB`: the same methods, awaitable, on one handle underneath."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from unit_vectors import DIM, A, B, C

from nopokedb import (
    AsyncNoPokeDB,
    ClosedError,
    CollectionNotFoundError,
    DuplicateIdError,
    InvalidInputError,
    InvalidVectorError,
    NoPokeDB,
    Record,
)

pytestmark = pytest.mark.engines

T = TypeVar("T")

NO_TWIN = {
    "__getitem__": "a subscript cannot be awaited; get_many with include gives records",
    "__contains__": "`in` cannot be awaited; get gives None for an absent id",
    "__len__": "len() cannot be awaited; count can",
    "__enter__": "async with",
    "__exit__": "async with",
    "__repr__": "",
    "__init__": "opening waits for the first await",
}
ONLY_ASYNC = {"open", "__aenter__", "__aexit__", "__init__"}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def own_methods(kind: type) -> set[str]:
    return {
        name
        for base in kind.__mro__[:-1]
        for name, member in vars(base).items()
        if callable(member) and (not name.startswith("_") or name.startswith("__"))
    } - {"__class__"}


def test_every_method_has_an_awaitable_twin() -> None:
    """A method added to one class and forgotten in the other fails here."""
    assert own_methods(NoPokeDB) - set(NO_TWIN) == own_methods(AsyncNoPokeDB) - ONLY_ASYNC
    for name in own_methods(NoPokeDB) - set(NO_TWIN):
        twin = getattr(AsyncNoPokeDB, name)
        asynchronous = (
            inspect.iscoroutinefunction(twin)
            or inspect.isasyncgenfunction(twin)
            or inspect.isasyncgenfunction(inspect.unwrap(twin))
        )
        assert asynchronous, name


@pytest.mark.parametrize("name", sorted(own_methods(NoPokeDB) - set(NO_TWIN)))
def test_twin_takes_the_same_arguments(name: str) -> None:
    """Every parameter of the method, by its name and its place, `vid` included."""
    twin = inspect.signature(getattr(AsyncNoPokeDB, name))
    parameters = list(inspect.signature(getattr(NoPokeDB, name)).parameters.values())
    by_place = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    keywords = {parameter.name: None for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    alternatives = [keywords]
    if "vid" in keywords:  # in the place of `id`
        by_place_without_id = [parameter for parameter in by_place if parameter.name != "id"]
        twin.bind(by_place_without_id[0], **keywords | {p.name: None for p in by_place_without_id[1:]})
        alternatives = [{name: None for name in keywords if name != "vid"}]
    for given in alternatives:
        twin.bind(*by_place, **given)


def test_whole_life_of_a_collection(engine: dict[str, Any]) -> None:
    """Each method does what its twin does."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            assert await db.add(A, {"n": 0}, text="zero") == 0
            assert await db.add_many([B, C], [{"n": 1}, {"n": 2}], ids=["one", "two"]) == ["one", "two"]
            await db.upsert("one", metadata={"m": 1}, merge=True)
            await db.upsert_many(["two", "three"], [A, B], texts=["t", None])
            assert await db.update_many(["three", "absent"], {"x": 1}) == 1
            assert await db.get("one") == {"n": 1, "m": 1}
            assert await db.get("absent") is None
            assert await db.get_many(["three", "absent"], include=("metadata", "text")) == [
                Record("three", {"x": 1}),
                None,
            ]
            assert await db.count() == 4
            assert [record.id async for record in db.scan(after=0, limit=2)] == ["one", "three"]
            hits = await db.query(A, 2, include=("text",))
            assert [(hit.id, hit.text) for hit in hits] == [(0, "zero"), ("two", "t")]
            assert await db.query_many([A, A], k=2, include=("text",)) == [hits, hits]
            assert await db.delete("two") is True and await db.delete("two") is False
            assert await db.delete_many(["three", "absent"]) == 1
            await db.save()
            await db.refresh()
            assert (await db.stats()).count == 2
        with NoPokeDB(**engine) as plain:
            assert [record.id for record in plain.scan()] == [0, "one"]

    run(life())


def test_concurrent_adds_are_all_there(engine: dict[str, Any]) -> None:
    """A hundred tasks on one handle: distinct ids, every record, and each task reads its own write at once."""

    async def add(db: AsyncNoPokeDB, n: int) -> int | str:
        id_ = await db.add([float(n), 1.0, 0.0, 0.0], {"n": n})
        assert await db.get(id_) == {"n": n}
        return id_

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            ids = await asyncio.gather(*(add(db, n) for n in range(100)))
            assert sorted(ids) == list(range(100))  # type: ignore[type-var]
            assert [await db.get(id_) for id_ in ids] == [{"n": n} for n in range(100)]
            batches = await asyncio.gather(*(db.add_many([A, B]) for _ in range(20)))
            assert len({id_ for ids in batches for id_ in ids}) == 40
            assert await db.count() == 140

    run(life())


def test_writes_of_concurrent_tasks_share_syncs_but_not_atomicity(engine: dict[str, Any]) -> None:
    """One task's refused batch takes no other task's batch with it."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            results = await asyncio.gather(
                *(db.add_many([A, B], ids=[f"{n}a", "same"]) for n in range(10)), return_exceptions=True
            )
            assert sum(isinstance(result, list) for result in results) == 1
            assert sum(isinstance(result, DuplicateIdError) for result in results) == 9
            assert await db.count() == 2

    run(life())


def test_event_loop_is_not_held_up(engine: dict[str, Any]) -> None:
    """The work happens in other threads: the loop's own thread opens no file and runs no query."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            seen: list[int] = []

            def vectors() -> Any:
                seen.append(threading.get_ident())
                yield A

            await db.add_many(vectors())
            assert seen and threading.get_ident() not in seen

    run(life())


def test_async_scan_walks_one_state_over_pages(engine: dict[str, Any]) -> None:
    """Writes made between its steps do not show, and leaving early is fine."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            await db.add_many(np.ones((1000, DIM)), [{"n": n} for n in range(1000)])
            seen: list[Record] = []
            async for record in db.scan(include=("metadata", "vector")):
                if not seen:
                    await db.update_many(range(1000), {"n": -1})
                    await db.delete_many(range(500, 1000))
                seen.append(record)
            assert [record.metadata for record in seen] == [{"n": n} for n in range(1000)]
            assert await db.count() == 500
            async for record in db.scan():
                assert record.id == 0
                break
            assert await db.add(A) == 1000
            with pytest.raises(InvalidInputError):
                async for _ in db.scan(limit=-1):
                    pass

    run(life())


def test_async_batch_is_atomic(engine: dict[str, Any]) -> None:
    """Written when the block ends; an exception inside, or at the end, writes nothing and comes out as it is."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            async with db.batch() as batch:
                id_ = batch.add(A, {"n": 0})
                batch.upsert("x", B)
                assert await db.count() == 0
            assert await db.get_many([id_, "x"]) == [Record(id_, {"n": 0}), Record("x", {})]
            with pytest.raises(ZeroDivisionError):
                async with db.batch() as batch:
                    batch.delete(id_)
                    raise ZeroDivisionError
            with pytest.raises(DuplicateIdError):
                async with db.batch() as batch:
                    batch.add(C, id="new")
                    batch.add(C, id="x")
            with pytest.raises(StopIteration):
                async with db.batch() as batch:
                    batch.delete(id_)
                    next(iter(()))
            with pytest.raises(InvalidInputError):
                batch.delete("x")
            assert [record.id async for record in db.scan()] == [id_, "x"]

    run(life())


def test_cancelled_batch_writes_nothing(engine: dict[str, Any]) -> None:
    """A task that is cancelled inside its block leaves no trace."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            inside = asyncio.Event()

            async def work() -> None:
                async with db.batch() as batch:
                    batch.add(A)
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(work())
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await db.count() == 0
            assert (await db.stats()).lsn == 0

    run(life())


def test_errors_come_out_of_the_await(engine: dict[str, Any]) -> None:
    """The same exceptions with the same attributes, and the handle works on."""

    async def life() -> None:
        async with AsyncNoPokeDB(dim=DIM, **engine) as db:
            with pytest.raises(InvalidVectorError, match="shape"):
                await db.add([1.0])
            with pytest.raises(InvalidInputError):
                await db.query(A, k=0)
            with pytest.raises(InvalidVectorError) as caught:
                await db.add_many(iter([A, A, A, [1.0]]), batch_size=2)
            assert list(caught.value.committed) == [0, 1]
            with pytest.raises(TypeError):
                await db.query(A, no_such_option=1)
            assert await db.count() == 2

    run(life())


def test_errors_of_opening_come_with_the_first_await(engine: dict[str, Any], tmp_path: Path) -> None:
    """The constructor touches nothing; opening can be tried again."""

    async def life() -> None:
        missing = AsyncNoPokeDB(**engine)
        for _ in range(2):
            with pytest.raises(CollectionNotFoundError):
                await missing.count()
        with pytest.raises(CollectionNotFoundError):
            async with missing:
                pass
        NoPokeDB(dim=DIM, **engine).close()
        assert await missing.count() == 0
        await missing.close()
        with pytest.raises(InvalidInputError):
            await AsyncNoPokeDB(dim=0, path=tmp_path / "wrong").open()

    run(life())


def test_two_tasks_opening_at_once_open_once(engine: dict[str, Any]) -> None:
    """A second open would meet the writer's lock; both tasks get the one handle."""

    async def life() -> None:
        db = AsyncNoPokeDB(dim=DIM, **engine)
        first, second, _, _ = await asyncio.gather(db.open(), db.open(), db.add(A), db.count())
        assert first is second is await db.open()
        assert await db.count() == 1
        await db.close()

    run(life())


@pytest.mark.engines("embedded")
def test_opening_waits_for_nothing_that_was_cancelled(engine: dict[str, Any], tmp_path: Path) -> None:
    """An open whose task is cancelled does not lock the folder against the next try."""

    async def life() -> None:
        db = AsyncNoPokeDB(dim=DIM, **engine)
        task = asyncio.create_task(db.open())
        while not (tmp_path / "db" / "LOCK").exists():  # until the other thread is in the middle of it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await db.count() == 0
        await db.close()

    run(life())


def test_closing_is_final_and_harmless_twice(engine: dict[str, Any], tmp_path: Path) -> None:
    """After close every method is refused, as with the plain class; closing what was never open does nothing."""

    async def life() -> None:
        db = AsyncNoPokeDB(dim=DIM, **engine)
        await db.add(A)
        await db.close()
        await db.close()
        for attempt in (db.count(), db.add(A), db.query(A), db.save(), db.stats()):
            with pytest.raises(ClosedError):
                await attempt
        with pytest.raises(ClosedError):
            async for _ in db.scan():
                pass
        await AsyncNoPokeDB(dim=DIM, path=tmp_path / "never").close()
        assert not (tmp_path / "never").exists()

    run(life())


def test_close_while_opening_closes(engine: dict[str, Any]) -> None:
    """Whichever comes first, the folder is free afterwards."""

    async def life() -> None:
        db = AsyncNoPokeDB(dim=DIM, **engine)
        opening = asyncio.create_task(db.open())
        await asyncio.sleep(0)  # the open has begun
        await db.close()
        await asyncio.gather(opening, return_exceptions=True)  # it may be refused or succeed
        NoPokeDB(dim=DIM, **engine).close()

    run(life())


def test_handle_made_before_the_loop_works_in_it(engine: dict[str, Any]) -> None:
    """The constructor may run at import time, without a running loop; a later loop may go on with it."""
    db = AsyncNoPokeDB(dim=DIM, **engine)
    assert run(db.add(A)) == 0
    assert run(db.add(B)) == 1
    run(db.close())
