"""The parts of a run: what each prepares, and what it measures."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.conversation import ChildError, Conversation
from bench.filters import dataset, documents
from bench.filters.cases import make_cases
from bench.filters.run import Run
from bench.filters.text import KINDS
from bench.measure import say
from bench.peers import OURS
from bench.peers.texting import TEXT_PEERS
from bench.run import Result, medians, opened, side_by_side

CHILD = "bench.filters.child"
TEXT_CHILD = "bench.filters.text"


def _prepare(
    run: Run, part: str, backend: str, name: str, sizes: dict[str, Any], make: Callable[[Path, Path], Result]
) -> Result | None:
    """A backend's database and what is known of it: found, or made by `make(data, database)`."""
    database, stored = run.database(name), f"prepare-{name}"
    if database.exists() and not run.is_fresh(part, backend) and (known := run.known(stored, sizes)):
        return known
    started = time.perf_counter()
    say(stored)
    shutil.rmtree(database, ignore_errors=True)
    database.parent.mkdir(parents=True, exist_ok=True)
    try:
        return run.keep(stored, sizes, make(run.folder, database), started)
    except (ChildError, RuntimeError) as error:
        run.lack(stored, str(error))
        return None


def _filter_database(run: Run, part: str, backend: str, count: int) -> Result | None:
    """Builds a backend's database, and looks for the search setting of each case."""

    def make(_: Path, database: Path) -> Result:
        data = run.data(count)
        child = run.child(backend, CHILD, data, database)
        try:
            built: Result = child.ask("build")
            say(f"  built in {built['seconds']:.1f} s")
            tuned = {}
            for case in make_cases():
                tuned[case.name] = child.ask("tune", case=case.name, seconds=run.scale.recall_s)
                say(f"  {case.name}: {tuned[case.name]['setting']} recall {tuned[case.name]['recall']:.4f}")
            child.ask("close")
        finally:
            child.end()
        return {**built, "recipe": dataset.read(data).recipe, "tuned": tuned}

    sizes = {"count": count, "query_count": run.scale.query_count}
    return _prepare(run, part, backend, f"{backend}-{count}", sizes, make)


def _filters(run: Run, part: str, backends: tuple[str, ...], count: int) -> None:
    """Prepares each backend, then asks all of them in turn, round by round."""
    prepared = {name: found for name in backends if (found := _filter_database(run, part, name, count))}
    sizes = {"count": count, "backends": sorted(prepared), "query_count": run.scale.query_count, **run.timing()}
    if not prepared or (part not in run.fresh and run.known(part, sizes)):
        return
    started = time.perf_counter()
    data = run.data(count)
    children = {name: run.child(name, CHILD, data, run.database(f"{name}-{count}")) for name in prepared}
    try:
        opened(run, part, children)

        def arguments(name: str, case: str) -> dict[str, Any]:
            setting = prepared[name]["tuned"][case]["setting"]
            return {"case": case, "setting": setting, "seconds": run.scale.round_s}

        cases = [case.name for case in make_cases()]
        rounds = side_by_side(run, part, children, cases, arguments, run.scale.round_count)
    finally:
        for child in children.values():
            child.end()
    measured = {name: {**prepared[name], "timed": medians(each), "rounds": each} for name, each in rounds.items()}
    described = [{"name": case.name, "kind": case.kind, "percent": case.percent} for case in make_cases()]
    run.keep(part, sizes, {"count": count, "cases": described, "backends": measured}, started)


def _text_database(run: Run, backend: str) -> Result | None:
    """Loads a backend's documents; this project several times, for the rate."""
    count = run.scale.document_count

    def make(folder: Path, database: Path) -> Result:
        data = folder / f"documents-{count}"
        documents.make(run.corpus, data, count)
        child = run.child(backend, TEXT_CHILD, data, database)
        try:
            built: Result = child.ask("build", round_count=run.scale.load_round_count if backend == OURS else 1)
            child.ask("close")
        finally:
            child.end()
        return built

    sizes = {"count": count, "load_round_count": run.scale.load_round_count}
    return _prepare(run, "text", backend, f"text-{backend}-{count}", sizes, make)


def _text(run: Run) -> None:
    """The kinds of query with texts in turn; then, of this project, how soon a new record is found."""
    part, count = "text", run.scale.document_count
    backends = [name for name in run.backends if name in TEXT_PEERS]
    prepared = {name: found for name in backends if (found := _text_database(run, name))}
    sizes = {"count": count, "backends": sorted(prepared), "added_count": run.scale.added_count, **run.timing()}
    if not prepared or (part not in run.fresh and run.known(part, sizes)):
        return
    started = time.perf_counter()
    data = run.folder / f"documents-{count}"
    children = {name: run.child(name, TEXT_CHILD, data, run.database(f"text-{name}-{count}")) for name in prepared}
    fresh: dict[str, float] = {}
    try:
        found = opened(run, part, children)
        seconds = run.scale.round_s
        asked = lambda _, kind: {"kind": kind, "seconds": seconds}  # noqa: E731
        rounds = side_by_side(run, part, children, list(KINDS), asked, run.scale.round_count)
        if OURS in rounds:
            fresh = children[OURS].ask("fresh", count=run.scale.added_count)
    except ChildError as error:
        run.lack(part, str(error))
        return
    finally:
        for child in children.values():
            child.end()
    measured = {
        name: {**prepared[name], "hits": found[name], "timed": medians(each), "rounds": each}
        for name, each in rounds.items()
    }
    run.keep(part, sizes, {"count": count, "backends": measured, **fresh}, started)


def _of_this_project(run: Run, part: str, module: str, arguments: list[str], sizes: dict[str, Any]) -> None:
    """Runs one measurement of this project alone in a process of its own."""
    if part not in run.fresh and run.known(part, sizes):
        return
    started = time.perf_counter()
    say(part)
    scratch = run.folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    child = Conversation(Path(sys.executable), module, [*arguments, str(scratch), json.dumps(asdict(run.scale))])
    try:
        run.keep(part, sizes, child.ask("measure"), started)
    except ChildError as error:
        run.lack(part, str(error))
    finally:
        child.end()
        shutil.rmtree(scratch, ignore_errors=True)


def _first_seen(run: Run) -> None:
    count = run.scale.count
    if _filter_database(run, "filters of an earlier part", OURS, count) is None:
        return
    arguments = [str(run.data(count)), str(run.database(f"{OURS}-{count}"))]
    sizes = {"count": count, "fresh_count": run.scale.fresh_count, "round_count": run.scale.round_count}
    _of_this_project(run, "first-seen", "bench.filters.first_seen", arguments, sizes)


def _quality(run: Run) -> None:
    sizes = {"relevance_count": run.scale.relevance_count}
    _of_this_project(run, "quality", "bench.filters.quality", [str(run.corpus)], sizes)


# In the order of running, which is that of importance.
_RUNS: dict[str, Callable[[Run], None]] = {
    "filters": lambda run: _filters(run, "filters", run.backends, run.scale.count),
    "first-seen": _first_seen,
    "text": _text,
    "quality": _quality,
    "large": lambda run: _filters(run, "large", (OURS,), run.scale.large_count),
}
PARTS = tuple(_RUNS)


def run_part(name: str, run: Run) -> None:
    """Runs one part, or finds it finished."""
    _RUNS[name](run)
