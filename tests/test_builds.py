"""Graphs built by a process of their own, `optimize`, merging: nothing waits, nothing is lost, little is repeated."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sealing import wait_sealed
from test_search import assert_recall, gaussian, low_rank, truth_of

from nopokedb import AsyncNoPokeDB, ClosedError, NoPokeDB, ReadOnlyError
from nopokedb.embedded import child_build, sealing
from nopokedb.embedded.search import symphony

pytestmark = pytest.mark.usefixtures("quick_sealing")


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        threading.Event().wait(0.01)


def build_folders(db: NoPokeDB) -> list[Path]:
    return list(Path(db.path, "index").glob("build-*"))


def child_of(db: NoPokeDB) -> int:
    """The process that builds for this handle, once there is one."""
    found: list[int] = []

    def look() -> bool:
        building = db._engine._upkeep.sealing._building  # type: ignore[attr-defined]
        if building is not None:
            found.append(building[1]._process.pid)
        return bool(found)

    wait_for(look)
    return found[0]


def kinds(db: NoPokeDB) -> list[str]:
    return [segment.kind for segment in db.stats().segments]


needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no SIGSTOP")


@needs_signals
def test_everything_goes_on_while_a_graph_is_built(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """With the child stopped in the middle: reads at full recall, writes, a checkpoint, a compaction; the rows that it
    was building have other numbers then, so it is ended and another is begun."""
    db = open_db(dim=32, index="hnsw")
    vectors, queries = low_rank(rng, 4000, 32), low_rank(rng, 30, 32)
    db.add_many(vectors)
    pid = child_of(db)
    os.kill(pid, signal.SIGSTOP)
    assert kinds(db) == ["scan"] and db.stats().sealing
    assert_recall(db, truth_of("cosine", vectors, queries), queries)
    added = db.add(vectors[0])
    db.save()
    assert db.get(added) == {} and db.stats().checkpoint_lsn == db.stats().lsn
    db.delete_many(range(100))
    db.compact()
    assert db.stats().generation == 2
    wait_sealed(db)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert kinds(db) == ["hnsw"] and db.stats().generation == 2 and not build_folders(db)
    assert_recall(db, truth_of("cosine", vectors[100:], queries), queries)


def test_a_killed_build_is_tried_again(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Killed once it is begun anew; killed each time, the kind is given up, and the scan stays and is reported."""
    db = open_db(dim=32, index="hnsw")
    vectors, queries = gaussian(rng, 4000, 32), gaussian(rng, 20, 32)
    db.add_many(vectors)
    first = child_of(db)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: (found := db._engine._upkeep.sealing._building) and found[1]._process.pid != first)  # type: ignore[attr-defined]
    os.kill(child_of(db), signal.SIGKILL)
    wait_sealed(db)
    assert kinds(db) == ["scan"] and not build_folders(db)
    assert any("searched by scan" in note and "signal 9" in note for note in db.stats().notes)
    assert_recall(db, truth_of("cosine", vectors, queries), queries)
    db.upsert(0, vectors[1])
    db.close()
    again = open_db()  # a new handle tries again
    wait_sealed(again)
    assert kinds(again) == ["hnsw"]


@needs_signals
def test_closing_ends_the_build(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """At once, even if it hangs; it leaves nothing behind."""
    db = open_db(dim=32, index="hnsw")
    db.add_many(gaussian(rng, 4000, 32))
    pid = child_of(db)
    os.kill(pid, signal.SIGSTOP)
    folders = build_folders(db)
    assert len(folders) == 1
    started = time.monotonic()
    db.close()
    assert time.monotonic() - started < 20 and not folders[0].exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
    import sys, time, numpy as np
    from nopokedb import NoPokeDB
    from nopokedb.embedded import sealing, upkeep
    sealing.SEAL_ROWS, upkeep.PAUSE_S = 1024, 0.0
    print("script", flush=True)
    db = NoPokeDB(dim=64, path=sys.argv[1], index="hnsw", ef_construction=2000)
    db.add_many(np.random.default_rng(1).standard_normal((20000, 64)).astype(np.float32))
    while db._engine._upkeep.sealing.building is None:
        time.sleep(0.01)
    print(db._engine._upkeep.sealing._building[1]._process.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    """The child ends by itself, an unguarded script is not run twice, and the next open finds all records and removes
    what was left."""
    script = tmp_path / "unguarded.py"
    script.write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "db")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "script\n"
    pid = int(parent.stdout.readline())
    folders = list((tmp_path / "db" / "index").glob("build-*"))
    assert len(folders) == 1
    parent.kill()
    rest = parent.stdout.read()
    parent.wait()
    parent.stdout.close()
    assert rest == ""

    def ended() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"

    wait_for(ended)
    with NoPokeDB(path=tmp_path / "db") as db:
        assert len(db) == 20000 and not folders[0].exists()


@pytest.mark.parametrize("how", ["stdin", "-c"])
def test_programs_without_a_main_module(tmp_path: Path, how: str) -> None:
    """A program that was read from standard input or the command line, and changed its folder, gets graphs too."""
    code = textwrap.dedent("""
        import os, sys, numpy as np
        from nopokedb import NoPokeDB
        from nopokedb.embedded import sealing
        sealing.SEAL_ROWS = 1024
        os.chdir("/")
        db = NoPokeDB(dim=16, path=PATH, index="hnsw")
        db.add_many(np.random.default_rng(1).standard_normal((2000, 16)).astype(np.float32))
        db.optimize()
        print([segment.kind for segment in db.stats().segments])
        db.close()
    """).replace("PATH", repr(str(tmp_path / "db")))
    arguments = [sys.executable, "-"] if how == "stdin" else [sys.executable, "-c", code]
    done = subprocess.run(arguments, input=code, capture_output=True, text=True, timeout=300)
    assert done.stdout == "['hnsw']\n", done.stderr


def test_an_interpreter_within_another_program_builds_itself(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no other interpreter can be started the graph is built in this process."""
    monkeypatch.setattr(sys, "executable", "")
    assert not child_build.possible()
    db = open_db(dim=16, index="hnsw")
    db.add_many(gaussian(rng, 1500, 16))
    wait_sealed(db)
    assert kinds(db) == ["hnsw"]


def test_a_library_that_kills_its_process_costs_only_the_child(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A native crash in the first kind of graph ends two children; then the next kind is built."""
    if not symphony.available():
        pytest.skip("rabitqlib has no wheel for this system")
    broken = tmp_path / "broken" / "rabitqlib"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(str(broken.parent))
    db = open_db(dim=16, index="graph")
    db.add_many(gaussian(rng, 1500, 16))
    wait_sealed(db)
    assert kinds(db) == ["hnsw"]


def test_no_process_can_be_started(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory or processes left the scan stays, that is reported, and writing goes on."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(child_build.subprocess, "Popen", refuse)
    db = open_db(dim=16, index="hnsw")
    db.add_many(gaussian(rng, 1500, 16))
    wait_sealed(db)
    assert kinds(db) == ["scan"] and any("Cannot allocate memory" in note for note in db.stats().notes)
    assert not build_folders(db) and db.add(np.ones(16)) == 1500


def test_what_a_build_brings_is_compared_with_its_checksum(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is damaged between the child and the handle is not loaded; the build is done again."""
    real, damaged = sealing.Sealing._take_over, []

    def damage(self: Any, task: Any, place: Path, file: Any, generation: int) -> None:
        if not damaged:
            damaged.append(place)
            path = place / file.name
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        real(self, task, place, file, generation)

    monkeypatch.setattr(sealing.Sealing, "_take_over", damage)
    db = open_db(dim=16, index="hnsw")
    db.add_many(gaussian(rng, 1500, 16))
    wait_sealed(db)
    assert kinds(db) == ["hnsw"] and damaged and not build_folders(db)


def test_a_graph_that_is_nowhere_faster_is_not_kept() -> None:
    """One recall at which its list is cheaper is enough, or one that only the graph reaches."""

    def index(lengths: dict[float, int], fixed_us: float, place_us: float) -> Any:
        return SimpleNamespace(
            ef_for=lambda k, target: lengths.get(target),
            cost=SimpleNamespace(list_us=lambda length: fixed_us + length * place_us),
        )

    scan = index({0.9: 40, 0.95: 60, 0.99: 100}, 100.0, 0.1)
    assert not sealing._pays(index({0.9: 60, 0.95: 90, 0.99: 200}, 10.0, 2.0), scan)
    assert sealing._pays(index({0.9: 40, 0.95: 90, 0.99: 200}, 10.0, 2.0), scan)
    assert not sealing._pays(index({}, 0.0, 0.0), scan)
    assert sealing._pays(index({0.9: 1000}, 10.0, 2.0), index({}, 1.0, 1.0))


# --- optimize -----------------------------------------------------------------------------------------------


def test_optimize_leaves_nothing_to_do(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Afterwards there is one segment with its graph, hardly a retired record, and an empty log; answers are right at
    every moment between."""
    db = open_db(dim=16, index="hnsw")
    vectors, queries = low_rank(rng, 3900, 16), low_rank(rng, 20, 16)
    for part in np.array_split(vectors, 3):
        db.add_many(part)
        wait_sealed(db)
    db.delete_many(range(1000))
    assert db.stats().generation == 1
    seen: list[tuple[int, int]] = []
    db._engine.optimize(lambda done, total: seen.append((done, total)))
    stats = db.stats()
    assert kinds(db) == ["hnsw"] and stats.tail_count < 1024 and not stats.sealing
    assert stats.generation == 2 and stats.checkpoint_lsn == stats.lsn and stats.reclaimable_bytes == 0
    assert seen[-1][0] == seen[-1][1] > 0 and seen == sorted(seen)
    assert_recall(db, truth_of("cosine", vectors[1000:], queries), queries)
    before = db.stats()
    db.optimize()  # nothing is left to do
    assert db.stats().generation == 2 and db.stats().segments == before.segments


def test_optimize_merges_segments(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Segments that background work leaves apart become one, without a long tail; a small one beside a large one, of
    more than eight times its rows, does not cost a build of all."""
    db = open_db(dim=8)
    sizes = (3000, 1100)
    for size in sizes:
        db.add_many(gaussian(rng, size, 8))
        wait_sealed(db)
    assert [segment.row_count for segment in db.stats().segments] == [3000, 1096]
    db.optimize()
    assert [segment.row_count for segment in db.stats().segments] == [4096]
    db.add_many(gaussian(rng, 6 * 1100, 8))
    db.optimize()
    assert len(db.stats().segments) == 1
    db.add_many(gaussian(rng, 1100, 8))
    db.optimize()
    assert [segment.row_count for segment in db.stats().segments] == [10696, 1104]


@pytest.mark.engines
def test_optimize_refuses(open_db: Callable[..., NoPokeDB]) -> None:
    """On a read-only or closed handle; an empty collection has nothing to do."""
    db = open_db(dim=4)
    db.optimize(progress=True)
    db.close()
    with pytest.raises(ClosedError):
        db.optimize()
    with NoPokeDB(path=db.path, read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.optimize()


@needs_signals
def test_optimize_ends_with_the_handle(open_db: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """Closed meanwhile by another thread it raises instead of waiting for ever."""
    db = open_db(dim=32, index="hnsw")
    db.add_many(gaussian(rng, 3000, 32))
    os.kill(child_of(db), signal.SIGSTOP)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            db.optimize()
        except ClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: db._engine._upkeep.sealing.in_hurry)  # type: ignore[attr-defined]
    db.close()
    thread.join(60)
    assert len(raised) == 1


def test_optimize_awaited(tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    """The same on an asynchronous handle, with a bar."""

    async def run() -> list[int]:
        async with AsyncNoPokeDB(dim=8, path=tmp_path / "db") as db:
            await db.add_many(gaussian(rng, 2000, 8))
            await db.optimize(progress=True)
            return [segment.row_count for segment in (await db.stats()).segments]

    assert asyncio.run(run()) == [2000]
    assert "2000/2000" in capsys.readouterr().err.replace(",", "")


# --- merging ------------------------------------------------------------------------------------------------


def test_a_new_batch_does_not_rebuild_what_is_large(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch by batch each row is indexed a logarithmic number of times, and the large segment stays as it is."""
    built: list[int] = []
    real = sealing.Sealing._construct

    def spy(self: Any, rows: Any, recipes: Any) -> Any:
        built.append(rows.stop - rows.start)
        return real(self, rows, recipes)

    monkeypatch.setattr(sealing, "SEAL_ROWS", 256)
    monkeypatch.setattr(sealing.Sealing, "_construct", spy)
    db = open_db(dim=4)
    db.add_many(gaussian(rng, 8192, 4))
    wait_sealed(db)
    first = db._engine.snapshot().segments[0]  # type: ignore[attr-defined]
    for _ in range(8):
        db.add_many(gaussian(rng, 256, 4))
        wait_sealed(db)
    segments = db._engine.snapshot().segments  # type: ignore[attr-defined]
    assert segments[0] is first and len(segments) <= 6
    assert sum(built) - 8192 <= 8 * 256 * (1 + np.log2(8))
