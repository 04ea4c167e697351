"""Search at one size: databases are prepared one by one, at leisure, and then timed in turn within minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bench.conversation import ChildError, Conversation
from bench.measure import say
from bench.run import Result, Rounds, medians, opened, side_by_side
from bench.suite import data
from bench.suite.run import Run
from bench.suite.scale import TARGETS

CHILD = "bench.suite.child"


def prepare(run: Run, backend: str, count: int | None) -> Result | None:
    """A backend's database and how it reaches each recall: found, or made. None where that failed."""
    folder = run.data(count)
    database, name = run.database(folder, backend), f"prepare-{folder.name}-{backend}"
    sizes = {"data": folder.name, "query_count": run.scale.query_count}
    with run.alone(name):
        return _found_or_made(run, backend, folder, database, name, sizes)


def _found_or_made(
    run: Run, backend: str, folder: Path, database: Path, name: str, sizes: dict[str, Any]
) -> Result | None:
    """The work of `prepare`, by one run at a time."""
    if database.exists() and backend not in run.rebuilt and (known := run.known(name, sizes)):
        if backend not in run.retuned:
            return known
        say(f"{name}: tuned again")
        return run.measured(name, sizes, lambda: {**known, "points": _tuned(run, backend, folder, database)})
    if not (run.may_build or backend in run.rebuilt):
        run.lack(name, "not prepared")
        return None
    say(name)
    return run.measured(name, sizes, lambda: _built_and_tuned(run, backend, folder, database))


def _built_and_tuned(run: Run, backend: str, folder: Path, database: Path) -> Result:
    """Built in one process, tuned in another: what is timed later is what was opened, not what was built."""
    shutil.rmtree(database, ignore_errors=True)
    database.parent.mkdir(parents=True, exist_ok=True)
    with run.child(backend, CHILD, folder, database) as child:
        about, built = child.ask("about"), child.ask("build")
        say(f"  built in {built['seconds']:.1f} s")
    return {**about, "build": built, "points": _tuned(run, backend, folder, database)}


def _tuned(run: Run, backend: str, folder: Path, database: Path) -> Result:
    with run.child(backend, CHILD, folder, database) as child:
        child.ask("open")
        points = child.ask("tune", targets=list(TARGETS), seconds=run.scale.recall_s)
        child.ask("close")
    for name, point in points.items():
        say(f"  {name}: {point['setting']} recall {point['recall']:.4f}")
    tuned: Result = points
    return tuned


def _children(run: Run, names: list[str], folder: Path) -> dict[str, Conversation]:
    return {name: run.child(name, CHILD, folder, run.database(folder, name)) for name in names}


def prepared(run: Run, backends: tuple[str, ...], count: int | None) -> dict[str, Result]:
    """What has been prepared of these backends, and what could not be is noted."""
    return {name: found for name in backends if (found := prepare(run, name, count))}


def time_all(run: Run, part: str, backends: tuple[str, ...], count: int | None) -> None:
    """Rounds through all settings, for each through all backends; prepares what is not there."""
    found = prepared(run, backends, count)
    sizes = {"backends": sorted(found), "round_count": run.scale.round_count, "round_s": run.scale.round_s}
    if found:
        run.once(part, sizes, lambda: _timed(run, part, found, count))


def _rounds(run: Run, part: str, children: dict[str, Conversation], found: dict[str, Result]) -> Rounds:
    """Each setting of each backend is asked once in a round, also where it has several names."""
    first = {
        name: {point: _first_of(each["points"], point) for point in each["points"]} for name, each in found.items()
    }

    def arguments(name: str, point: str) -> dict[str, Any] | None:
        if first[name].get(point) != point:
            return None
        return {"setting": found[name]["points"][point]["setting"], "seconds": run.scale.round_s}

    points = list(dict.fromkeys(point for each in found.values() for point in each["points"]))
    rounds = side_by_side(run, part, children, points, arguments, run.scale.round_count)
    return {name: {point: each[first[name][point]] for point in first[name]} for name, each in rounds.items()}


def _first_of(points: dict[str, Any], name: str) -> str:
    """The first point that has the same setting."""
    return next(each for each, point in points.items() if point["setting"] == points[name]["setting"])


def _timed(run: Run, part: str, found: dict[str, Result], count: int | None) -> Result:
    folder = run.data(count)
    children = _children(run, list(found), folder)
    try:
        openings = opened(run, part, children)

        rounds = _rounds(run, part, children, found)
        memory = {name: children[name].ask("memory") for name in rounds}
    finally:
        for child in children.values():
            child.end()
    backends = {
        name: {**found[name], **openings[name], **memory[name], "timed": medians(each), "rounds": each}
        for name, each in rounds.items()
    }
    stored = data.read(folder)
    shape = {"count": len(stored.vectors), "dim": stored.vectors.shape[1], "recipe": stored.recipe}
    return {**shape, "backends": backends}


def time_threads(run: Run, part: str, backends: tuple[str, ...], count: int) -> None:
    """The same queries from one thread and from two, in turn."""
    found = {name: each for name, each in prepared(run, backends, count).items() if each["takes_threads"]}
    sizes = {"backends": sorted(found), "round_count": run.scale.round_count, "round_s": run.scale.round_s}

    def measure() -> Result:
        folder = run.data(count)
        children = _children(run, list(found), folder)
        try:
            opened(run, part, children)

            def arguments(name: str, threads: str) -> dict[str, Any]:
                points = found[name]["points"]
                setting = points.get(str(TARGETS[-1]), points["default"])["setting"]
                return {"setting": setting, "seconds": run.scale.round_s, "thread_count": int(threads)}

            rounds = side_by_side(run, part, children, ["1", "2"], arguments, run.scale.round_count)
        finally:
            for child in children.values():
                child.end()
        return {
            "count": count,
            "backends": {
                name: {"label": found[name]["label"], "timed": medians(each)} for name, each in rounds.items()
            },
        }

    if found:
        run.once(part, sizes, measure)


def build_in_turn(run: Run, part: str, backends: tuple[str, ...], count: int) -> None:
    """Only the time until everything is indexed, one backend after the other, on databases that are not kept."""

    def measure() -> Result:
        folder = run.data(count)
        built = {}
        for name in backends:
            scratch = run.scratch(f"{part}-{name}")
            try:
                with run.child(name, CHILD, folder, scratch) as child:
                    built[name] = {**child.ask("about"), **child.ask("build")}
            except ChildError as error:
                run.lack(f"{part}, {name}", str(error))
                continue
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            say(f"  {name}: {built[name]['seconds']:.1f} s")
        return {"count": count, "backends": built}

    run.once(part, {"count": count, "backends": sorted(backends)}, measure)
