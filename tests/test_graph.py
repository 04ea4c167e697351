"""SymphonyQG graphs: what they accept, what they are refused for, and that no damaged byte reaches the library."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from sealing import wait_sealed
from test_search import (
    assert_recall,
    clump,
    clustered,
    far,
    gaussian,
    huge,
    log_normal,
    low_rank,
    tiny,
    truth_of,
)

from nopokedb import NoPokeDB
from nopokedb.distances import prepare_queries
from nopokedb.embedded import index_files
from nopokedb.embedded.index_files import read_segment, write_segment
from nopokedb.embedded.search import symphony
from nopokedb.embedded.search.calibration import calibrate, truth_of_held_out
from nopokedb.embedded.search.construction import Recipe, Source, construct, graph_recipes
from nopokedb.embedded.search.options import BuildOptions
from nopokedb.embedded.search.segments import Segment, build_segment

if not symphony.available():
    pytest.skip("rabitqlib has no wheel for this system", allow_module_level=True)


pytestmark = pytest.mark.usefixtures("quick_sealing")


def graph_of(space: str, vectors: np.ndarray, bits: np.ndarray | None = None) -> Segment | None:
    """A graph over these rows that has passed its calibration; None if it was refused."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    live = np.arange(len(vectors))
    source = Source(space, 0, len(vectors), vectors, norms, live, bits, None)
    return construct(source, [Recipe("symphony")], 16, 200)


def found_share(segment: Segment, space: str, vectors: np.ndarray, queries: np.ndarray) -> float:
    """Recall@10 of the list that the curve names, with what is compared beside the graph."""
    distances = truth_of(space, vectors, queries)
    rows = segment.search(prepare_queries(space, queries), segment.ef_at_10)
    found = []
    for line, listed in zip(distances, rows, strict=True):
        proposed = np.union1d(listed[listed >= 0], segment.left_out)
        limit = np.partition(line, 9)[9]
        found.append(min(10, int((line[proposed] <= limit + 1e-12 * abs(limit) + 1e-13).sum())) / 10)
    return float(np.mean(found))


CASES = [
    (gaussian, "cosine", 24, 1.2),
    (low_rank, "cosine", 96, 1.2),
    (low_rank, "ip", 96, 1.2),
    (clustered, "l2", 24, 1.2),
    (clustered, "cosine", 33, 1.2),
    (clump, "l2", 64, 1.2),
    (log_normal, "ip", 64, 1.2),
    (far, "l2", 65, 1.2),
    (far, "cosine", 64, 1.2),
    (tiny, "l2", 32, 1.2),
    (huge, "l2", 32, 1.2),
    (huge, "ip", 32, 1.2),
    (gaussian, "l2", 2, 1.2),
    (gaussian, "cosine", 7, 1.2),
    (low_rank, "l2", 1001, 0.5),
    (low_rank, "l2", 4096, 0.3),
]


@pytest.mark.parametrize(("make", "space", "dim", "thousands"), CASES)
def test_data_that_breaks_graphs(
    make: Callable[..., np.ndarray], space: str, dim: int, thousands: float, seed: int
) -> None:
    """A graph that is accepted keeps its promise on questions that it never saw. All of these are accepted, but for dot
    products with rows of very different lengths, which calibration refuses for some samples: those rows are scanned."""
    rng = np.random.default_rng(seed)
    count = int(thousands * 1000)
    vectors = make(rng, count, dim)
    segment = graph_of(space, vectors)
    if segment is None and make is log_normal:
        return
    assert segment is not None and segment.kind == "symphony"
    queries = make(rng, 60, dim)
    assert found_share(segment, space, vectors, queries) >= 0.97
    assert len(np.unique(np.concatenate([segment.search(prepare_queries(space, queries[:1]), count)[0]]))) <= count


def test_the_mean_is_taken_out_under_cosine_too(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from the origin all unit vectors are nearly the same; without the centre the graph finds little."""
    vectors = far(rng, 800, 64)
    centred = graph_of("cosine", vectors)
    monkeypatch.setattr(symphony, "CENTRED", frozenset())
    monkeypatch.setattr(symphony, "MOVED_QUERIES", frozenset())
    lost = graph_of("cosine", vectors)
    assert centred is not None and (lost is None or lost.ef_at_10 > centred.ef_at_10)


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_duplicates_are_found_or_refused(rng: np.random.Generator, space: str) -> None:
    """Thousands of equal rows: whatever calibration says, no answer is wrong."""
    vectors = gaussian(rng, 1000, 16)
    vectors[200:700] = vectors[0]
    segment = graph_of(space, vectors)
    if segment is not None:
        assert found_share(segment, space, vectors, gaussian(rng, 40, 16)) >= 0.97
    equal = np.repeat(vectors[:1], 100, axis=0)
    assert graph_of(space, equal) is not None


@pytest.mark.parametrize("count", [1, 31, 32])
def test_too_few_rows_are_refused(rng: np.random.Generator, count: int) -> None:
    """A graph needs more rows than links: an error that the next recipe answers, not a crash."""
    with pytest.raises(RuntimeError, match="more than 32 rows"):
        build_segment("symphony", 0, gaussian(rng, count, 8), BuildOptions("l2"))


def test_rows_that_may_not_be_found_are_thinned_out(rng: np.random.Generator) -> None:
    """With a bitmap only allowed rows come back, in order, and -1 where there are fewer than asked for."""
    vectors = gaussian(rng, 1200, 16)
    segment = graph_of("l2", vectors)
    assert segment is not None
    query = prepare_queries("l2", gaussian(rng, 3, 16))
    for share in (0.9, 0.5, 0.02, 0.0):
        allowed = rng.random(len(vectors)) < share
        bits = np.packbits(allowed, bitorder="little")
        rows = segment.search(query, 40, bits)
        assert rows.shape == (3, 40)
        for line in rows:
            there = line[line >= 0]
            assert allowed[there].all() and len(set(there.tolist())) == len(there)
            assert (line[len(there) :] == -1).all()  # missing ones come last
        wanted = min(40, int(np.delete(allowed, segment.left_out).sum()))
        # How many of the longer list pass is up to chance: eight of ten is six standard errors away.
        assert share == 0.02 or ((rows >= 0).sum(axis=1) >= 0.8 * wanted).all()


def test_a_question_too_far_away_finds_nothing_here(rng: np.random.Generator) -> None:
    """Where its distances are not finite the graph proposes nothing, alone or among others, and search goes on."""
    segment = graph_of("l2", tiny(rng, 800, 32))
    assert segment is not None
    queries = np.concatenate([tiny(rng, 2, 32), np.full((1, 32), 1e18, np.float32)])
    rows = segment.search(queries, 20)
    assert (rows[2] == -1).all() and (rows[:2] >= 0).all()
    assert (segment.search(queries[2:], 20) == -1).all()


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_a_graph_comes_back_from_its_files(tmp_path: Path, rng: np.random.Generator, space: str) -> None:
    """The same answers after saving and loading, with the rows that are left out."""
    vectors = gaussian(rng, 900, 20) + 3
    segment = graph_of(space, vectors)
    assert segment is not None and len(segment.left_out) == 112
    file = write_segment(tmp_path, segment, "segment-1-0-900-symphony.npk")
    again = read_segment(tmp_path, file, space)
    queries = prepare_queries(space, gaussian(rng, 20, 20))
    assert np.array_equal(segment.search(queries, 50), again.search(queries, 50))
    assert np.array_equal(segment.left_out, again.left_out)
    assert (again.curves, again.cost, again.size_bytes) == (segment.curves, segment.cost, segment.size_bytes)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name for name, _, _ in file.parts[::-1]]


def test_no_damaged_byte_reaches_the_library(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either file cut, flipped anywhere, missing or foreign is refused before the library sees a path."""
    segment = graph_of("l2", gaussian(rng, 400, 16))
    assert segment is not None
    file = write_segment(tmp_path, segment, "segment-1-0-400-symphony.npk")

    class Untouched:
        @staticmethod
        def load(path: str) -> Any:
            raise AssertionError("the library was given a damaged file")

    monkeypatch.setattr(symphony, "_library", lambda: type("library", (), {"SymqgIndex": Untouched}))
    for name, size, _ in file.parts:
        path = tmp_path / name
        whole = path.read_bytes()
        assert len(whole) == size
        damaged = [b"", whole[:-1], whole + b"\0", b"\xff" * size]
        for at in rng.integers(0, size, 20).tolist():
            damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        for data in damaged:
            path.write_bytes(data)
            with pytest.raises(ValueError, match="is damaged"):
                read_segment(tmp_path, file, "l2")
        path.unlink()
        with pytest.raises(ValueError, match="is missing"):
            read_segment(tmp_path, file, "l2")
        path.write_bytes(whole)
    with pytest.raises(AssertionError, match="damaged"):  # it is what would have been asked
        read_segment(tmp_path, file, "l2")


def test_a_lost_graph_leaves_the_scan_and_is_built_again(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator
) -> None:
    """One flipped byte in a graph: opening reports it, the scan answers, the graph comes back."""
    db = open_db(dim=32, index="graph")
    vectors, queries = low_rank(rng, 1500, 32), low_rank(rng, 30, 32)
    db.add_many(vectors)
    wait_sealed(db)
    db.close()
    (path,) = Path(db.path, "index").glob("*.graph")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))
    with NoPokeDB(path=db.path, read_only=True) as reader:
        assert [segment.kind for segment in reader.stats().segments] == ["scan"]
        assert any("symphony.npk is damaged" in note for note in reader.stats().notes)
        assert_recall(reader, truth_of("cosine", vectors, queries), queries)
    again = open_db()
    wait_sealed(again)
    assert [segment.kind for segment in again.stats().segments] == ["symphony"]
    assert_recall(again, truth_of("cosine", vectors, queries), queries)


def test_retired_and_left_out_rows(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """One id upserted 250 times beside the question, deletions, and each row that the graph does not contain: all
    answers are live, none is missed."""
    db = open_db(dim=32, index="graph", space="l2")
    vectors = gaussian(rng, 1500, 32)
    db.add_many(vectors)
    for _ in range(250):
        db.upsert(7, vectors[8])
    wait_sealed(db)
    segment = db._engine.snapshot().segments[0]  # type: ignore[attr-defined]
    assert segment.kind == "symphony" and len(segment.left_out) > 100
    left_out = segment.left_out[segment.left_out < 1500]
    for row in left_out[:40].tolist():
        assert db.query(vectors[row], k=1, ef=30)[0].distance == 0  # by the graph, not by the scan beside it
    hits = db.query(vectors[8], k=5)
    assert {hit.id for hit in hits[:2]} == {7, 8} and len({hit.id for hit in hits}) == 5
    gone = left_out[:20].tolist()
    db.delete_many(gone)
    for row in gone:
        assert db.query(vectors[row], k=3)[0].id != row
    assert db.query_many(vectors[:40], k=10) == [db.query(query, k=10) for query in vectors[:40]]


def test_hnsw_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is missing, or HNSW is asked for, graphs are by HNSW; else it comes second."""
    assert [recipe.kind for recipe in graph_recipes(hnsw=False)] == ["symphony", "hnsw"]
    assert [recipe.kind for recipe in graph_recipes(hnsw=True)] == ["hnsw"]
    monkeypatch.setattr(symphony, "available", lambda: False)
    assert [recipe.kind for recipe in graph_recipes(hnsw=False)] == ["hnsw"]


def test_a_refused_graph_is_followed_by_hnsw(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration that falls short is the end of a recipe, not of the attempt."""
    vectors = gaussian(rng, 1000, 16)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    source = Source("l2", 0, 1000, vectors, norms, np.arange(1000), None, None)
    real = symphony.Symphony.search
    monkeypatch.setattr(symphony.Symphony, "search", lambda self, *rest: real(self, *rest) * 0)
    segment = construct(source, graph_recipes(hnsw=False), 16, 100)
    assert segment is not None and segment.kind == "hnsw"


def test_both_libraries_in_one_process(rng: np.random.Generator) -> None:
    """FAISS and rabitqlib each bring an OpenMP; both search at once from many threads."""
    vectors = gaussian(rng, 1000, 64)
    graph = graph_of("l2", vectors)
    held = np.arange(50)
    scan = build_segment("scan", 0, vectors, BuildOptions("l2"))
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    truth = truth_of_held_out("l2", vectors, norms, np.arange(1000), held)
    assert graph is not None
    assert calibrate(scan, truth, "l2", vectors, norms, None)
    want = [index.search(truth.prepared, 50).tolist() for index in (graph, scan)]
    wrong: list[int] = []

    def work(number: int) -> None:
        faiss.omp_set_num_threads(1 + number % 2)
        for _ in range(10):
            if (graph, scan)[number % 2].search(truth.prepared, 50).tolist() != want[number % 2]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_opening_does_not_load_the_library(tmp_path: Path) -> None:
    """`import nopokedb` and a collection without a graph never import rabitqlib."""
    code = (
        "import sys, nopokedb\n"
        "with nopokedb.NoPokeDB(dim=4, path=sys.argv[1]) as db: db.add([1, 2, 3, 4]); db.query([1, 2, 3, 4])\n"
        "print('rabitqlib._rabitqlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "db")], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# --- loading ------------------------------------------------------------------------------------------------


@pytest.fixture
def large_files(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Every index file counts as large, and none is loaded before the event is set."""
    gate = threading.Event()
    real = index_files.read_segment

    def late(*arguments: Any) -> Segment:
        if threading.current_thread().name == "nopokedb-loading":
            assert gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(index_files, "LATER_BYTES", 0)
    monkeypatch.setattr(index_files, "read_segment", late)
    return gate


@pytest.mark.parametrize("read_only", [False, True])
def test_large_indexes_are_loaded_after_the_opening(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, large_files: threading.Event, read_only: bool
) -> None:
    """Opening does not wait for them: answers are exact until they are there, then they are used."""
    vectors, queries = low_rank(rng, 1500, 16), low_rank(rng, 20, 16)
    db = open_db(dim=16, index="graph")
    db.add_many(vectors)
    wait_sealed(db)
    kept = [(segment.kind, segment.ef_at_10, segment.size_bytes) for segment in db.stats().segments]
    db.close()
    again = open_db(read_only=read_only)
    assert [(item.kind, item.ef_at_10, item.size_bytes) for item in again.stats().segments] == kept
    plan = again.explain(queries[0]).searches[0]
    assert plan.strategy == "exact" and "being loaded" in plan.why
    assert again.explain(queries[0], ef=20).searches[0].strategy == "exact"
    assert_recall(again, truth_of("cosine", vectors, queries), queries)
    large_files.set()
    deadline = time.monotonic() + 60
    while again.explain(queries[0]).searches[0].strategy == "exact":
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert_recall(again, truth_of("cosine", vectors, queries), queries)


def test_a_program_may_end_while_indexes_are_loaded(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path
) -> None:
    """Without closing anything: native code must not be there when the interpreter has gone."""
    db = open_db(dim=256, index="graph")
    db.add_many(low_rank(rng, 4_000, 256))
    db.optimize()
    assert db.stats().segments[0].kind == "symphony"
    db.close()
    code = (
        "import sys, threading\n"
        "from nopokedb import NoPokeDB\n"
        "from nopokedb.embedded import index_files\n"
        "from nopokedb.embedded.search import symphony\n"
        "real, begun = symphony._library().SymqgIndex.load, threading.Event()\n"
        "def often(path):\n"
        "    begun.set()\n"
        "    return [real(path) for _ in range(200)][0]\n"
        "class Library:\n"
        "    class SymqgIndex: load = staticmethod(often)\n"
        "index_files.LATER_BYTES, symphony._library = 0, lambda: Library\n"
        "db = NoPokeDB(path=sys.argv[1], read_only=True)\n"
        "assert begun.wait(60)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(db.path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("broken", ["graph", "scan"])
def test_damage_that_is_found_after_the_opening(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, large_files: threading.Event, broken: str
) -> None:
    """Of a damaged graph the scan stays, of a damaged scan the graph; it is reported, and built again."""
    large_files.set()
    vectors, queries = low_rank(rng, 1500, 16), low_rank(rng, 20, 16)
    db = open_db(dim=16, index="graph")
    db.add_many(vectors)
    wait_sealed(db)
    db.close()
    (path,) = Path(db.path, "index").glob("*.graph" if broken == "graph" else "*scan.npk")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    again = open_db()
    deadline = time.monotonic() + 60
    while not any("is damaged: it is built again" in note for note in again.stats().notes):
        assert time.monotonic() < deadline, again.stats()
        threading.Event().wait(0.01)
    wait_sealed(again)
    assert [segment.kind for segment in again.stats().segments] == ["symphony"]
    assert_recall(again, truth_of("cosine", vectors, queries), queries)
