"""The parts of a run, in the order of importance: what each prepares, and what it measures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from bench.conversation import ChildError, Conversation
from bench.peers import OURS, PEERS
from bench.run import Result, medians, side_by_side
from bench.suite import search
from bench.suite.run import Run

SCAN, GRAPH = f"{OURS}-scan", f"{OURS}-graph"
HNSW = ("hnswlib", "faiss-hnsw", "faiss-hnsw-efc200")
INGEST = "bench.suite.ingest"
OURS_CHILD = "bench.suite.ours"
BUILT_IN_TURN = (OURS, "faiss-hnsw", "faiss-hnsw-efc200")


def default_backends() -> tuple[str, ...]:
    """All of them; a server only where it was said to run."""
    return tuple(name for name in PEERS if name != "weaviate" or os.environ.get("WEAVIATE_URL"))


# Position among the real sizes -> who is compared there. The smaller ones but one only show how things scale.
AT_SIZE: dict[int, tuple[str, ...]] = {
    0: (OURS, "hnswlib"),
    2: (OURS, SCAN, GRAPH, *HNSW),
    3: (OURS, *HNSW),
    4: (OURS,),
}


def _at(run: Run, place: int) -> tuple[str, ...]:
    return tuple(name for name in AT_SIZE[place] if name in run.backends)


def _search_at(place: int) -> Callable[[Run], None]:
    return lambda run: search.time_all(run, SEARCH_PARTS[place], _at(run, place), run.scale.real_counts[place])


SEARCH_PARTS = ("search-20k", "search-100k", "search-300k", "search-700k", "search-1m")


def _gaussian_backends(run: Run) -> tuple[str, ...]:
    return tuple(name for name in run.backends if name not in (SCAN, GRAPH))


def _threads(run: Run) -> None:
    wanted = tuple(name for name in run.backends if name in (OURS, SCAN, GRAPH, *HNSW, "usearch", "zvec"))
    search.time_threads(run, "threads", wanted, run.scale.main_count)


def _ingest(run: Run) -> None:
    """Every database in turn, each way of writing in a round of its own."""
    part, scale = "ingest", run.scale
    in_memory = (*HNSW, "faiss-ivf", "faiss-exact", "usearch", SCAN, GRAPH)
    names = tuple(name for name in run.backends if name not in in_memory)
    threads = scale.thread_count
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "batches": ("batches", {}),
        "singles, 1 thread": ("singles", {"thread_count": 1}),
        f"singles, {threads} threads": ("singles", {"thread_count": threads}),
    }

    def measure() -> Result:
        folder = run.data(scale.main_count)
        about: dict[str, Any] = {}
        children: dict[str, Conversation] = {}
        for name in names:
            try:
                children[name] = run.child(name, INGEST, folder, run.scratch(f"ingest-{name}"))
                about[name] = children[name].ask("about")
            except ChildError as error:
                run.lack(f"{part}, {name}", str(error))
                if name in children:
                    children.pop(name).end()
        rounds: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in children}
        try:
            for way, (action, given) in ways.items():
                able = {
                    name: child
                    for name, child in children.items()
                    if given.get("thread_count", 1) == 1 or about[name]["takes_threads"]
                }
                asked = {"seconds": scale.ingest_s, **given}
                found = side_by_side(
                    run, part, able, [way], lambda *_, asked=asked: asked, scale.ingest_round_count, action
                )
                for name, each in found.items():
                    rounds[name] |= each
        finally:
            for child in children.values():
                child.end()
            shutil.rmtree(run.folder / "scratch", ignore_errors=True)
        return {
            "thread_count": threads,
            "backends": {
                name: {**about[name], "timed": medians(each), "rounds": each} for name, each in rounds.items()
            },
        }

    sizes = {"count": scale.main_count, "backends": sorted(names), "seconds": scale.ingest_s, "threads": threads}
    run.once(part, sizes, measure)


def _of_ours(part: str, backend: str, action: str, arguments: Callable[[Run], dict[str, Any]]) -> Callable[[Run], None]:
    """One measurement of this project on its stored collection of the main size."""

    def measure(run: Run) -> None:
        if backend not in run.backends or search.prepare(run, backend, run.scale.main_count) is None:
            return
        folder, given = run.data(run.scale.main_count), arguments(run)

        def ask() -> Result:
            with run.child(backend, OURS_CHILD, folder, run.database(folder, backend)) as child:
                answer: Result = child.ask(action, **given)
            return {"count": run.scale.main_count, **answer}

        run.once(part, {"count": run.scale.main_count, **given}, ask)

    return measure


def _sealing(run: Run) -> None:
    """Loads the main size in each kind of index, several times, and keeps every time."""

    def measure() -> Result:
        folder = run.data(run.scale.main_count)
        found: dict[str, list[Any]] = {}
        for _ in range(run.scale.seal_round_count):
            for name in (name for name in (OURS, SCAN, GRAPH) if name in run.backends):
                with run.child(name, OURS_CHILD, folder, run.scratch(f"seal-{name}")) as child:
                    found.setdefault(name, []).append(child.ask("seal"))
        return {"count": run.scale.main_count, "backends": found}

    run.once("sealing", {"count": run.scale.main_count, "round_count": run.scale.seal_round_count}, measure)


def _rounds(run: Run) -> dict[str, Any]:
    return {"round_count": run.scale.round_count, "seconds": run.scale.round_s}


def _while(run: Run) -> dict[str, Any]:
    return {"seconds": run.scale.while_s}


_RUNS: dict[str, Callable[[Run], None]] = {
    "search-100k": lambda run: search.time_all(run, "search-100k", run.backends, run.scale.main_count),
    "search-gaussian": lambda run: search.time_all(run, "search-gaussian", _gaussian_backends(run), None),
    "threads": _threads,
    "ingest": _ingest,
    # Of a collection that has one way to search: with two, the bare calls could be of the one that was not taken.
    "overhead": _of_ours("overhead", SCAN, "overhead", _rounds),
    "while-adding": _of_ours("while-adding", OURS, "while_adding", _while),
    "sealing": _sealing,
    "limit": _of_ours("limit", SCAN, "limit", lambda _: {}),
    "search-300k": _search_at(2),
    "search-700k": _search_at(3),
    "search-20k": _search_at(0),
    "builds-700k": lambda run: search.build_in_turn(
        run, "builds-700k", tuple(name for name in BUILT_IN_TURN if name in run.backends), run.scale.real_counts[3]
    ),
    "search-1m": _search_at(4),
}
PARTS = tuple(_RUNS)

# What can be prepared while the machine does other things: part -> (backends, size; None is the Gaussian set).
_PREPARED: dict[str, Callable[[Run], tuple[tuple[str, ...], int | None]]] = {
    "search-100k": lambda run: (run.backends, run.scale.main_count),
    "search-gaussian": lambda run: (_gaussian_backends(run), None),
    "search-300k": lambda run: (_at(run, 2), run.scale.real_counts[2]),
    "search-700k": lambda run: (_at(run, 3), run.scale.real_counts[3]),
    "search-20k": lambda run: (_at(run, 0), run.scale.real_counts[0]),
    "search-1m": lambda run: (_at(run, 4), run.scale.real_counts[4]),
}


def prepare_part(name: str, run: Run) -> None:
    """Builds and tunes the databases of a part, or finds them; nothing for a part that needs none of its own."""
    if name in _PREPARED:
        backends, count = _PREPARED[name](run)
        search.prepared(run, backends, count)


def run_part(name: str, run: Run) -> None:
    """Runs one part, or finds it finished."""
    _RUNS[name](run)
