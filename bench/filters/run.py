"""One run of the benchmark: where its files lie, what is known already, and rounds through all databases in turn."""

from __future__ import annotations

import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.filters import dataset
from bench.filters.conversation import ChildError, Conversation
from bench.filters.scale import Scale
from bench.measure import say
from bench.peers.filtering import OURS

Result = dict[str, Any]
Rounds = dict[str, dict[str, list[dict[str, float]]]]
"""By backend and setting: the figures of each round."""


@dataclass
class Run:
    """Where things lie, how large they are, and what could not be measured, with the reason.

    `fresh` names the parts that are measured again, with this project's database built again; `rebuild` says whether
    those of the peers are, too.
    """

    folder: Path
    corpus: Path
    scale: Scale
    backends: tuple[str, ...]
    peers_python: Path
    fresh: frozenset[str]
    rebuild: bool
    missing: dict[str, str] = field(default_factory=dict)
    failed: bool = False

    def data(self, count: int) -> Path:
        """The folder of the filters' data set of that size, made on first need."""
        folder = self.folder / f"data-{count}"
        dataset.make(self.corpus, folder, count, self.scale.query_count)
        return folder

    def database(self, name: str) -> Path:
        """Where a database lies that is kept for other runs."""
        return self.folder / "databases" / name

    def is_fresh(self, part: str, backend: str) -> bool:
        """Whether a backend's database for that part is to be built again."""
        return part in self.fresh and (backend == OURS or self.rebuild)

    def child(self, backend: str, module: str, data: Path, database: Path) -> Conversation:
        """A process for a backend, run by the interpreter that has its packages."""
        python = Path(sys.executable) if backend == OURS else self.peers_python
        if not python.exists():
            raise ChildError(f"no {python}: run `make peers`")
        return Conversation(python, module, [backend, str(data), str(database)])

    def known(self, name: str, sizes: dict[str, Any]) -> Result | None:
        """A finished result of the same sizes."""
        path = self.folder / "runs" / f"{name}.json"
        if not path.exists():
            return None
        stored: Result = json.loads(path.read_text())
        if stored["sizes"] != sizes:
            return None
        say(f"{name}: reused, finished {stored['finished']}")
        return stored

    def keep(self, name: str, sizes: dict[str, Any], result: Result, started: float) -> Result:
        """Stores a result; only now does it count as finished."""
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


def side_by_side(
    run: Run,
    part: str,
    children: dict[str, Conversation],
    settings: list[str],
    arguments: Callable[[str, str], dict[str, Any]],
) -> Rounds:
    """Rounds through all settings, and for each through all databases. One that fails is left out from there on."""
    rounds: Rounds = {name: {} for name in children}
    for number in range(run.scale.round_count):
        say(f"{part}: round {number + 1} of {run.scale.round_count}")
        for setting in settings:
            for name in list(rounds):
                try:
                    timed = children[name].ask("time", seconds=run.scale.round_s, **arguments(name, setting))
                except ChildError as error:
                    run.lack(f"{part}, {name}", str(error))
                    del rounds[name]
                    continue
                rounds[name].setdefault(setting, []).append(timed)
    return rounds


def opened(run: Run, part: str, children: dict[str, Conversation]) -> dict[str, Any]:
    """Tells every child to open its database; what each answers. One that fails is ended and left out."""
    answers = {}
    for name in list(children):
        try:
            answers[name] = children[name].ask("open")
        except ChildError as error:
            run.lack(f"{part}, {name}", str(error))
            children.pop(name).end()
    return answers


def medians(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Per setting the median of each figure over the rounds."""
    return {
        setting: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for setting, figures in rounds.items()
    }
