"""Batches, and many records in one call: what is written together, and what an error leaves."""

from __future__ import annotations

import sys
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading_back import dump, float32, ids_of, stored
from unit_vectors import DIM, A, B, C

from nopokedb import (
    BatchTooLargeError,
    DuplicateIdError,
    InvalidIdError,
    InvalidInputError,
    InvalidVectorError,
    NoPokeDB,
    NoPokeError,
    Record,
)
from nopokedb.distribution import install_hint

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


@pytest.fixture
def limit_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the size of one atomic batch, so that small input is already too large."""

    def limit(size_bytes: int) -> None:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "nopokedb" and hasattr(module, "MAX_BATCH_BYTES"):
                monkeypatch.setattr(module, "MAX_BATCH_BYTES", size_bytes)

    return limit


# --- batches -------------------------------------------------------------------------------------------------


def test_batch_is_one_frame(db: NoPokeDB) -> None:
    """All of it becomes visible at once, under one lsn."""
    db.add_many([A, B])
    lsn = db.stats().lsn
    with db.batch() as batch:
        assert batch.add(C, {"new": True}, text="t") == 2
        batch.upsert(0, metadata={"changed": True})
        batch.delete(1)
        assert ids_of(db.scan()) == [0, 1] and db.get(0) == {}
    assert db.stats().lsn == lsn + 1
    assert [(record.id, record.metadata, record.text) for record in dump(db)] == [
        (0, {"changed": True}, None),
        (2, {"new": True}, "t"),
    ]


def test_batch_that_raises_writes_nothing(open_db: Open) -> None:
    """Any exception, an interrupt included, leaves everything as it was, and is not swallowed."""
    db = open_db(dim=DIM)
    db.add(A, {"n": 0})
    before, lsn = dump(db), db.stats().lsn
    for error in (ZeroDivisionError, KeyboardInterrupt, InvalidVectorError):
        with pytest.raises(error), db.batch() as batch:
            batch.delete(0)
            batch.add(B, id="new")
            if error is InvalidVectorError:
                batch.add([1.0])
            raise error
        assert dump(db) == before and db.stats().lsn == lsn
    db.close()
    assert dump(open_db()) == before


def test_batch_refused_at_its_end_writes_nothing(db: NoPokeDB) -> None:
    """A part that only the state can refuse refuses all parts."""
    db.add(A, {"n": 0})
    before = dump(db)
    with pytest.raises(DuplicateIdError), db.batch() as batch:
        batch.delete("absent")
        batch.add(B, id="new")
        batch.upsert(0, metadata={"changed": True})
        batch.add(C, id=0)
    assert dump(db) == before


def test_later_parts_of_a_batch_see_earlier_ones(open_db: Open) -> None:
    """Add, delete and add again the same id; keep parts and merge into what the batch itself wrote."""
    db = open_db(dim=DIM)
    db.add(A, {"old": 1}, id="known", text="old")
    with db.batch() as batch:
        batch.add(A, {"n": 1}, id="x", text="one")
        batch.delete("x")
        batch.add(B, {"n": 2}, id="x")
        batch.upsert("x", metadata={"m": 3}, merge=True)
        batch.upsert("x", text="two")
        batch.upsert("x", metadata={"n": None, "k": 4}, merge=True)
        batch.add(C, id="gone")
        batch.delete("gone")
        batch.delete("known")
        batch.add(C, {"new": 1}, id="known")
        batch.upsert("known", A)
        batch.upsert("twice", B, {"first": 1}, text="t")
        batch.upsert("twice", C)
    expected = [
        Record("known", {"new": 1}, np.array(A, np.float32), None),
        Record("twice", {"first": 1}, np.array(C, np.float32), "t"),
        Record("x", {"m": 3, "k": 4}, np.array(B, np.float32), "two"),
    ]
    for _ in range(2):
        assert dump(db) == expected
        assert db.count() == 3 and "gone" not in db
        assert sorted(hit.id for hit in db.query(A, k=10)) == ["known", "twice", "x"]
        assert [hit.id for hit in db.query(B, k=1)] == ["x"]
        db.close()
        db = open_db()


def test_automatic_ids_of_a_batch_avoid_its_given_ones(db: NoPokeDB) -> None:
    """A given id at the counter's place does not collide with an automatic one of the same batch."""
    with db.batch() as batch:
        batch.add(A, id=0)
        first = batch.add(B)
        batch.upsert(50, C)
        second = batch.add(B)
    assert len({0, 50, first, second}) == 4
    assert db.count() == 4


def test_automatic_ids_of_an_open_batch_are_nobody_else_s(db: NoPokeDB) -> None:
    """Adds beside an open batch get other ids; both are kept."""
    with db.batch() as batch:
        inside = [batch.add(A), batch.add(A)]
        outside = [db.add(B), *db.add_many([B, B])]
        inside.append(batch.add(A))
    assert len({*inside, *outside}) == 6
    assert sorted(ids_of(db.scan())) == sorted([*inside, *outside])


def test_empty_batch_writes_nothing(db: NoPokeDB) -> None:
    """No frame for nothing, nor for deleting what is not there."""
    lsn = db.stats().lsn
    with db.batch():
        pass
    with db.batch() as batch:
        batch.delete("absent")
    assert db.stats().lsn == lsn


# --- many records --------------------------------------------------------------------------------------------


def test_add_many_of_arrays_is_one_atomic_batch(db: NoPokeDB) -> None:
    """Up to the size limit, whatever `batch_size` says."""
    lsn = db.stats().lsn
    ids = db.add_many(np.ones((2500, DIM)), [{"n": i} for i in range(2500)], batch_size=10)
    assert ids == list(range(2500)) and db.stats().lsn == lsn + 1
    assert db.get(2499) == {"n": 2499}
    with pytest.raises(DuplicateIdError) as caught:
        db.add_many([A] * 30, ids=[*range(5000, 5029), 0], batch_size=10)
    assert list(caught.value.committed) == [] and db.count() == 2500


@pytest.mark.parametrize("columns", ["arrays", "lists", "tuples", "mixed", "deque"])
def test_add_many_takes_any_sequence(db: NoPokeDB, columns: str) -> None:
    """Whatever holds the rows, each record gets its own parts."""
    vectors: Any = np.eye(DIM)
    metadatas: Any = [{"n": i} for i in range(DIM)]
    ids: Any = ["a", "b", "c", "d"]
    texts: Any = ["ta", None, "", "td"]
    if columns == "arrays":
        metadatas, ids, texts = (np.array(column, object) for column in (metadatas, ids, texts))
    elif columns == "lists":
        vectors = vectors.tolist()
    elif columns == "tuples":
        vectors, metadatas, ids, texts = tuple(map(tuple, vectors)), *map(tuple, (metadatas, ids, texts))
    elif columns == "mixed":
        vectors = [A, np.array(B), tuple(C), np.array([0, 0, 0, 1], np.int8)]
    else:
        vectors, metadatas, ids, texts = map(deque, (vectors, metadatas, ids, texts))
    assert db.add_many(vectors, metadatas, ids=ids, texts=texts) == ["a", "b", "c", "d"]
    assert [(r.metadata, r.text) for r in dump(db)] == [
        ({"n": 0}, "ta"),
        ({"n": 1}, None),
        ({"n": 2}, ""),
        ({"n": 3}, "td"),
    ]
    assert stored(db, "c") == float32(C)


def test_add_many_takes_single_metadatas_as_none(db: NoPokeDB) -> None:
    """None among `metadatas` is {}."""
    db.add_many([A, B], [None, {"n": 1}])
    assert [record.metadata for record in db.scan()] == [{}, {"n": 1}]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 11, 1000])
def test_add_many_from_generators_is_chunked(db: NoPokeDB, batch_size: int) -> None:
    """Iterators are read a chunk at a time, each chunk atomic; nothing is read ahead of it."""
    read: list[int] = []

    def vectors() -> Iterator[list[float]]:
        for n in range(10):
            assert db.count() >= n - n % batch_size, "a chunk was not written before the next was read"
            read.append(n)
            yield [1.0, float(n), 0.0, 0.0]

    lsn = db.stats().lsn
    ids = db.add_many(
        vectors(), ({"n": n} for n in range(10)), ids=(f"id{n}" for n in range(10)), batch_size=batch_size
    )
    assert ids == [f"id{n}" for n in range(10)] and read == list(range(10))
    assert db.stats().lsn == lsn + -(-10 // batch_size)
    assert [record.metadata for record in db.scan()] == [{"n": n} for n in range(10)]
    assert stored(db, "id7") == float32([1, 7, 0, 0])


def test_add_many_mixes_an_iterator_with_lists(db: NoPokeDB) -> None:
    """One iterator is enough to be chunked; lists are read along."""
    ids = db.add_many(iter([A, B, C]), [{"n": 0}, {"n": 1}, {"n": 2}], texts=["a", "b", "c"], batch_size=2)
    assert ids == [0, 1, 2]
    assert [(record.metadata, record.text) for record in dump(db)] == [({"n": n}, "abc"[n]) for n in range(3)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("vector", InvalidVectorError),
        ("id", InvalidIdError),
        ("duplicate", DuplicateIdError),
        ("short", InvalidInputError),
    ],
)
def test_error_in_the_middle_names_what_was_committed(open_db: Open, fault: str, error: type[NoPokeError]) -> None:
    """The chunks before the error are durable and listed, the chunk with the error left no trace."""
    db = open_db(dim=DIM)
    vectors: list[Any] = [A] * 10
    ids: list[Any] = [f"id{n}" for n in range(10)]
    if fault == "vector":
        vectors[7] = [1.0]
    elif fault == "id":
        ids[7] = 1.5
    elif fault == "duplicate":
        ids[7] = "id1"
    else:
        del vectors[7:]
    with pytest.raises(error) as caught:
        db.add_many(iter(vectors), ids=iter(ids), batch_size=3)
    assert caught.value.committed == ["id0", "id1", "id2", "id3", "id4", "id5"]
    db.close()
    db = open_db()
    assert ids_of(db.scan()) == caught.value.committed


def test_error_in_the_middle_of_upserts_names_what_was_committed(db: NoPokeDB) -> None:
    """`upsert_many` likewise."""
    with pytest.raises(InvalidInputError) as caught:
        db.upsert_many(iter([1, 2, 3, 4]), iter([A, B, [float("nan")] * 4, C]), batch_size=2)
    assert caught.value.committed == [1, 2] and ids_of(db.scan()) == [1, 2]


def test_error_of_the_caller_s_own_iterator_passes_through(db: NoPokeDB) -> None:
    """Their error, not ours; whole chunks before it are kept."""

    def vectors() -> Iterator[list[float]]:
        yield from [A] * 5
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.add_many(vectors(), batch_size=2)
    assert ids_of(db.scan()) == [0, 1, 2, 3]


def test_first_iterator_to_end_decides_nothing(db: NoPokeDB) -> None:
    """Iterators of different lengths are an error even where a chunk ends with one of them."""
    with pytest.raises(InvalidInputError) as caught:
        db.add_many(iter([A] * 4), iter([{}] * 6), batch_size=2)
    assert caught.value.committed == [0, 1, 2, 3]
    assert db.count() == 4


@pytest.mark.parametrize("kind", ["array", "list", "metadata", "text"])
def test_input_over_the_size_limit_is_chunked(db: NoPokeDB, limit_batches: Callable[[int], None], kind: str) -> None:
    """Larger than one atomic batch may be: chunks of `batch_size`, and all of it arrives."""
    limit_batches(4096)
    lsn = db.stats().lsn
    if kind == "array":
        ids = db.add_many(np.ones((300, DIM), np.float32), [{"n": i} for i in range(300)], batch_size=100)
    elif kind == "list":
        ids = db.add_many([A] * 300, [{"n": i} for i in range(300)], texts=["t"] * 300, batch_size=100)
    elif kind == "metadata":
        ids = db.add_many([A] * 10, [{"n": i, "x": "y" * 500} for i in range(10)], batch_size=4)
    else:
        ids = db.add_many([A] * 10, [{"n": i} for i in range(10)], texts=["é" * 250] * 10, batch_size=4)
    assert ids == list(range(len(ids))) and len(ids) in (10, 300)
    assert db.stats().lsn == lsn + 3
    assert [record.metadata["n"] for record in db.scan() if record.metadata] == ids


def test_sequence_without_slices_is_chunked_too(db: NoPokeDB, limit_batches: Callable[[int], None]) -> None:
    """A deque or the keys of a dict have a length but no slices: large input of them arrives as well."""
    limit_batches(1024)
    named = {f"id{n:03}": {"n": n} for n in range(100)}
    ids = db.add_many(np.ones((100, DIM)), deque(named.values()), ids=named.keys(), batch_size=30)
    assert ids == list(named)
    assert {record.id: record.metadata for record in db.scan()} == named


def test_error_in_large_input_names_what_was_committed(db: NoPokeDB, limit_batches: Callable[[int], None]) -> None:
    """Chunked input is not atomic, and the error says so."""
    limit_batches(1024)
    vectors = np.ones((100, DIM), np.float32)
    vectors[75] = np.nan
    with pytest.raises(InvalidVectorError) as caught:
        db.add_many(vectors, batch_size=20)
    assert caught.value.committed == list(range(60)) and db.count() == 60


@pytest.mark.engines("embedded")
def test_input_larger_than_256_mib_is_chunked(open_db: Open) -> None:
    """The real limit: one row more than 256 MiB of vectors, which take no memory here, is cut into chunks."""
    dim, count = 16_384, 4_097
    vectors = np.broadcast_to(np.float32(0), (count, dim))
    assert vectors.size * 4 > 256 * 2**20
    with open_db(dim=dim, space="l2", durability="os") as db:
        # The second chunk has a fault, so that not all of it is written to the disk of whoever runs this.
        metadatas: list[Any] = [{}] * count
        metadatas[150] = "not a dict"
        with pytest.raises(InvalidInputError) as caught:
            db.add_many(vectors, metadatas, batch_size=100)
        assert len(caught.value.committed) == db.count() == 100


@pytest.mark.engines(without=("rest", "grpc"))
def test_chunk_over_the_size_limit_is_refused(db: NoPokeDB, limit_batches: Callable[[int], None]) -> None:
    """A single chunk that is too large cannot be atomic: an error, which names the remedy."""
    limit_batches(1024)
    with pytest.raises(BatchTooLargeError, match="batch_size"):
        db.add_many(iter([A] * 100), batch_size=100)
    assert db.count() == 0


def test_progress_bar_counts_records(db: NoPokeDB, capsys: pytest.CaptureFixture[str]) -> None:
    """With tqdm installed, progress shows on stderr and nothing else changes."""
    pytest.importorskip("tqdm")
    assert db.add_many([A] * 5, progress=True) == [0, 1, 2, 3, 4]
    assert "5/5" in capsys.readouterr().err
    db.add_many(iter([A] * 5), batch_size=2, progress=True)
    db.upsert_many([0, 1], [B, B], progress=True)
    with pytest.raises(InvalidInputError):
        db.add_many([[1.0]], progress=True)
    assert db.count() == 10


def test_progress_without_tqdm_names_the_install_line(db: NoPokeDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImportError with the command that helps, before anything is written."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="tqdm") as caught:
        db.add_many([A], progress=True)
    assert install_hint("progress") in str(caught.value)
    assert db.count() == 0 and db.add(A) == 0


def test_extra_named_by_the_progress_hint_exists() -> None:
    """The install line works only if the extra is declared."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert any("tqdm" in line for line in project["project"]["optional-dependencies"].get("progress", []))
