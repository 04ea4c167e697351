"""Scans: their order, where they begin and end, and that each walks one state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from reading_back import EVERYTHING, ids_of
from unit_vectors import DIM, A, B, C

from nopokedb import (
    NoPokeDB,
    Record,
)
from nopokedb.records import id_order

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


MIXED_IDS: list[int | str] = [5, "b", -3, "a", 0, "10", 2**63 - 1, "é", "Z", -(2**63), "1", 10, "aa", "😀", "\uffff", 1]


def test_scan_is_in_id_order_whatever_the_order_of_writing(open_db: Open) -> None:
    """Ints by value, then strs by their UTF-8 bytes, also after updates and reopening."""
    db = open_db(dim=DIM)
    db.add_many([A] * len(MIXED_IDS), ids=MIXED_IDS)
    db.upsert_many(["a", -3], [B, B])
    expected = sorted(MIXED_IDS, key=id_order)
    for _ in range(2):
        assert ids_of(db.scan()) == expected
        db.close()
        db = open_db()


def test_scan_continues_behind_after(db: NoPokeDB) -> None:
    """`after` is exclusive and need not exist; pages joined are the whole."""
    db.add_many([A] * len(MIXED_IDS), ids=MIXED_IDS)
    expected = sorted(MIXED_IDS, key=id_order)
    for at, id_ in enumerate(expected):
        assert ids_of(db.scan(after=id_)) == expected[at + 1 :]
    for absent in (4, "", "aaa", -1, "zzzz", 2):
        if absent != "":
            assert ids_of(db.scan(after=absent)) == [i for i in expected if id_order(i) > id_order(absent)]
    joined: list[int | str] = []
    while page := ids_of(db.scan(after=joined[-1] if joined else None, limit=3)):
        joined += page
    assert joined == expected


@pytest.mark.parametrize("limit", [0, 1, 511, 512, 513, 1500, 5000])
def test_scan_stops_at_limit(db: NoPokeDB, limit: int) -> None:
    """Over page borders and past deleted records; 0 gives nothing."""
    db.add_many(np.ones((1600, DIM)))
    db.delete_many(range(0, 1600, 16))
    expected = [i for i in range(1600) if i % 16]
    assert ids_of(db.scan(limit=limit)) == expected[:limit]
    assert ids_of(db.scan(after=700, limit=limit)) == [i for i in expected if i > 700][:limit]


def test_scan_returns_what_include_names(db: NoPokeDB) -> None:
    """Parts not asked for are None."""
    db.add(A, {"n": 1}, text="t")
    vector = np.array(A, np.float32)
    assert list(db.scan()) == [Record(0, {"n": 1})]
    assert list(db.scan(include=())) == db.get_many([0], include=()) == [Record(0)]
    for include, expected in (
        (("vector",), Record(0, None, vector)),
        (("text",), Record(0, text="t")),
        (["text", "metadata", "text"], Record(0, {"n": 1}, text="t")),
        (EVERYTHING, Record(0, {"n": 1}, vector, "t")),
    ):
        assert list(db.scan(include=include)) == db.get_many([0], include=include) == [expected]


def test_scan_walks_one_state(db: NoPokeDB) -> None:
    """Records written, changed or deleted after the call do not show, over page borders too."""
    db.add_many(np.ones((1300, DIM)), [{"n": i} for i in range(1300)], texts=["old"] * 1300)
    scan = db.scan(include=EVERYTHING)
    seen = [next(scan)]
    db.delete_many(range(600, 700))
    db.update_many(range(700, 1300), {"changed": True}, merge=False)
    db.upsert_many(range(1, 600), np.zeros((599, DIM)) + 2, texts=["new"] * 599)
    db.add_many([A, A], ids=[-1, "z"])
    db.save()
    seen += scan
    assert [record.metadata for record in seen] == [{"n": i} for i in range(1300)]
    assert ids_of(seen) == list(range(1300))
    assert {record.text for record in seen} == {"old"}
    assert all(record.vector is not None and record.vector.tolist() == [1.0] * DIM for record in seen)
    assert db.count() == 1202


def test_scan_starts_at_the_call_not_at_the_first_record(db: NoPokeDB) -> None:
    """The snapshot is taken when `scan` is called."""
    db.add(A)
    scan = db.scan()
    db.add(B)
    assert ids_of(scan) == [0]


def test_writing_while_scanning_is_allowed(db: NoPokeDB) -> None:
    """The loop that changes each record as it goes ends."""
    db.add_many(np.ones((700, DIM)))
    for record in db.scan():
        db.upsert(record.id, metadata={"seen": record.id})
        if isinstance(record.id, int) and record.id % 100 == 0:
            db.add(A)
    assert sum(record.metadata == {"seen": record.id} for record in db.scan()) == 700
    assert db.count() == 707


def test_get_many_keeps_order_and_repeats(db: NoPokeDB) -> None:
    """One answer per id asked for, None where there is none."""
    db.add_many([A, B], ids=["x", 1])
    records = db.get_many([1, "1", "x", 1])
    assert [record and record.id for record in records] == [1, None, "x", 1]
    assert db.get_many([]) == []
    assert db.get_many(id_ for id_ in ["x"])[0] == db.get_many(np.array(["x"]))[0] == Record("x", {})
    db.add(C, id="t", text="words")
    record = Record("t", text="words")
    assert db.get_many(["t", "x", "t"], include=("text",)) == [record, Record("x"), record]
