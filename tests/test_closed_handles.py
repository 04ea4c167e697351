"""Every public method after `close`, and on a read-only handle."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from refusing import (
    DIM,
    GOOD,
    Call,
    files_of,
    in_batch,
    rows,
    three_records,
)

from nopokedb import (
    ClosedError,
    NoPokeDB,
    NotSupportedError,
    ReadOnlyError,
)

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


# --- nothing changed -----------------------------------------------------------------------------------------


@pytest.fixture
def db(open_db: Open, request: pytest.FixtureRequest) -> NoPokeDB:
    """Parametrise indirectly for the space."""
    return three_records(open_db, getattr(request, "param", "cosine"))


# --- after close, and read-only ------------------------------------------------------------------------------

EVERY_METHOD: dict[str, Call] = {
    "add": lambda db: db.add(GOOD),
    "add_many": lambda db: db.add_many([GOOD]),
    "upsert": lambda db: db.upsert(0, GOOD),
    "upsert_many": lambda db: db.upsert_many([0], [GOOD]),
    "update_many": lambda db: db.update_many([0], {}),
    "delete": lambda db: db.delete(0),
    "delete_many": lambda db: db.delete_many([0]),
    "batch": in_batch(lambda batch: batch.add(GOOD)),
    "get": lambda db: db.get(0),
    "get_many": lambda db: db.get_many([0]),
    "__getitem__": lambda db: db[0],
    "__contains__": lambda db: 0 in db,
    "__len__": len,
    "count": lambda db: db.count(),
    "facet": lambda db: db.facet("n"),
    "create_index": lambda db: db.create_index("n"),
    "drop_index": lambda db: db.drop_index("n"),
    "scan": lambda db: list(db.scan()),
    "query": lambda db: db.query(GOOD),
    "query_many": lambda db: db.query_many([GOOD]),
    "compact": lambda db: db.compact(),
    "optimize": lambda db: db.optimize(),
    "reembed": lambda db: db.reembed(lambda texts: np.ones((len(texts), DIM))),
    "explain": lambda db: db.explain(GOOD),
    "measure_recall": lambda db: db.measure_recall(),
    "duplicates": lambda db: db.duplicates(0.1),
    "outliers": lambda db: db.outliers(),
    "project": lambda db: db.project(),
    "plot": lambda db: db.plot(Path(db.path).parent / "never.html"),
    "save": lambda db: db.save(),
    "refresh": lambda db: db.refresh(),
    "undo": lambda db: db.undo(),
    "check": lambda db: db.check(),
    "snapshot": lambda db: db.snapshot("name"),
    "snapshots": lambda db: db.snapshots(),
    "at": lambda db: db.at("name"),
    "rollback": lambda db: db.rollback("name"),
    "drop_snapshot": lambda db: db.drop_snapshot("name"),
    "backup": lambda db: db.backup(Path(db.path).parent / "never.backup"),
    "stats": lambda db: db.stats(),
}
MORE_CALLS: dict[str, Call] = {
    "batch_of_a_delete": in_batch(lambda batch: batch.delete(0)),
    "add_many_chunked": lambda db: db.add_many(iter([GOOD])),
    "absent_id": lambda db: db.get("absent"),
    "count_by_filter": lambda db: db.count({"n": 1}),
    "scan_by_filter": lambda db: list(db.scan({"n": 1})),
    "scan_in_order": lambda db: list(db.scan(order_by="n")),
    "query_by_filter": lambda db: db.query(GOOD, where={"n": 1}),
    "query_by_text": lambda db: db.query(text="a"),
    "query_by_example": lambda db: db.query(like=[0]),
    "update_by_filter": lambda db: db.update_many(where={"n": 1}, metadata={}),
    "delete_by_filter": lambda db: db.delete_many(where={"n": 1}),
}
WRITING = (
    "add",
    "add_many",
    "upsert",
    "upsert_many",
    "update_many",
    "delete",
    "delete_many",
    "batch",
    "compact",
    "optimize",
    "reembed",
    "save",
    "create_index",
    "drop_index",
    "undo",
    "snapshot",
    "rollback",
    "drop_snapshot",
    "batch_of_a_delete",
    "add_many_chunked",
    "update_by_filter",
    "delete_by_filter",
)


def test_every_public_method_is_called_here() -> None:
    """A method added later must say what it does after close."""
    usable_when_closed = {"close", "__enter__", "__exit__", "__repr__", "__init__"}
    inherited = set(dir(object)) - {"__init__", "__repr__"}
    public = {
        name
        for name, _ in inspect.getmembers(NoPokeDB, inspect.isfunction)
        if name not in inherited and (not name.startswith("_") or name.startswith("__"))
    }
    assert public - usable_when_closed == set(EVERY_METHOD)


@pytest.mark.parametrize("call", rows(**EVERY_METHOD, **MORE_CALLS))
def test_method_after_close_is_refused(open_db: Open, call: Call) -> None:
    """A closed handle answers nothing and writes nothing; the message names the collection."""
    database = open_db(dim=DIM)
    database.add(GOOD)
    database.close()
    before = files_of(Path(database.path))
    with pytest.raises(ClosedError, match=re.escape(database.path)):
        call(database)
    assert files_of(Path(database.path)) == before


def test_batch_open_while_the_database_closes_is_refused(open_db: Open) -> None:
    """What a batch collected before the close is not written behind it."""
    database = open_db(dim=DIM)
    with pytest.raises(ClosedError), database.batch() as batch:
        batch.add(GOOD)
        database.close()
    assert open_db().count() == 0


READ_ONLY = (ReadOnlyError, (ReadOnlyError, NotSupportedError))
"""What is raised; the second one where a method may be missing altogether."""


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("writer_is_open", [False, True])
def test_read_only_handle_does_not_write(db: NoPokeDB, name: str, writer_is_open: bool) -> None:
    """`read_only=True` means it, beside a writer and alone."""
    call = (EVERY_METHOD | MORE_CALLS)[name]
    if not writer_is_open:
        db.close()
    before = files_of(Path(db.path))
    with NoPokeDB(path=db.path, read_only=True) as reader:
        count = reader.count()
        with pytest.raises(
            READ_ONLY[db.path.startswith("postgresql:")], match=r"read_only|not supported by the engine"
        ):
            call(reader)
        assert reader.count() == count == 4
    assert files_of(Path(db.path)) == before
