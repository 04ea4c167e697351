"""What a type checker says of programs that use the library: checked by `make lint`, never run. An ignore that is not
needed is an error, so each one here proves that the line is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import polars

from nopokedb import (
    AsyncNoPokeDB,
    F,
    Group,
    Hit,
    Job,
    NoPokeDB,
    Plan,
    Recall,
    Record,
    Stats,
    StoredBackup,
    View,
    list_backups,
    list_collections,
    list_jobs,
    to_polars,
)


def writing(db: NoPokeDB, vectors: npt.NDArray[np.float64]) -> None:
    assert_type(db.add(vectors[0], {"n": 1}, id="a", text="t"), int | str)
    assert_type(db.add_many(vectors, [{"n": 1}, None], ids=[1, "b"]), list[int | str])
    assert_type(db.add_many(polars.DataFrame(), id_column="isbn"), list[int | str])
    db.upsert_many(["a"], vectors, merge=True)
    assert_type(db.delete("a"), bool)
    assert_type(db.delete_many(where=F("n") > 1), int)
    with db.batch() as batch:
        assert_type(batch.add([1.0, 2.0]), int | str)
    db.add(vectors[0], {"n": 1}, id=1.5)  # type: ignore[arg-type]
    db.add(vectors[0], ["no metadata"])  # type: ignore[arg-type]
    db.add_many(vectors, texts=[1])  # type: ignore[list-item]
    db.update_many(["a"], metadata=3)  # type: ignore[arg-type]
    NoPokeDB(dim=3, space="euclid")  # type: ignore[arg-type]
    NoPokeDB(dim=3, durability="none")  # type: ignore[arg-type]


def reading(db: NoPokeDB) -> None:
    assert_type(db.get("a"), dict[str, Any] | None)
    assert_type(db["a"], Record)
    assert_type(db["a"].vector, npt.NDArray[np.float32] | None)
    assert_type(db.get_many(["a", 1]), list[Record | None])
    assert_type(db.scan({"n": 1}, include=("vector",)), Iterator[Record])
    assert_type(db.facet("n"), list[tuple[str | int | float | bool | None, int]])
    assert_type(db.at("before"), View)
    assert_type(db.explain([1.0]), Plan)
    assert_type(db.measure_recall(), Recall)
    assert_type(db.stats(), Stats)
    assert_type(list_collections("shelf"), list[str])
    assert_type(list_backups("http://localhost:7331/docs"), list[StoredBackup])
    assert_type(list_jobs("http://localhost:7331"), list[Job])
    assert_type(to_polars(db), polars.DataFrame)
    assert_type(to_polars(db.query([1.0])), polars.DataFrame)
    assert_type(to_polars(db.scan()), polars.DataFrame)
    db.get_many(["a"], include=("vectors",))  # type: ignore[arg-type]
    to_polars(db["a"])  # type: ignore[arg-type]


def asking(db: NoPokeDB) -> None:
    hits = db.query([1.0, 2.0], k=3)
    assert_type(hits, list[Hit])
    assert_type(hits[0].id, int | str)
    assert_type(hits[0].score, float)
    assert_type(hits[0].distance, float | None)
    assert_type(hits[0].metadata, dict[str, Any])
    groups = db.query([1.0, 2.0], group_by="author")
    assert_type(groups, list[Group])
    assert_type(groups[0].hits, list[Hit])
    assert_type(db.query_many([[1.0]]), list[list[Hit]])
    assert_type(db.query_many([[1.0]], group_by="author"), list[list[Group]])
    db.query([1.0], fusion="sum")  # type: ignore[call-overload]
    db.query([1.0], group_by=3)  # type: ignore[call-overload]


async def awaiting(db: AsyncNoPokeDB) -> None:
    assert_type(await db.add([1.0]), int | str)
    assert_type(await db.get("a"), dict[str, Any] | None)
    async for record in db.scan():
        assert_type(record, Record)
