"""The parts of a run: what each needs, what it runs, and where its result lies."""

from __future__ import annotations

import datetime
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.filters import dataset
from bench.filters.cases import make_cases
from bench.filters.conversation import ChildError, Conversation
from bench.filters.scale import Scale
from bench.measure import say
from bench.peers.filtering import OURS

Result = dict[str, Any]

# What changes a result without being a size of its data: a stored database is as good for other rounds.
TIMING = ("round_count", "round_s", "recall_s")


@dataclass
class Run:
    """Where things lie, how large they are, and what could not be measured, with the reason."""

    folder: Path
    corpus: Path
    scale: Scale
    backends: tuple[str, ...]
    peers_python: Path
    fresh: frozenset[str]
    missing: dict[str, str] = field(default_factory=dict)
    failed: bool = False

    def data(self, count: int) -> Path:
        """The folder of the data set of that size, made on first need."""
        folder = self.folder / f"data-{count}"
        dataset.make(self.corpus, folder, count, self.scale.query_count)
        return folder

    def database(self, name: str, count: int) -> Path:
        """Where a backend keeps its records; what was built there is used again."""
        return self.folder / "databases" / f"{name}-{count}"

    def python_of(self, name: str) -> Path:
        """The interpreter that has a backend's packages."""
        return Path(sys.executable) if name == OURS else self.peers_python

    def known(self, name: str, sizes: dict[str, Any]) -> Result | None:
        """A finished result of the same sizes, unless it is to be made afresh."""
        path = self.folder / "runs" / f"{name}.json"
        if not path.exists():
            return None
        stored: Result = json.loads(path.read_text())
        return stored if stored["sizes"] == sizes else None

    def keep(self, name: str, sizes: dict[str, Any], result: Result, started: float) -> Result:
        """Stores a result; only now does the part count as finished."""
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stored = {"sizes": sizes, "finished": finished, "run_s": round(time.perf_counter() - started, 1), **result}
        path = self.folder / "runs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored, indent=2) + "\n")
        say(f"{name}: finished in {stored['run_s']} s")
        return stored

    def lack(self, name: str, reason: str) -> None:
        """Notes what was asked for and failed."""
        say(f"{name}: {reason}")
        self.missing[name] = reason.strip().splitlines()[-1]
        self.failed = True


def _sizes(scale: Scale, **more: Any) -> dict[str, Any]:
    """What of the scale a result of filters depends on."""
    return {"query_count": scale.query_count, **more}


def _prepare(run: Run, name: str, count: int, afresh: bool) -> Result | None:
    """Builds a backend's database, or finds it built, and looks for the setting of each case."""
    part, sizes = f"prepare-{name}-{count}", _sizes(run.scale, count=count)
    database = run.database(name, count)
    known = run.known(part, sizes)
    if known and database.exists() and not afresh:
        say(f"{part}: reused, finished {known['finished']}")
        return known
    if not run.python_of(name).exists():
        run.lack(part, f"no {run.python_of(name)}: run `make peers`")
        return None
    started = time.perf_counter()
    data = run.data(count)
    shutil.rmtree(database, ignore_errors=True)
    database.parent.mkdir(parents=True, exist_ok=True)
    say(f"{part}: building")
    child = _child(run, name, count, data)
    try:
        built = child.ask("build")
        say(f"  built in {built['seconds']:.1f} s")
        tuned = {}
        for case in make_cases():
            tuned[case.name] = child.ask("tune", case=case.name, seconds=run.scale.recall_s)
            say(f"  {case.name}: {tuned[case.name]['setting']} recall {tuned[case.name]['recall']:.4f}")
        child.ask("close")
    except ChildError as error:
        run.lack(part, str(error))
        return None
    finally:
        child.end()
    recipe = dataset.read(data).recipe
    return run.keep(part, sizes, {**built, "recipe": recipe, "tuned": tuned}, started)


def _child(run: Run, name: str, count: int, data: Path) -> Conversation:
    arguments = [name, str(data), str(run.database(name, count))]
    return Conversation(run.python_of(name), "bench.filters.child", arguments)


def _median_round(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def _filters(run: Run, part: str, backends: tuple[str, ...], count: int) -> None:
    """Prepares each backend, then asks all of them in turn, round by round."""
    afresh = part in run.fresh
    prepared = {name: found for name in backends if (found := _prepare(run, name, count, afresh))}
    sizes = _sizes(
        run.scale, count=count, backends=sorted(prepared), **{name: getattr(run.scale, name) for name in TIMING}
    )
    if (known := run.known(part, sizes)) and not afresh:
        say(f"{part}: reused, finished {known['finished']}")
        return
    if not prepared:
        return
    started = time.perf_counter()
    data = run.data(count)
    children = {name: _child(run, name, count, data) for name in prepared}
    rounds: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in prepared}
    try:
        for child in children.values():
            child.ask("open")
        for number in range(run.scale.round_count):
            say(f"{part}: round {number + 1} of {run.scale.round_count}")
            for case in make_cases():
                for name, child in children.items():
                    setting = prepared[name]["tuned"][case.name]["setting"]
                    timed = child.ask("time", case=case.name, setting=setting, seconds=run.scale.round_s)
                    rounds[name].setdefault(case.name, []).append(timed)
        for child in children.values():
            child.ask("close")
    except ChildError as error:
        run.lack(part, str(error))
        return
    finally:
        for child in children.values():
            child.end()
    timed_cases = {name: {case: _median_round(each) for case, each in cases.items()} for name, cases in rounds.items()}
    backends_of = {name: {**prepared[name], "timed": timed_cases[name], "rounds": rounds[name]} for name in prepared}
    cases = [{"name": case.name, "kind": case.kind, "percent": case.percent} for case in make_cases()]
    run.keep(part, sizes, {"count": count, "cases": cases, "backends": backends_of}, started)


def _in_process(run: Run, part: str, module: str, arguments: list[str], sizes: dict[str, Any]) -> None:
    """Runs one measurement of this project in a process of its own."""
    if (known := run.known(part, sizes)) and part not in run.fresh:
        say(f"{part}: reused, finished {known['finished']}")
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
    if _prepare(run, OURS, count, afresh=False) is None:
        return
    arguments = [str(run.data(count)), str(run.database(OURS, count))]
    sizes = _sizes(run.scale, count=count, fresh_count=run.scale.fresh_count, round_count=run.scale.round_count)
    _in_process(run, "first-seen", "bench.filters.first_seen", arguments, sizes)


def _text(run: Run) -> None:
    sizes = {name: getattr(run.scale, name) for name in ("document_count", "added_count", "load_round_count", *TIMING)}
    _in_process(run, "text", "bench.filters.text", [str(run.corpus)], sizes)


def _quality(run: Run) -> None:
    sizes = {"relevance_count": run.scale.relevance_count}
    _in_process(run, "quality", "bench.filters.quality", [str(run.corpus)], sizes)


# In the order of running, which is that of importance.
_RUNS: dict[str, Callable[[Run], None]] = {
    "filters": lambda run: _filters(run, "filters", run.backends, run.scale.count),
    "first-seen": _first_seen,
    "text": _text,
    "quality": _quality,
    "large": lambda run: _filters(run, "large", (OURS,), run.scale.large_count),
}
PARTS = tuple(_RUNS)


def run(name: str, settings: Run) -> None:
    """Runs one part, or finds it finished."""
    _RUNS[name](settings)
