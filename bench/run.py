"""What runs of several databases share: finished results on disk, and rounds through all databases in turn."""

from __future__ import annotations

import datetime
import fcntl
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.conversation import ChildError, Conversation
from bench.machine import idle_share
from bench.measure import say

Result = dict[str, Any]
Rounds = dict[str, dict[str, list[dict[str, float]]]]
"""By backend and setting: the figures of each round."""


@dataclass
class Ledger:
    """Results of finished parts below `folder`, and what could not be measured, with the reason."""

    folder: Path
    missing: dict[str, str] = field(default_factory=dict)
    failed: bool = False

    def _path(self, name: str) -> Path:
        return self.folder / "runs" / f"{name}.json"

    def known(self, name: str, sizes: dict[str, Any]) -> Result | None:
        """A finished result of the same sizes."""
        if not self._path(name).exists():
            return None
        stored: Result = json.loads(self._path(name).read_text())
        if stored["sizes"] != sizes:
            return None
        say(f"{name}: reused, finished {stored['finished']}")
        return stored

    def keep(self, name: str, sizes: dict[str, Any], result: Result, started: float) -> Result:
        """Stores a result; only now does it count as finished."""
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stored = {"sizes": sizes, "finished": finished, "run_s": round(time.perf_counter() - started, 1), **result}
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(stored, indent=2) + "\n")
        unfinished.replace(path)
        say(f"{name}: finished in {stored['run_s']} s")
        return stored

    def lack(self, name: str, reason: str) -> None:
        """Notes what was asked for and failed."""
        say(f"{name}: {reason}")
        self.missing[name] = reason.strip().splitlines()[-1]
        self.failed = True

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Other runs that want to make the same thing wait here until this one has it, or has ended."""
        path = self._path(name).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def measured(self, name: str, sizes: dict[str, Any], measure: Callable[[], Result]) -> Result | None:
        """Measures and stores; None, with the reason noted, where that fails. How idle the machine was is kept."""
        started, idle = time.perf_counter(), idle_share()
        try:
            result = measure()
        except (ChildError, RuntimeError) as error:
            self.lack(name, str(error))
            return None
        idle = min(idle, idle_share())
        return self.keep(name, sizes, {"idle_share": round(idle, 2), **result}, started)

    def results(self) -> dict[str, Result]:
        """All finished results by name."""
        return {path.stem: json.loads(path.read_text()) for path in sorted((self.folder / "runs").glob("*.json"))}


def side_by_side(
    ledger: Ledger,
    part: str,
    children: dict[str, Conversation],
    settings: list[str],
    arguments: Callable[[str, str], dict[str, Any] | None],
    round_count: int,
    action: str = "time",
) -> Rounds:
    """Rounds through all settings, and for each through all databases. One that fails is left out from there on.

    `arguments` gives what a database is asked with; None leaves a setting out for it.
    """
    rounds: Rounds = {name: {} for name in children}
    for number in range(round_count):
        say(f"{part}: round {number + 1} of {round_count}")
        for setting in settings:
            for name in list(rounds):
                given = arguments(name, setting)
                if given is None:
                    continue
                try:
                    timed = children[name].ask(action, **given)
                except ChildError as error:
                    ledger.lack(f"{part}, {name}", str(error))
                    del rounds[name]
                    continue
                rounds[name].setdefault(setting, []).append(timed)
    return rounds


def opened(ledger: Ledger, part: str, children: dict[str, Conversation]) -> dict[str, Any]:
    """Tells every child to open its database; what each answers. One that fails is ended and left out."""
    answers = {}
    for name in list(children):
        try:
            answers[name] = children[name].ask("open")
        except ChildError as error:
            ledger.lack(f"{part}, {name}", str(error))
            children.pop(name).end()
    return answers


def medians(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Per setting the median of each figure over the rounds."""
    return {
        setting: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for setting, figures in rounds.items()
    }
