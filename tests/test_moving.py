"""Collections of other programs come over whole, answer as there, and their files cannot do harm.

The files and what their programs said of them are in `data/foreign.tar.gz`, made by `make_foreign_folders.py`; set
NOPOKEDB_TEST_FOREIGN to a folder that it left to try other versions of the programs.
"""

from __future__ import annotations

import base64
import doctest
import io
import json
import os
import pickle
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import ArchiveError, InvalidInputError, NoPokeDB, NoPokeError
from nopokedb.cli.application import run
from nopokedb.moving.chroma import ChromaOrigin
from nopokedb.moving.inert import Inert, Name, read_inert
from nopokedb.moving.migrating import PROGRAMS, Choices, Nearest, migrate

ARCHIVE = Path(__file__).parent / "data" / "foreign.tar.gz"
LEGACY = Path(__file__).parent / "data" / "legacy-0.5.1.tar.gz"
GIVEN = os.environ.get("NOPOKEDB_TEST_FOREIGN")
CASES = [
    *("chroma-books", "chroma-many", "chroma-unit", "qdrant-books", "qdrant-named", "flat.faiss", "map.faiss"),
    *("hnsw.faiss", "ivf.faiss", "index.hnswlib", "cos.usearch", "l2.usearch", "ip.usearch"),
    *("vec.db-books", "vec.db-keyed"),
]
LOSSY = ["lossy-PQ4x4.faiss", "lossy-SQ8.faiss", "lossy-IVF4,PQ4x4.faiss", "lossy-f16.usearch", "lossy-i8.usearch"]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The folder of foreign files, for this test alone."""
    if GIVEN:
        shutil.copytree(GIVEN, tmp_path / "foreign")
    else:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(tmp_path / "foreign", filter="data")
    return tmp_path / "foreign"


def place_of(case: str) -> tuple[Any, str]:
    """The program of a case, and its file or folder."""
    name = case.split("-")[0] if not case.startswith("lossy") else case
    program = {"vec.db": "sqlite-vec"}.get(name, name.rsplit(".", 1)[-1])
    return program, name


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_a_collection_comes_over(foreign: Path, tmp_path: Path, case: str) -> None:
    """Every id, vector, key and text that the program itself says is there, and its own answers to questions; its files
    stay as they are."""
    program, name = place_of(case)
    told = json.loads((foreign / "told.json").read_text())
    wanted = told["collections"][case]
    before = bytes_of(foreign)
    report = migrate(program, foreign / name, tmp_path / "new", Choices(**wanted["options"]))
    assert bytes_of(foreign) == before
    assert (report.space, report.dim) == (wanted["space"], 8)
    assert report.same and report.overlap == 1 and not report.refused
    assert report.found == report.migrated == report.count == len(wanted["records"])
    with NoPokeDB(path=tmp_path / "new", read_only=True) as db:
        for id_, vector, metadata, text in wanted["records"]:
            record = db[id_]
            assert (type(record.id), record.metadata, record.text) == (type(id_), metadata, text)
            assert record.vector is not None
            if case in ("chroma-unit", "chroma-books"):  # direction and length are kept apart there
                assert np.allclose(record.vector, vector, rtol=1e-6)
            elif case == "qdrant-books" and id_ == 4:  # the client wrote its direction when it set the payload
                ratio = record.vector / np.array(vector)
                assert np.allclose(ratio, ratio[0], rtol=1e-4)
            else:
                assert record.vector.tolist() == np.array(vector, np.float32).tolist()
        for query, nearest in zip(told["queries"], wanted["nearest"], strict=True):
            hits = db.query(query, k=len(nearest))
            assert len({hit.id for hit in hits} & set(nearest)) >= len(nearest) - 1  # a tie may fall either way
            assert hits[0].id == nearest[0] or abs(hits[0].distance - hits[1].distance) < 1e-5  # type: ignore[operator]


@pytest.mark.parametrize("case", LOSSY)
def test_codes_are_refused(foreign: Path, tmp_path: Path, case: str) -> None:
    """What was rounded is not taken for what was given."""
    program, name = place_of(case)
    with pytest.raises(ArchiveError, match="lost what was given"):
        migrate(program, foreign / name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_original_comes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `import-legacy` reads it, and compared."""
    with tarfile.open(LEGACY) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    assert run(["migrate", "--from", "legacy", str(tmp_path / "old" / "cosine"), str(tmp_path / "new"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["same"] and report["overlap"] == 1 and report["count"] == 41
    assert any("most likely deleted: 7" in words for words in report["left_out"])
    with NoPokeDB(path=tmp_path / "new", read_only=True) as db:
        assert db.get(5) == {"replaced": True}


def test_metadata_beside_an_index(foreign: Path, tmp_path: Path) -> None:
    """Ids, metadata and texts of a file join the vectors of an index; ids that only one has are no error."""
    beside = tmp_path / "beside.jsonl"
    lines = [{"id": n, "text": f"t{n}", "n": n, "o": {"a": [None]}} for n in range(50)]
    beside.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = migrate("faiss", foreign / "flat.faiss", tmp_path / "new", Choices(metadata=beside))
    assert report.same and report.count == 60
    with NoPokeDB(path=tmp_path / "new", read_only=True) as db:
        assert (db[49].metadata, db[49].text, db[50].metadata) == ({"n": 49, "o": {"a": [None]}}, "t49", {})
    for wrong, words in (('{"n": 1}\n', "expected an id"), ('{"id": 1}\n{"id": 1}\n', "once"), ("[", "line 1")):
        beside.write_text(wrong)
        with pytest.raises(ArchiveError, match=words):
            migrate("faiss", foreign / "flat.faiss", tmp_path / "other", Choices(metadata=beside))
    with pytest.raises(InvalidInputError, match="has its own"):
        migrate("qdrant", foreign / "qdrant", tmp_path / "other", Choices(metadata=beside))


def test_what_must_be_chosen(foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors name what there is; a dry run writes nothing."""
    target = str(tmp_path / "new")
    for arguments, words in (
        (["chroma", str(foreign / "chroma")], "'books', 'many', 'unit'; name one with --collection"),
        (["chroma", str(foreign / "chroma"), "--collection", "x"], "'x' in"),
        (["qdrant", str(foreign / "qdrant"), "--collection", "named"], "'first', 'second'; name one with --vector"),
        (["qdrant", str(foreign / "chroma")], "meta.json"),
        (["hnswlib", str(foreign / "index.hnswlib")], "--space"),
        (["sqlite-vec", str(foreign / "vec.db"), "--collection", "tiny"], "int8"),
        (["faiss", str(foreign / "l2.usearch")], "whole vectors"),
        (["usearch", str(foreign / "flat.faiss")], "ends early"),
    ):
        assert run(["migrate", "--from", arguments[0], *arguments[1:], target]) == 6
        assert words in capsys.readouterr().err.replace("\n", "")
    assert run(["migrate", "--from", "faiss", str(foreign / "absent"), target]) == 2
    assert run(["migrate", "--from", "faiss", str(foreign / "flat.faiss"), target, "--dry-run"]) == 0
    assert "60 would be migrated" in capsys.readouterr().out
    assert not Path(target).exists()


def test_what_cannot_be_stored_is_told(foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that has no place here is named with its reason, all others come over."""
    storage = foreign / "qdrant" / "collection" / "named" / "storage.sqlite"
    with sqlite3.connect(storage) as db:
        (key, data) = db.execute("SELECT id, point FROM points LIMIT 1").fetchone()
        db.execute("UPDATE points SET point = ? WHERE id = ?", (data[:-5], key))
    db.close()
    arguments = ["qdrant", str(foreign / "qdrant"), "--collection", "named", "--vector", "first", "--json"]
    assert run(["migrate", "--from", *arguments, str(tmp_path / "new")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert list(report["refused"]) == ["0"] and report["same"] and report["count"] == 19
    target = ["--space", "cosine", str(tmp_path / "l2")]
    with NoPokeDB(8, path=tmp_path / "l2", space="l2"):
        pass
    assert run(["migrate", "--from", "faiss", str(foreign / "flat.faiss"), *target]) == 2
    assert "under cosine, got one of 8 dimensions, l2" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.engines
def test_any_engine_is_a_target(foreign: Path, engine: dict[str, Any]) -> None:
    """A server or a database as well as a folder."""
    at = engine.get("collection")
    kind = str(engine["path"]).split(":")[0]
    target = str(engine["path"]) + ("" if at is None else f"#{at}" if kind.startswith("postgres") else f"/{at}")
    report = migrate("chroma", foreign / "chroma", target, Choices("books"), queries=10)
    assert report.same and report.overlap == 1 and report.count == 40


def test_a_migration_that_is_killed_goes_on(foreign: Path, tmp_path: Path) -> None:
    """kill -9 in the middle, several times: nothing is lost, nothing is there twice, and other records are noticed."""
    slow = (
        "import sys; from nopokedb import copying; from nopokedb.moving.migrating import migrate, Choices\n"
        "copying._BATCH_RECORDS = 7\n"
        "migrate('chroma', sys.argv[1], sys.argv[2], Choices('many'), resume=True,"
        " advance=lambda *_: (print(flush=True), sys.stdin.readline()))"
    )
    source, target = foreign / "chroma", tmp_path / "new"
    for rounds in (1, 3):
        command = [sys.executable, "-c", slow, str(source), str(target)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None and child.stdout is not None
            for _ in range(rounds):
                assert child.stdout.readline()
                child.stdin.write(b"\n")
                child.stdin.flush()
            assert child.stdout.readline()
            child.send_signal(signal.SIGKILL)
    with pytest.raises(InvalidInputError, match="--resume"):
        migrate("chroma", source, target, Choices("many"))
    report = migrate("chroma", source, target, Choices("many"), resume=True)
    assert report.same and 0 < report.migrated < report.count == 59
    with NoPokeDB(path=target) as db:
        db.delete("m10")
    with pytest.raises(InvalidInputError, match="expected the beginning"):
        migrate("chroma", source, target, Choices("many"), resume=True)


def test_a_difference_is_noticed(foreign: Path, tmp_path: Path) -> None:
    """A changed record has another checksum, and vectors under wrong ids another overlap."""
    migrate("faiss", foreign / "flat.faiss", tmp_path / "new")
    with NoPokeDB(path=tmp_path / "new") as db:
        vectors = {record.id: record.vector for record in db.scan(include=("vector",))}
        db.upsert_many([(59 - int(id_)) for id_ in vectors], list(vectors.values()))
    report = migrate("faiss", foreign / "flat.faiss", tmp_path / "new", resume=True)
    assert report.same is False and report.overlap is not None and report.overlap < 0.6
    assert run(["migrate", "--from", "faiss", str(foreign / "flat.faiss"), str(tmp_path / "new"), "--resume"]) == 1


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_nearest_is_right(rng: np.random.Generator, space: str) -> None:
    """Against plain loops."""
    vectors = rng.standard_normal((2500, 5)).astype(np.float32)
    points = rng.standard_normal((3, 5))
    nearest = Nearest(points, space)
    for id_, vector in enumerate(vectors):
        nearest.see(id_, vector)
    found = []
    for point in points:
        wide = [vector.astype(np.float64) for vector in vectors]
        plain: Callable[[Any], float] = {
            "l2": lambda v, p=point: float(((v - p) ** 2).sum()),
            "ip": lambda v, p=point: 1 - float(v @ p),
            "cosine": lambda v, p=point: 1 - float(v @ p / np.linalg.norm(v) / np.linalg.norm(p)),
        }[space]
        best = sorted((plain(v), n) for n, v in enumerate(wide))[:10]
        found.append({n: distance for distance, n in best})
    assert nearest.overlap(found) == 1
    found[0] = {n + 10_000: distance + 1 for n, distance in found[0].items()}
    assert nearest.overlap(found) == pytest.approx(2 / 3)


# --- what a file could do ------------------------------------------------------------------------------------------


class Harm:
    """What a pickle can do when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harmed",))


def test_a_pickle_is_never_run(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point and a table of labels that would run a command are read as names, and refused."""
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Harm())
    value = read_inert(data)
    assert isinstance(value, Inert) and isinstance(value.of, Name) and value.of.name == "system"
    with sqlite3.connect(foreign / "qdrant" / "collection" / "books" / "storage.sqlite") as db:
        db.execute("UPDATE points SET point = ?", (data,))
    db.close()
    report = migrate("qdrant", foreign / "qdrant", tmp_path / "new", Choices("books"))
    assert report.count == 0 and len(report.refused) == 30
    for file in (foreign / "chroma").rglob("*.pickle"):
        file.write_bytes(data)
    with pytest.raises(ArchiveError, match="labels"):
        migrate("chroma", foreign / "chroma", tmp_path / "other", Choices("many"))
    assert not (tmp_path / "harmed").exists()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        plain = {"a": [1, 2.5, None, True, "é", 2**70], "b": (1, (), {3}), "c": {"d": b"x"}}
        assert read_inert(pickle.dumps(plain, protocol)) == plain or protocol < 4  # sets are calls before


def test_damaged_files_are_refused(foreign: Path, tmp_path: Path, seed: int) -> None:
    """Cut anywhere, or with random bytes in it, a file is read, or refused with an error of ours; nothing else."""
    chance = random.Random(seed)
    for name in ("flat.faiss", "map.faiss", "hnsw.faiss", "ivf.faiss", "index.hnswlib", "l2.usearch"):
        whole = (foreign / name).read_bytes()
        program = place_of(name)[0]
        target = tmp_path / f"damaged-{name}"
        for attempt in range(60):
            data = bytearray(whole)
            if attempt % 2:
                del data[chance.randrange(len(data)) :]
            else:
                for _ in range(3):  # near the beginning, where the sizes are
                    data[chance.randrange(min(len(data), 400))] = chance.choice([0, 1, 127, 255])
            target.write_bytes(bytes(data))
            try:
                migrate(program, target, tmp_path / "none", Choices(space="l2"), dry_run=True)
            except NoPokeError:
                assert bytes(data) != whole
    for name, case in (("chroma.sqlite3", "chroma"), ("meta.json", "qdrant"), ("vec.db", "sqlite-vec")):
        path = next(foreign.rglob(name))
        whole = path.read_bytes()
        for attempt in range(30):
            data = bytearray(whole)
            if attempt % 2:
                del data[chance.randrange(len(data)) :]
            else:
                for _ in range(200):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(bytes(data))
            source = foreign / "vec.db" if case == "sqlite-vec" else foreign / case
            for collection in ("books", "many"):
                try:
                    migrate(case, source, tmp_path / "none", Choices(collection), dry_run=True)  # type: ignore[arg-type]
                except NoPokeError:
                    pass
        path.write_bytes(whole)


def test_the_newest_spelling_of_a_point_counts(foreign: Path, tmp_path: Path) -> None:
    """Older versions of Qdrant's client kept a point once for each way to write its id; the last one written holds."""
    old = "550E8400-E29B-41D4-A716-446655440000"
    with sqlite3.connect(foreign / "qdrant" / "collection" / "books" / "storage.sqlite") as db:
        point = {"id": old, "vector": [1.0] * 8, "payload": {"newest": True}}
        data = pickle.dumps(Point(point), 4)
        key = base64.b64encode(pickle.dumps(old, 4)).decode()
        db.execute("INSERT INTO points VALUES (?, ?)", (key, data))
    db.close()
    report = migrate("qdrant", foreign / "qdrant", tmp_path / "new", Choices("books"))
    assert report.same and report.count == 30
    with NoPokeDB(path=tmp_path / "new", read_only=True) as db_new:
        assert db_new.get(old.lower()) == {"newest": True}


class Point:
    """Pickled as the client's points are: a class and the dict of its fields."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)


def test_a_wal_is_read_too(foreign: Path, tmp_path: Path) -> None:
    """What a killed program left in SQLite's WAL belongs to its collection; the folder stays as it was."""
    file = foreign / "chroma" / "chroma.sqlite3"
    live = sqlite3.connect(file, isolation_level=None)
    live.execute("PRAGMA journal_mode = WAL")
    live.execute("UPDATE embedding_metadata SET int_value = 1000 WHERE key = 'n' AND int_value = 39")
    killed = tmp_path / "killed"
    shutil.copytree(foreign / "chroma", killed)  # as if the process had ended here
    live.close()
    before = bytes_of(killed)
    assert before[str(killed / "chroma.sqlite3-wal")]
    origin = ChromaOrigin(killed, "books")
    assert next(record for record in origin.records() if record.id == "b39").metadata["n"] == 1000  # type: ignore[index]
    origin.close()
    assert bytes_of(killed) == before


def test_the_documentation_runs(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/moving-house.md has a command for each program, and prints what they print."""
    with tarfile.open(LEGACY) as archive:
        archive.extractall(foreign / "both", filter="data")
    (foreign / "both" / "cosine").rename(foreign / "old")
    monkeypatch.chdir(foreign)
    monkeypatch.setenv("COLUMNS", "100")
    text = (Path(__file__).parent.parent / "docs" / "moving-house.md").read_text()
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        for example in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, expected = example.partition("\n")
            assert run(shlex.split(line)[1:]) == 0, line
            told = normal(capsys.readouterr().out)
            assert doctest.OutputChecker().check_output(normal(expected), told, doctest.ELLIPSIS), f"{line}\n{told}"
    for program in PROGRAMS:
        assert f"--from {program}" in text, program


def normal(text: str) -> str:
    """The width of columns does not count."""
    return "".join(re.sub(r"[\s─━┏┳┓┡╇┩└┴┘]+", " ", line).strip() + "\n" for line in text.strip().splitlines())


def test_inert_values_refuse_the_rest() -> None:
    """Instructions that are not needed, and nonsense, are a ValueError."""
    for data in (
        b"",
        b".",
        b"abc",
        b"(.",
        b"\x80\x04N",
        b"\x80\x04NN.",
        b"\x80\x04\x82\x01.",
        b"N\x82\x01.",
    ):
        with pytest.raises(ValueError):
            read_inert(data)
    buffer = io.BytesIO()
    pickle.Pickler(buffer, 4).dump([np.float64(1.5)])
    assert isinstance(read_inert(buffer.getvalue())[0], Inert)


def test_a_table_of_lancedb(tmp_path: Path) -> None:
    """By its own library: rows that were deleted, changed and added, and what it answers."""
    lancedb = pytest.importorskip("lancedb", reason="LanceDB's library is not installed (extra lancedb)")
    vectors = np.random.default_rng(7).standard_normal((300, 8)).astype(np.float32)
    database = lancedb.connect(str(tmp_path / "lance"))
    rows = [{"key": f"b{n}", "vector": vectors[n].tolist(), "n": n, "body": f"t{n}"} for n in range(250)]
    table = database.create_table("books", rows)
    table.delete("n = 3")
    table.update(where="n = 4", values={"body": None})
    table.add([{"key": "late", "vector": vectors[260].tolist(), "n": None, "body": "late"}])
    options = Choices(id="key", text="body")
    report = migrate("lancedb", tmp_path / "lance", tmp_path / "new", options)
    assert report.same and report.overlap == 1 and report.count == 250 and report.space == "l2"
    with NoPokeDB(path=tmp_path / "new", read_only=True) as db:
        assert (db["late"].metadata, db["late"].text, db["b4"].text) == ({}, "late", None)
        for record in table.to_arrow().to_pylist():
            assert db[record["key"]].vector.tolist() == record["vector"]  # type: ignore[union-attr]
        for query in vectors[290:]:
            nearest = [row["key"] for row in table.search(query).limit(10).to_list()]
            assert [hit.id for hit in db.query(query, k=10)] == nearest
    with pytest.raises(ArchiveError, match="'id' of ids"):
        migrate("lancedb", tmp_path / "lance", tmp_path / "other")
