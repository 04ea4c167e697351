"""Handles: what is there after reopening, what one tells of itself, several at a time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from reading_back import dump, ids_of
from unit_vectors import DIM, A, B, C

from nopokedb import (
    ClosedError,
    NoPokeDB,
    Record,
)

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


@pytest.mark.engines(without=("rest", "grpc"))
def test_everything_is_there_after_reopening_without_save(open_db: Open) -> None:
    """Each write is durable when it returns; `close` and `save` are no condition."""
    db = open_db(dim=DIM)
    db.add_many([A, B, C], [{"n": n} for n in range(3)], texts=["a", "", None])
    db.upsert(1, C)
    db.delete(2)
    before = dump(db)
    db.save()
    db.upsert(0, metadata={"after": "save"}, merge=True)
    db.close()
    db = open_db()
    assert dump(db) == [Record(0, {"n": 0, "after": "save"}, np.array(A, np.float32), "a"), before[1]]
    assert db.stats().log_bytes < 1000


def test_with_closes_also_after_an_exception(open_db: Open) -> None:
    """The folder is free for the next writer, and the exception passes through."""
    with pytest.raises(ZeroDivisionError), open_db(dim=DIM) as db:
        db.add(A)
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        db.count()
    with open_db() as db:
        assert db.count() == 1


def test_closing_twice_is_harmless(db: NoPokeDB) -> None:
    """Also after `with`, and from several threads."""
    threads = [threading.Thread(target=db.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.close()
    with nullcontext(db):
        db.close()


def test_repr_tells_what_it_is(tmp_path: Path) -> None:
    """Folder, dim, space and count; closed when closed."""
    path = tmp_path / "db"
    db = NoPokeDB(dim=DIM, path=path, space="l2")
    db.add(A)
    for part in (str(path), "dim=4", "l2", "1 record"):
        assert part in repr(db)
    db.close()
    assert "closed" in repr(db) and str(path) in repr(db)


def test_open_handle_tells_its_settings(tmp_path: Path) -> None:
    """dim and space are those of the collection, also when the open did not name them."""
    NoPokeDB(dim=DIM, path=str(tmp_path / "db"), space="ip", max_elements=10).close()
    with NoPokeDB(path=tmp_path / "db") as db:
        assert (db.dim, db.space, db.path) == (DIM, "ip", str(tmp_path / "db"))


@pytest.mark.engines("embedded")
def test_stats_count(db: NoPokeDB) -> None:
    """Live records, the lsn of the last batch, and where it lies."""
    assert (db.stats().count, db.stats().read_only, db.stats().dim) == (0, False, DIM)
    db.add_many([A, B])
    db.delete(0)
    stats = db.stats()
    assert (stats.count, stats.space, stats.path) == (1, "cosine", db.path)
    assert stats.disk_bytes > 0 and stats.log_bytes > 0
    lsn = stats.lsn
    db.save()
    assert db.stats().lsn == db.stats().checkpoint_lsn == lsn


def test_read_only_handle_sees_what_was_published(db: NoPokeDB) -> None:
    """`refresh` moves it forward; the writer is not disturbed."""
    db.add(A, {"n": 0})
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert dump(reader) == dump(db) and reader.stats().read_only
        db.add(B, {"n": 1}, text="t")
        db.delete(0)
        reader.refresh()
        assert dump(reader) == dump(db)
        assert reader.query(B) == db.query(B)
    db.refresh()
    assert db.count() == 1


def test_capacity_hint_is_no_limit(open_db: Open) -> None:
    """`max_elements` may be exceeded, or be 0."""
    with open_db(dim=DIM, max_elements=2) as db:
        db.add_many([A] * 50)
        assert db.count() == 50


def test_ids_of_many_threads_are_distinct(db: NoPokeDB) -> None:
    """One handle, many writers: each gets its own ids, and all records are there."""
    given_ids: list[list[int | str]] = []

    def work() -> None:
        given_ids.append([db.add(A) for _ in range(10)] + db.add_many([B, C]))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = list(itertools.chain(*given_ids))
    assert sorted(every) == list(range(96)) == ids_of(db.scan())  # type: ignore[type-var]
