"""Data frames and Arrow tables: taken and given without loss, on every engine; what is missing is said to be so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model import order
from reading_back import EVERYTHING, dump

from nopokedb import (
    DuplicateIdError,
    InvalidIdError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidVectorError,
    NoPokeDB,
    Record,
    intake,
    to_arrow,
    to_pandas,
    to_polars,
)

Open = Callable[..., NoPokeDB]
DIM = 3
VECTORS = np.arange(1, 13, dtype=np.float32).reshape(4, DIM)


def books(kind: str) -> Any:
    """One table, as each library has it."""
    data = {
        "isbn": ["a", "b", "c", "d"],
        "embedding": VECTORS.tolist(),
        "title": ["one", None, "three", "four"],
        "year": [2**62 + 1, None, 3, -5],
        "price": [1.5, 2.0, None, 4.25],
        "new": [True, None, False, True],
        "tags": [["x", "y"], [], None, ["z"]],
    }
    if kind == "pandas":
        frame = pd.DataFrame(data)
        frame["year"] = pd.array(data["year"], dtype="Int64")
        return frame
    if kind == "polars":
        return pl.DataFrame(data)
    table = pa.table(data)
    if kind == "arrow":
        return table
    if kind == "stream":
        return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=3))
    if kind == "duckdb":
        return duckdb.from_arrow(table)
    return table.combine_chunks().to_batches()[0]


KINDS = ("pandas", "polars", "arrow", "batch", "stream", "duckdb")
BOOKS = [
    Record("a", {"year": 2**62 + 1, "price": 1.5, "new": True, "tags": ["x", "y"]}, VECTORS[0], "one"),
    Record("b", {"price": 2.0, "tags": []}, VECTORS[1]),
    Record("c", {"year": 3, "new": False}, VECTORS[2], "three"),
    Record("d", {"year": -5, "price": 4.25, "new": True, "tags": ["z"]}, VECTORS[3], "four"),
]


@pytest.mark.engines
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_becomes_records(open_db: Open, kind: str) -> None:
    """Columns are found by name, the rest is metadata, empty cells are keys that are not there; ints keep 64 bits."""
    db = open_db(dim=DIM)
    assert db.add_many(books(kind), id_column="isbn", vector_column="embedding", text_column="title") == list("abcd")
    assert dump(db) == BOOKS
    assert type(db["c"].metadata["year"]) is int  # type: ignore[index]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_upserted(open_db: Open, kind: str) -> None:
    """The table says the whole metadata of its rows; an empty text keeps what is there; `merge` patches."""
    db = open_db(dim=DIM)
    names = {"id_column": "isbn", "vector_column": "embedding", "text_column": "title"}
    db.add(VECTORS[3], {"old": 1, "price": 0.5}, id="b", text="kept")
    db.upsert_many(books(kind), **names)
    expected = [*BOOKS]
    expected[1] = Record("b", BOOKS[1].metadata, VECTORS[1], "kept")
    assert dump(db) == expected
    db.upsert("b", metadata={"old": 1, "price": 0.5})
    db.upsert_many(books(kind), **names, merge=True)
    assert db.get("b") == {"old": 1, "price": 2.0, "tags": []}


def test_usual_names_and_automatic_ids(open_db: Open) -> None:
    """Without a word "id", "vector" and "text" are what they say; without ids records are numbered; columns of numbers
    are a vector by `v*`."""
    db = open_db(dim=DIM)
    db.add_many(pl.DataFrame({"vector": VECTORS, "id": [7, 8, 9, -1], "text": list("wxyz"), "n": [1, 2, 3, 4]}))
    assert db[8] == Record(8, {"n": 2}, VECTORS[1], "x")
    assert db.add_many(pd.DataFrame({"vector": list(VECTORS)})) == [10, 11, 12, 13]
    frame = pd.DataFrame(VECTORS, columns=["e0", "e1", "e2"])
    assert db.add_many(frame, vector_column="e*") == [14, 15, 16, 17]
    assert db[15] == Record(15, {}, VECTORS[1])
    assert db.add_many(pd.DataFrame(VECTORS)) == [18, 19, 20, 21]  # numbered columns are an array
    db.upsert_many(pa.table({"id": [7], "n": [5]}))  # without a vector the stored one stays
    assert db[7] == Record(7, {"n": 5}, VECTORS[0], "w")


def test_missing_values(open_db: Open) -> None:
    """None, NaN, NA and NaT are no value; a null within an object is one."""
    db = open_db(dim=DIM)
    frame = pd.DataFrame(
        {
            "vector": list(VECTORS),
            "float": [1.0, np.nan, None, 2.0],
            "object": [{"a": None}, None, pd.NA, float("nan")],
            "time": pd.to_datetime(["2024-05-01", None, None, None]),
            "zone": pd.to_datetime(["2024-05-01T12:00:00+02:00", None, None, None]),
        }
    )
    db.add_many(frame)
    assert [record.metadata for record in dump(db)] == [
        {"float": 1.0, "object": {"a": None}, "time": "2024-05-01T00:00:00", "zone": "2024-05-01T10:00:00.000000Z"},
        {},
        {},
        {"float": 2.0},
    ]
    db.add_many(pa.table({"vector": VECTORS.tolist(), "f": [float("nan"), 1.0, None, 2.0]}), progress=True)
    assert [record.metadata for record in dump(db)][4:] == [{}, {"f": 1.0}, {}, {"f": 2.0}]


class OnlyDLPack:
    """What a tensor library has that knows no NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class Elsewhere(OnlyDLPack):
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it is on another device")


class OnlyArray:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array, dtype)


@pytest.mark.parametrize("wrapped", [OnlyDLPack, OnlyArray])
def test_arrays_of_others(open_db: Open, wrapped: Callable[[np.ndarray], Any]) -> None:
    """`__array__` and DLPack are enough, for one vector and for many, written and asked."""
    db = open_db(dim=DIM)
    db.add(wrapped(VECTORS[0]))
    assert db.add_many(wrapped(VECTORS[1:])) == [1, 2, 3]
    db.upsert_many([0, 1], wrapped(VECTORS[2:].astype(np.float64)))
    assert [record.vector.tolist() for record in dump(db)] == VECTORS[[2, 3, 2, 3]].tolist()  # type: ignore[union-attr]
    assert db.query(wrapped(VECTORS[3]), k=1)[0].id == 1
    assert len(db.query_many(wrapped(VECTORS), k=1)) == 4
    with pytest.raises(InvalidVectorError, match="another device"):
        db.add_many(Elsewhere(VECTORS))


def test_series_and_arrow_arrays_as_columns(open_db: Open) -> None:
    """Single columns of a table are columns of a write."""
    db = open_db(dim=DIM)
    table = pa.table({"i": [1, 2, 3, 4], "v": VECTORS.tolist(), "t": ["a", None, "c", "d"]})
    frame, polar = table.to_pandas(), pl.from_arrow(table)
    assert isinstance(polar, pl.DataFrame)
    db.add_many(table["v"], ids=table["i"], texts=table["t"])
    expected = dump(db)
    for columns in (frame, polar):
        db.upsert_many(columns["i"], columns["v"], texts=columns["t"])
        assert dump(db) == expected
    assert expected[1] == Record(2, {}, VECTORS[1])


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"vector": [[1, 2, 3], None]}, InvalidVectorError, "none in row 1"),
        ({"vector": [[1, 2, 3], [1, 2]]}, InvalidVectorError, "row 1|inhomogeneous"),
        ({"vector": [[1, 2, 3], [1, None, 3]]}, InvalidVectorError, "row 1|NoneType|dtype object|nan in"),
        ({"vector": ["a", "b"]}, InvalidVectorError, "got"),
        ({"vector": [[1, 2, 3], [1, 2, 3]], "id": [1, None]}, InvalidIdError, "None"),
        ({"vector": [[1, 2, 3], [1, 2, 3]], "id": [1, 1]}, DuplicateIdError, "twice"),
        ({"vector": [[1, 2, 3], [1, 2, 3]], "b": [b"1", b"2"]}, InvalidMetadataError, "bytes"),
        ({"vector": [[1, 2, 3], [1, 2, 3]], "metadata": ["[1]", "{}"]}, InvalidMetadataError, "object"),
        ({"a": [1, 2]}, InvalidVectorError, "expected vectors to add"),
        ({"vector": []}, InvalidInputError, "at least one record"),
    ],
)
def test_bad_tables_are_refused(open_db: Open, table: dict[str, Any], error: type[Exception], words: str) -> None:
    """Before anything is written, with the place."""
    db = open_db(dim=DIM)
    kinds: tuple[Callable[[Any], Any], ...] = (pa.table, pl.DataFrame, lambda data: pd.DataFrame(data, dtype=object))
    for make in kinds:
        with pytest.raises(error, match=words):
            db.add_many(make(table))
    assert len(db) == 0


def test_bad_arguments_are_refused(open_db: Open) -> None:
    """Names without a table, columns beside one, names that it does not have or has twice."""
    db = open_db(dim=DIM)
    table = pa.table({"vector": VECTORS.tolist()})
    for call, words in (
        (lambda: db.add_many(VECTORS, id_column="id"), "expected a table in which id_column is"),
        (lambda: db.add_many(table, [{}] * 4), "got metadatas beside it"),
        (lambda: db.add_many(table, text_column="body"), "column 'body' for the text"),
        (lambda: db.add_many(pa.table([[1], [2]], names=["a", "a"])), "'a' twice"),
        (lambda: db.add_many(pd.DataFrame({"vector": list(VECTORS), 1: 2})), "strs, got 1"),
        (lambda: db.upsert_many(table), "ids to upsert"),
        (lambda: db.upsert_many(pa.table({"id": [1]})), "vectors, metadatas or texts"),
        (lambda: db.upsert_many(pa.table({"id": [1], "vector": VECTORS[:1].tolist()}), merge=True), "to merge"),
        (lambda: db.add_many(pl.LazyFrame({"vector": [[1.0] * 3]})), "sequence"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            call()
    assert len(db) == 0


def test_a_table_is_one_batch_and_a_large_one_is_not(open_db: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit all rows or none; beyond it, and of a stream, by chunks, and the error says what is there."""
    db = open_db(dim=DIM)
    db.add(VECTORS[0], id=2)
    table = pa.table({"vector": VECTORS.tolist(), "id": [0, 1, 2, 3]})
    with pytest.raises(DuplicateIdError) as caught:
        db.add_many(table)
    assert (len(db), caught.value.committed) == (1, [])
    batches = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))
    with pytest.raises(DuplicateIdError) as caught:
        db.add_many(batches)
    assert (len(db), caught.value.committed) == (3, [0, 1])
    db.delete_many([0, 1])
    monkeypatch.setattr(intake, "MAX_BATCH_BYTES", 20)
    for frame in (table, table.to_pandas(), pl.from_arrow(table)):
        with pytest.raises(DuplicateIdError) as caught:
            db.add_many(frame, batch_size=1)
        assert (len(db), caught.value.committed) == (3, [0, 1])
        db.delete_many([0, 1])


# --- there and back ---------------------------------------------------------------------------------------------

ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=5).filter(str.isprintable))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))
keys = st.sampled_from(["a", "b", "c", "id", "vector", "embedding", "text", "metadata", "score", "", "x.y", "\0", "é"])
one_kind = st.sampled_from([st.integers(-5, 5), st.booleans(), st.text(max_size=3), st.lists(st.integers(-5, 5))])
metadatas = st.one_of(
    st.lists(st.dictionaries(keys, values, max_size=4), min_size=1, max_size=6),
    # What tables usually look like: a key has one kind.
    st.dictionaries(keys, one_kind, max_size=4).flatmap(
        lambda kinds: st.lists(st.fixed_dictionaries({}, optional=kinds), min_size=1, max_size=6)
    ),
)


def assert_same_records(found: list[Record], wanted: list[Record]) -> None:
    """Equal, and no bool became an int."""
    assert found == wanted
    assert [repr_kinds(record.metadata) for record in found] == [repr_kinds(record.metadata) for record in wanted]


def repr_kinds(value: Any) -> Any:
    """The value with its kinds; an int and a float of the same value are the same number."""
    if isinstance(value, dict):
        return {key: repr_kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [repr_kinds(item) for item in value]
    return ("bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "", value)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NoPokeDB, NoPokeDB]]:
    folder = tmp_path_factory.mktemp("tables")
    with (
        NoPokeDB(dim=DIM, path=folder / "one", durability="os") as one,
        NoPokeDB(dim=DIM, path=folder / "two", durability="os") as two,
    ):
        yield one, two


@settings(max_examples=80)
@given(data=st.data())
@pytest.mark.parametrize("through", [to_arrow, to_pandas, to_polars])
def test_there_and_back(
    pair: tuple[NoPokeDB, NoPokeDB], through: Callable[[NoPokeDB], Any], data: st.DataObject
) -> None:
    """What a table is made of it becomes again: ids, vectors to the last bit, texts, metadata of any shape."""
    one, two = pair
    for db in pair:
        db.delete_many(where={"$id": {"$exists": True}})
    given_metadatas = data.draw(metadatas)
    kind = (
        ids
        if through is not to_polars
        else data.draw(st.sampled_from([st.integers(-9, 9), st.text("ab1", min_size=1)]))
    )
    given_ids = data.draw(st.lists(kind, min_size=len(given_metadatas), max_size=len(given_metadatas), unique=True))
    texts = data.draw(st.lists(st.none() | st.text(max_size=4), min_size=len(given_ids), max_size=len(given_ids)))
    numbers = st.floats(width=32, allow_nan=False, min_value=0.125, max_value=1e6)
    vectors = [data.draw(st.lists(numbers, min_size=DIM, max_size=DIM)) for _ in given_ids]
    one.add_many(vectors, given_metadatas, ids=given_ids, texts=texts)
    two.add_many(through(one))
    assert_same_records(dump(two), dump(one))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, 1], None),
        ([1, None], "int64"),  # the null stays, in the JSON
        ([None, None], None),
        ([2**53 + 1, 0.5], None),
        ([2**53, 0.5], "double"),
        ([2**63, 1], None),
        ([2**63 - 1, -(2**63)], "int64"),
        (["1", 1], None),
        ([[], []], None),
        ([[], ["a"]], "list<item: string>"),
        ([[1, None], [1]], None),
        ([[True], [1]], None),
        ([[2**53 + 1], [0.5]], None),
        ([[[1]], [[2]]], None),
        ([{}, {"b": 1}], None),
    ],
)
def test_only_what_comes_back_equal_is_a_column(open_db: Open, values: list[Any], kind: str | None) -> None:
    """Kinds that a column would change stay in the JSON; either way each value comes back."""
    db = open_db(dim=DIM)
    db.add_many(VECTORS[:3], [{"a": values[0]}, {"a": values[1]}, {}])
    table = to_arrow(db)
    assert (str(table.schema.field("a").type) if "a" in table.column_names else None) == kind
    for through in (to_arrow, to_pandas, to_polars):
        copy = {record.id: record for record in dump(db)}
        db.delete_many(list(copy))
        db.add_many(through(list(copy.values())))
        assert_same_records(dump(db), list(copy.values()))


@pytest.mark.engines
def test_a_collection_as_a_table(open_db: Open, tmp_path: Path) -> None:
    """A collection of any engine, a scan of it, and its hits; columns have the types that the docstring says."""
    db = open_db(dim=DIM)
    metadatas = [{"n": 2**63 - 1, "t": ["a"], "m": 1}, {"n": -1, "m": "x", "f": 1}, {"f": 2.5, "o": {}}, {"b": True}]
    db.add_many(VECTORS, metadatas, ids=[5, "5", -1, "é"], texts=["fox", None, "dog", ""])
    table = to_arrow(db)
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "string",
        "text": "string",
        "vector": "fixed_size_list<item: float>[3]",
        "n": "int64",
        "t": "list<item: string>",
        "f": "double",
        "b": "bool",
        "metadata": "string",
    }
    with NoPokeDB(dim=DIM, path=tmp_path / "copy") as copy:
        copy.add_many(table)
        assert_same_records(dump(copy), dump(db))
        copy.upsert_many(to_pandas(db))
        assert_same_records(dump(copy), dump(db))
    assert to_arrow(db.scan({"b": True}, include=())).column_names == ["id"]
    frame = to_pandas(db)
    assert frame["id"].tolist() == sorted([5, "5", -1, "é"], key=order)
    assert str(frame["n"].dtype) == "Int64" and frame["n"].max() == 2**63 - 1
    assert str(frame["b"].dtype) == "boolean"
    with pytest.raises(InvalidInputError, match="all ints or all strs"):
        to_polars(db)
    hits = db.query(VECTORS[0], k=2, include=("metadata", "vector"))
    table = to_arrow(hits)
    assert table["distance"].to_pylist() == [hit.distance for hit in hits]
    assert table["score"].to_pylist() == [hit.score for hit in hits]
    assert to_pandas(hits)["vector"][0].tolist() == hits[0]["vector"]
    numbered = db.query(VECTORS[0], k=1, where={"$id": 5})
    assert to_polars(numbered).columns == ["id", "score", "distance", "n", "t", "m"]


def test_nothing_and_wrong_things(open_db: Open) -> None:
    db = open_db(dim=DIM)
    for nothing in (db, [], db.query(VECTORS[0])):
        assert to_arrow(nothing).num_rows == len(to_pandas(nothing)) == to_polars(nothing).height == 0
    wrong: Any
    for wrong in (7, "ab", {"id": 1}, [1], Record(1), [None]):
        with pytest.raises(InvalidInputError, match="expected records or hits"):
            to_arrow(wrong)


def test_duckdb_reads_what_is_exported(tmp_path: Path) -> None:
    """Parquet from the command line, and tables in memory, answer SQL; and what DuckDB answers is taken."""
    from nopokedb.cli.application import run

    with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
        db.add_many(VECTORS, [{"n": n, "w": 0.5 * n} for n in range(4)], ids=list("abcd"), texts=["t", None, "u", ""])
        table = duckdb.from_arrow(to_arrow(db))
        assert table.aggregate("sum(n), max(w)").fetchall() == [(6, 1.5)]
        hits = duckdb.from_arrow(to_arrow(db.query(VECTORS[0], k=2)))
        assert hits.aggregate("arg_max(id, score)").fetchall() == [("a",)]
        db.upsert_many(table.filter("n > 1").project("id, n + 10 AS n"))
        assert [db.get(key) for key in "abcd"] == [{"n": 0, "w": 0.0}, {"n": 1, "w": 0.5}, {"n": 12}, {"n": 13}]
    target = tmp_path / "out.parquet"
    assert run(["export", str(tmp_path / "db"), str(target)]) == 0
    query = "SELECT id, CAST(metadata->>'n' AS BIGINT), vector[1] FROM read_parquet(?) ORDER BY id"
    found = duckdb.execute(query, [str(target)]).fetchall()
    assert found == [("a", 0, 1.0), ("b", 1, 4.0), ("c", 12, 7.0), ("d", 13, 10.0)]


@pytest.mark.parametrize("missing", ["pyarrow", "pandas", "polars"])
def test_a_missing_library_is_named(tmp_path: Path, missing: str) -> None:
    """The error says what to install; nothing of the core needs it."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
import nopokedb
db = nopokedb.NoPokeDB(dim=2, path="db")
db.add_many([[1, 2]], ids=[1])
try:
    nopokedb.{"to_arrow" if missing == "pyarrow" else f"to_{missing}"}(db)
except ImportError as error:
    assert {missing!r} in str(error) and "pip install" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_times_with_a_zone_become_text(open_db: Open) -> None:
    db = open_db(dim=DIM)
    db.add_many(pl.DataFrame({"vector": [[1.0, 2, 3]], "at": [datetime(2024, 5, 1, tzinfo=UTC)]}))
    assert db.get(0) == {"at": "2024-05-01T00:00:00.000000Z"}


def test_how_things_look(open_db: Open) -> None:
    """One line each, without a whole vector; in a notebook a table in which nothing that is stored becomes HTML."""
    db = open_db(dim=DIM)
    evil = "<script>alert(1)</script>"
    db.add(VECTORS[0], {evil: evil, "long": "x" * 10_000}, id=evil, text=evil)
    record, hit = db[evil], db.query(VECTORS[0], include=EVERYTHING)[0]
    groups = db.query(VECTORS[0], group_by=evil)
    for shown in (db, record, hit, groups[0]):
        page = shown._repr_html_()
        assert evil not in page and "&lt;script&gt;" in page and len(page) < 3_000, shown
        assert page.startswith("<table>") and page.endswith("</table>")
    assert repr(Record(1, {"n": 1}, np.arange(9, dtype=np.float32))) == (
        "Record(id=1, metadata={'n': 1}, vector=[0, 1, 2, 3, ...] (9))"
    )
    db.close()
    assert "closed" in db._repr_html_()
