"""Import and export: every format there and back, other programs' files, bad rows, killed imports."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import dump

from nopokedb import NoPokeDB
from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.transfer import importing
from nopokedb.transfer.exporting import export_file
from nopokedb.transfer.formats import FORMATS, VECTORS_ONLY, Format, format_of
from nopokedb.transfer.importing import Options, import_file
from nopokedb.transfer.layout import Layout
from nopokedb.transfer.report import ImportReport
from nopokedb.transfer.rows import id_of_text, id_text

DIM = 5
FULL = [kind for kind in FORMATS if kind not in VECTORS_ONLY]
IDS: list[int | str] = [
    0,
    -1,
    2**63 - 1,
    -(2**63),
    7,
    "7",
    "-1",
    "007",
    '"',
    '"7"',
    "a,b\nc",
    "ü\u2028\0",
    " x ",
    "null",
]
TEXTS = [None, "", '""', '"', '""""', '"quoted"', "a,b\r\nc", "ünï\u2028\0", "=1+1", "null", "1", " ", "\r", "[1]"]
METADATA: list[dict[str, Any]] = [
    {"big": 2**63 - 1, "small": -(2**63), "float": 0.1, "none": None, "yes": True, "text": "1"},
    {"nested": {"list": [1, 2.5, "x", None, {"a": []}]}, "": "empty key", "id": "not mine", "vector": [1]},
    {"ünï": "\u2028\0\ud7ff", "q": '"', "html": "<script>alert(1)</script>"},
]


def fill(path: Path, ids: list[Any], rng: np.random.Generator, space: str = "cosine") -> NoPokeDB:
    db = NoPokeDB(DIM, path=path, space=space)  # type: ignore[arg-type]
    vectors = rng.standard_normal((len(ids), DIM)).astype(np.float32)
    vectors[0] = [1e-30 if space != "cosine" else 1e-8, 1.1754944e-38, 1, 16777217, 1e15]
    metadatas = [METADATA[n % 3] if n % 4 else {} for n in range(len(ids))]
    db.add_many(vectors, metadatas, ids=ids, texts=[TEXTS[n % len(TEXTS)] for n in range(len(ids))])
    return db


@pytest.mark.parametrize("ids", [IDS, [n for n in IDS if isinstance(n, int)], [n for n in IDS if isinstance(n, str)]])
@pytest.mark.parametrize("kind", FULL)
def test_there_and_back(tmp_path: Path, rng: np.random.Generator, kind: Format, ids: list[Any]) -> None:
    """Ids (1 and "1"), 64 bits, Unicode, float32 to the last bit, no text and the empty one: all come back."""
    with fill(tmp_path / "db", ids, rng, "l2") as db:
        content = dump(db)
    report = export_file(tmp_path / "db", tmp_path / f"file.{kind}")
    assert report.count == len(ids) and not report.left_out and report.size_bytes
    done = import_file(tmp_path / f"file.{kind}", tmp_path / "again", Options(space="l2", batch_size=5))
    assert (done.imported, done.bad_count, done.finished, done.created) == (len(ids), 0, True, True), done.bad
    with NoPokeDB(path=tmp_path / "again") as db:
        assert dump(db) == content
    done = import_file(tmp_path / f"file.{kind}", tmp_path / "again", Options(space="l2", batch_size=5))
    assert done.finished and done.resumed_at == done.imported == len(ids)


@pytest.mark.parametrize("kind", sorted(VECTORS_ONLY))
def test_vectors_there_and_back(tmp_path: Path, rng: np.random.Generator, kind: Format) -> None:
    """Formats of vectors alone say what they leave out, and number the records anew."""
    vectors = rng.integers(0, 256, (50, DIM)).astype(np.float32)
    with NoPokeDB(DIM, path=tmp_path / "db") as db:
        db.add_many(vectors, ids=[str(n) for n in range(10, 60)])
    report = export_file(tmp_path / "db", tmp_path / f"file.{kind}")
    assert report.left_out == ("ids", "metadata", "texts")
    import_file(tmp_path / f"file.{kind}", tmp_path / "again")
    with NoPokeDB(path=tmp_path / "again") as db:
        found = list(db.scan(include=("vector",)))
        assert [record.id for record in found] == list(range(50))
        assert np.array_equal([record.vector for record in found], vectors)
    if kind == "bvecs":
        with NoPokeDB(path=tmp_path / "db") as db:
            db.upsert("10", vectors[0] + 0.5)
        with pytest.raises(InvalidInputError, match="'10'"):
            export_file(tmp_path / "db", tmp_path / "file2.bvecs")
        assert not list(tmp_path.glob("file2*"))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_collection(tmp_path: Path, kind: Format) -> None:
    """No records make a file without rows, which adds none."""
    NoPokeDB(DIM, path=tmp_path / "db").close()
    assert export_file(tmp_path / "db", tmp_path / f"file.{kind}").count == 0
    if kind in ("fvecs", "bvecs"):  # nothing in the file tells the dimension
        with pytest.raises(ArchiveError):
            import_file(tmp_path / f"file.{kind}", tmp_path / "db")
    else:
        report = import_file(tmp_path / f"file.{kind}", tmp_path / "db")
        assert (report.imported, report.finished) == (0, True)


@given(st.integers(-(2**63), 2**63 - 1) | st.text(min_size=1, max_size=20) | st.from_regex(r'["-]?[0-9]{1,20}"?'))
def test_ids_as_text(id_: int | str) -> None:
    """Every id has one text, and no other id has it."""
    again = id_of_text(id_text(id_))
    assert again == id_ and type(again) is type(id_)


def test_exports_of_a_moment_and_a_part(tmp_path: Path, rng: np.random.Generator) -> None:
    """A filter, a snapshot, a file that exists; beside a writer."""
    with NoPokeDB(DIM, path=tmp_path / "db") as db:
        db.add_many(rng.random((100, DIM)), [{"n": n} for n in range(100)])
        db.snapshot("before")
        db.delete_many(range(90))
        assert export_file(tmp_path / "db", tmp_path / "a.jsonl").count == 10
        assert export_file(tmp_path / "db", tmp_path / "b.jsonl", at="before").count == 100
        assert export_file(tmp_path / "db", tmp_path / "c.csv", where={"n": {"$gte": 95}}).count == 5
    with pytest.raises(InvalidInputError, match="exists"):
        export_file(tmp_path / "db", tmp_path / "a.jsonl")
    export_file(tmp_path / "db", tmp_path / "a.jsonl", at="before", overwrite=True)
    assert [json.loads(line)["id"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == list(range(100))


# --- files of other programs ----------------------------------------------------------------------------------------


def records(path: Path) -> dict[Any, tuple[Any, Any, list[float]]]:
    with NoPokeDB(path=path) as db:
        found = db.scan(include=("metadata", "vector", "text"))
        return {r.id: (r.metadata, r.text, r.vector.tolist()) for r in found}  # type: ignore[union-attr]


def test_a_foreign_csv(tmp_path: Path) -> None:
    """Columns by name and by number, cells that are numbers, a byte order mark."""
    file = tmp_path / "x.csv"
    file.write_text("\ufeffkey,e10,e2,body,year,zip,open,score\n7,1,2.5,hello,2020,01234,true,1e999\nb,3,4,,,,,\n")
    layout = Layout(id="key", vector="e*", text="body")
    import_file(file, tmp_path / "db", Options(layout=layout))
    assert records(tmp_path / "db") == {
        7: ({"year": 2020, "zip": "01234", "open": True, "score": "1e999"}, "hello", [2.5, 1]),
        "b": ({}, None, [4, 3]),
    }
    chosen = Layout(id="key", vector="e*", fields={"year": "when", "score": "score"}, id_type="str")
    import_file(file, tmp_path / "db2", Options(layout=chosen, strings=True))
    assert records(tmp_path / "db2")["7"] == ({"when": "2020", "score": "1e999"}, None, [2.5, 1])
    with pytest.raises(InvalidInputError, match="key, e10, e2"):
        import_file(file, tmp_path / "db3", Options(layout=Layout(vector="no")))
    assert not (tmp_path / "db3").exists()


def test_a_foreign_parquet(tmp_path: Path) -> None:
    """Types of tables: dates, structs, dictionaries, lists of lists, nulls and NaN as nothing, doubles as vectors."""
    table = pa.table(
        {
            "embedding": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64())),
            "title": pa.array(["a", None]).dictionary_encode(),
            "at": pa.array([datetime(2024, 1, 2, tzinfo=UTC), None]),
            "naive": pa.array([datetime(2024, 1, 2, 3), None]),
            "score": pa.array([0.5, float("nan")]),
            "tags": pa.array([[1, 2], []]),
            "more": pa.array([{"x": 1, "y": ["z"]}, None]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    import_file(tmp_path / "x.parquet", tmp_path / "db")
    first = {
        "title": "a",
        "at": "2024-01-02T00:00:00.000000Z",
        "naive": "2024-01-02T03:00:00",
        "score": 0.5,
        "tags": [1, 2],
        "more": {"x": 1, "y": ["z"]},
    }
    assert records(tmp_path / "db") == {0: (first, None, [1, 2]), 1: ({"tags": []}, None, [3, 4])}


def test_a_foreign_hdf5_and_npz(tmp_path: Path, rng: np.random.Generator) -> None:
    """The layout of ann-benchmarks with its space; arrays of one length as columns; no pickled objects."""
    vectors = rng.random((30, DIM)).astype(np.float32)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["train"], file["test"], file["neighbors"] = vectors, vectors[:3], np.zeros((3, 10), "i4")
        file.attrs["distance"] = "euclidean"
    report = import_file(tmp_path / "x.hdf5", tmp_path / "db")
    assert (report.space, report.imported) == ("l2", 30)
    assert import_file(tmp_path / "x.hdf5", tmp_path / "db", Options(layout=Layout(vector="test"))).imported == 3
    np.savez_compressed(tmp_path / "x.npz", emb=vectors, ids=np.arange(30) + 2**62, year=np.full(30, 2020), other=[1])
    import_file(tmp_path / "x.npz", tmp_path / "db2")
    assert records(tmp_path / "db2")[2**62] == ({"year": 2020}, None, vectors[0].tolist())
    np.savez(tmp_path / "y.npz", emb=vectors, ids=np.array([{}] * 30, object))
    with pytest.raises(ArchiveError, match="pickled"):
        import_file(tmp_path / "y.npz", tmp_path / "db3")


def test_a_model_makes_the_vectors(tmp_path: Path) -> None:
    """Rows of texts become records where the collection has a model."""
    (tmp_path / "x.jsonl").write_text('{"text": "a cat"}\n{"text": "a car"}\n{"title": "nothing to embed"}\n')
    report = import_file(tmp_path / "x.jsonl", tmp_path / "db", Options(embed="wordllama", skip_bad=True))
    assert (report.imported, report.bad_count, report.dim) == (2, 1, 256)
    with NoPokeDB(path=tmp_path / "db") as db:
        assert db.query("kitten", k=1)[0].id == 0


# --- bad rows ---------------------------------------------------------------------------------------------------------

BAD_LINES = [
    (2, "not json", "expected a JSON object"),
    (3, '{"id": 1, "vector": [1, 2]}', "shape (3,), got (2,)"),
    (5, '{"id": 0, "vector": [1, 2, 3]}', "the id 0 is that of line 1"),
    (6, '{"id": true, "vector": [1, 2, 3]}', "bool"),
    (7, '{"id": 18446744073709551616, "vector": [1, 2, 3]}', "within 64 bits"),
    (8, '{"id": 8, "vector": [1, 2, null]}', "None"),
    (9, '{"id": 9, "vector": [0, 0, 0]}', "zero vector"),
    (10, '{"id": 10, "vector": [1, 2, 1e39]}', "finite"),
    (11, '{"id": 11}', "expected a vector"),
    (12, '{"id": 12, "vector": [1, 2, 3], "text": 5}', "text"),
    (13, '{"id": 13, "vector": [1, 2, 3], "n": 18446744073709551616}', "64-bit"),
    (14, "\udcff", "utf-8"),
    (15, '{"id": 15, "vector": [1, 2, 3], "metadata": [1]}', "JSON object"),
    (16, '{"id": 16, "vector": [1, 2, 3], "metadata": {"a": 1}, "a": 2}', "one value for the key 'a'"),
    (17, '{"id": 40, "vector": [1, 2, 3]}', "exists in the collection"),
]
GOOD = '{"id": %d, "vector": [1, 2, 3]}'


def bad_file(folder: Path) -> Path:
    lines = {1: GOOD % 0, 4: "", 18: GOOD % 18, **{line: text for line, text, _ in BAD_LINES}}
    path = folder / "bad.jsonl"
    text = "\n".join(lines[line] for line in sorted(lines))
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


def test_a_dry_run_names_every_bad_line_and_writes_nothing(tmp_path: Path) -> None:
    """Line numbers count empty lines too; the folder is byte for byte what it was, or does not exist."""
    file = bad_file(tmp_path)
    report = import_file(file, tmp_path / "none", dry_run=True)
    assert not (tmp_path / "none").exists() and report.imported == 3
    with NoPokeDB(3, path=tmp_path / "db") as db:
        db.add([1, 2, 3], id=40)
    before = {path: path.read_bytes() for path in (tmp_path / "db").rglob("*") if path.is_file()}
    report = import_file(file, tmp_path / "db", dry_run=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "db").rglob("*") if path.is_file()}
    found = {bad.line: bad.reason for bad in report.bad}
    assert sorted(found) == [line for line, *_ in BAD_LINES]
    for line, _, reason in BAD_LINES:
        assert reason.lower() in found[line].lower(), found[line]
    assert (report.imported, report.bad_count, report.unit) == (2, len(BAD_LINES), "line")


def test_a_dry_run_finds_ids_that_come_twice_far_apart(tmp_path: Path) -> None:
    """Also where they would be in different batches; 1 and "1" are two."""
    lines = [{"id": n % 1500 if n != 1499 else "1", "vector": [1, 2]} for n in range(1502)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = import_file(tmp_path / "x.jsonl", tmp_path / "db", Options(batch_size=100), dry_run=True)
    assert [(bad.line, bad.reason) for bad in report.bad] == [
        (1501, "the id 0 is that of line 1"),
        (1502, "the id 1 is that of line 2"),
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 10_000])
def test_bad_rows_stop_or_are_left_out(tmp_path: Path, batch_size: int) -> None:
    """By default everything before the first bad row is written, and a later run goes on from there."""
    file = bad_file(tmp_path)
    with NoPokeDB(3, path=tmp_path / "db") as db:
        db.add([1, 2, 3], id=40)
    options = Options(batch_size=batch_size)
    for _ in range(2):
        report = import_file(file, tmp_path / "db", options)
        assert not report.finished and report.bad[0].line == 2 and report.imported == 1
    lines = file.read_bytes().split(b"\n")
    lines[1] = (GOOD % 2).encode()
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(InvalidInputError, match="has changed"):
        import_file(file, tmp_path / "db", options)
    with pytest.raises(InvalidInputError, match="expected the options"):
        import_file(file, tmp_path / "db", Options(mode="upsert"), changed=True)
    report = import_file(file, tmp_path / "db", options, changed=True)
    assert report.resumed_at == 1 and report.bad[0].line == 3 and report.imported == 2
    report = import_file(file, tmp_path / "db", Options(batch_size=batch_size, skip_bad=True))
    assert report.finished and (report.imported, report.bad_count) == (3, len(BAD_LINES) - 1)
    assert set(records(tmp_path / "db")) == {0, 2, 18, 40}


def test_a_finished_import_is_not_done_again(tmp_path: Path) -> None:
    """By itself; it is when it is asked for, or the file is another."""
    file = tmp_path / "x.jsonl"
    file.write_text('{"vector": [1, 2]}\n')
    for restart, imported, count in ((False, 1, 1), (False, 1, 1), (True, 1, 2)):
        assert import_file(file, tmp_path / "db", restart=restart).imported == imported
        assert len(records(tmp_path / "db")) == count
    file.write_text('{"vector": [1, 2]}\n{"vector": [3, 4]}\n')
    report = import_file(file, tmp_path / "db")
    assert (report.imported, report.resumed_at) == (2, None) and len(records(tmp_path / "db")) == 4


def test_upserts(tmp_path: Path) -> None:
    """The last row of an id counts, parts that the file does not have stay, new ids need a vector."""
    with NoPokeDB(2, path=tmp_path / "db") as db:
        db.add([1, 2], {"old": 1}, id=1, text="old")
    lines = [
        {"id": 1, "vector": [3, 4]},
        {"id": 2, "vector": [5, 6], "n": 1},
        {"id": 2, "vector": [7, 8]},
        {"id": 1, "text": "new"},
        {"id": 3, "n": 1},
        {"vector": [1, 1]},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = import_file(tmp_path / "x.jsonl", tmp_path / "db", Options(mode="upsert", skip_bad=True))
    assert [bad.line for bad in report.bad] == [5, 6] or [bad.line for bad in report.bad] == [6, 5]
    assert records(tmp_path / "db") == {1: ({"old": 1}, "new", [3, 4]), 2: ({"n": 1}, None, [7, 8])}


# --- damaged files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_refused(tmp_path: Path, rng: np.random.Generator, kind: Format) -> None:
    """Cut at many places, other formats, nothing at all: an error that names the file or bad rows, never a crash, and
    never a record that the file does not have."""
    with NoPokeDB(DIM, path=tmp_path / "db") as db:
        db.add_many(rng.integers(1, 99, (40, DIM)).astype("f4"), [{"n": n} for n in range(40)])
        vectors = {record.vector.tobytes() for record in db.scan(include=("vector",))}  # type: ignore[union-attr]
    export_file(tmp_path / "db", tmp_path / f"whole.{kind}")
    data = (tmp_path / f"whole.{kind}").read_bytes()
    other = (tmp_path / "db" / "manifest.json").read_bytes()
    cuts = [data[: int(at)] for at in rng.integers(0, len(data), 5)]
    for number, bytes_ in enumerate([b"", other, bytes(200), *cuts]):
        file = tmp_path / f"{number}.{kind}"
        file.write_bytes(bytes_)
        target = tmp_path / f"db{number}"
        try:
            import_file(file, target, Options(skip_bad=True))
        except (ArchiveError, InvalidInputError) as error:
            assert "expected" in str(error) or file.name in str(error)
        if target.exists() and kind not in ("csv", "jsonl"):  # a cut number is a number
            with NoPokeDB(path=target) as db:
                assert {r.vector.tobytes() for r in db.scan(include=("vector",))} <= vectors  # type: ignore[union-attr]


def test_formats_by_name(tmp_path: Path) -> None:
    """By suffix, or as it is said."""
    assert format_of(Path("a/B.NDJSON")) == "jsonl" and format_of(Path("x.feather")) == "arrow"
    assert format_of(Path("x"), "csv") == "csv"
    for path, given_ in ((Path("x.pdf"), None), (Path("x.csv"), "xml")):
        with pytest.raises(InvalidInputError):
            format_of(path, given_)
    with pytest.raises(FileNotFoundError):
        import_file(tmp_path / "none.csv", tmp_path / "db")


def test_csv_limits_are_given_back(tmp_path: Path) -> None:
    """Vectors are longer than the module csv allows a cell; its limit is that of the whole process."""
    before = csv.field_size_limit()
    with NoPokeDB(10_000, path=tmp_path / "db") as db:
        db.add_many(np.random.default_rng(0).random((3, 10_000)))
    export_file(tmp_path / "db", tmp_path / "x.csv")
    assert import_file(tmp_path / "x.csv", tmp_path / "again").imported == 3
    assert csv.field_size_limit() == before


# --- killed imports ---------------------------------------------------------------------------------------------------

CHILD = """
import sys
from nopokedb.transfer.importing import Options, import_file
mode, batch_size = sys.argv[3], int(sys.argv[4])
report = import_file(sys.argv[1], sys.argv[2], Options(mode=mode, batch_size=batch_size, skip_bad=True))
print(report.imported, report.bad_count)
"""


def lines_of(count: int, with_ids: bool) -> list[str]:
    return [
        "broken" if n % 50 == 7 else json.dumps({**({"id": f"r{n}"} if with_ids else {}), "n": n, "vector": [n + 1, 1]})
        for n in range(count)
    ]


@pytest.mark.parametrize(("mode", "with_ids"), [("insert", False), ("insert", True), ("upsert", True)])
def test_killed_at_any_time_nothing_is_lost_or_doubled(
    tmp_path: Path, rng: np.random.Generator, mode: str, with_ids: bool
) -> None:
    """kill -9 again and again at any moment, with other records written between two runs."""
    count = 500
    (tmp_path / "x.jsonl").write_text("\n".join(lines_of(count, with_ids)))
    kills = others = 0
    command = [sys.executable, "-c", CHILD, str(tmp_path / "x.jsonl"), str(tmp_path / "db"), mode, "20"]
    for attempt in range(200):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        folder, journals = tmp_path / "db", 0
        target = int(rng.integers(4, 20))
        seen = None
        while child.poll() is None and journals < target:  # until so many batches were announced
            found = [path.stat().st_mtime_ns for path in folder.glob("import-*.json")] if folder.exists() else []
            journals, seen = (journals + 1, found) if found and found != seen else (journals, seen)
            time.sleep(0.001 * rng.random())
        child.send_signal(signal.SIGKILL)
        out = child.communicate()[0]
        if child.returncode == 0:
            break
        kills += 1
        with NoPokeDB(2, path=folder) as db:
            others += 1
            db.add([1, 1], {"other": attempt})
    else:
        pytest.fail("it never ended")
    bad = len(range(7, count, 50))
    assert kills and out.split() == [str(count - bad), str(bad)]
    with NoPokeDB(path=tmp_path / "db") as db:
        found = sorted(record.metadata["n"] for record in db.scan({"n": {"$exists": True}}))  # type: ignore[index]
        assert found == [n for n in range(count) if n % 50 != 7]
        assert len(db) == count - bad + others


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
def test_killed_between_the_announcement_and_the_end_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool, with_ids: bool
) -> None:
    """Announced and written, or announced and not: the next run knows which."""
    (tmp_path / "x.jsonl").write_text("\n".join(lines_of(100, with_ids)))
    original: Callable[..., Any] = NoPokeDB.add_many

    def dies(self: NoPokeDB, vectors: Any, *args: Any, **kwargs: Any) -> None:
        if len(self):
            if written:
                original(self, vectors, *args, **kwargs)
            raise KeyboardInterrupt
        original(self, vectors, *args, **kwargs)

    options = Options(batch_size=30, skip_bad=True)
    with monkeypatch.context() as patch:
        patch.setattr(NoPokeDB, "add_many", dies)
        with pytest.raises(KeyboardInterrupt):
            import_file(tmp_path / "x.jsonl", tmp_path / "db", options)
    with NoPokeDB(path=tmp_path / "db") as db:
        assert len(db) == (60 if written else 30)
        db.add([1, 1], id=10_000)  # in the way of nothing
        if with_ids and written:
            db.delete_many([f"r{n}" for n in range(32, 40)])  # not to be brought back
    report: ImportReport = import_file(tmp_path / "x.jsonl", tmp_path / "db", options)
    assert (report.imported, report.bad_count, report.finished) == (98, 2, True)
    with NoPokeDB(path=tmp_path / "db") as db:
        assert len(db) == (99 - 8 if with_ids and written else 99)


def test_memory_is_bounded_by_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is closed by its bytes, whatever its rows."""
    monkeypatch.setattr(importing, "_BATCH_BYTES", 10_000)
    sizes: list[int] = []
    original: Callable[..., Any] = NoPokeDB.add_many

    def counted(self: NoPokeDB, vectors: Any, *args: Any, **kwargs: Any) -> None:
        sizes.append(len(vectors))
        original(self, vectors, *args, **kwargs)

    monkeypatch.setattr(NoPokeDB, "add_many", counted)
    lines = [json.dumps({"vector": [n, 1], "text": "x" * 1000}) for n in range(100)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    import_file(tmp_path / "x.jsonl", tmp_path / "db")
    assert sum(sizes) == 100 and max(sizes) <= 11


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path) -> None:
    """JSONL, CSV, NPY and fvecs need nothing; the others say what to install."""
    for module, kind in (("pyarrow", "parquet"), ("pyarrow", "arrow"), ("h5py", "hdf5")):
        (tmp_path / f"x.{kind}").write_bytes(b"")
        code = (
            f"import sys; sys.modules[{module!r}] = None\n"
            "from nopokedb.transfer.importing import import_file\n"
            f"import_file({str(tmp_path / f'x.{kind}')!r}, 'db')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
        assert f"needs {module}" in done.stderr and "[transfer]" in done.stderr, done.stderr
