"""Record a workload, build the images of every point, have them checked, judge what was found."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

from crash import trace
from crash.checker import BACKUPS
from crash.images import MODELS, Disk, Image
from crash.pool import Answer, Pool, scratch
from crash.recording import record
from crash.records import State, digest
from crash.scenarios import SCENARIOS
from crash.trace import Op

Changes: TypeAlias = dict[str, list[Any]]
"""A batch as the workload announces it."""

RECALL_SLACK = 0.005
RECOVERY = "+recovery"
"""Ends the name of an enumeration of recoveries."""
_ABSENT = "absent"
_ALWAYS = ("all", "synced")
"""Kinds of images that are checked whatever the share: what a killed process leaves, and the least a disk holds."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What an image has to hold: one of these states, and as good an index."""

    states: tuple[str, ...]
    acknowledged: int
    recall: float = 0.0

    def objection(self, answer: Answer) -> str | None:
        """Why this answer breaks a promise."""
        if answer["problem"] is not None:
            return str(answer["problem"])
        if answer["state"] not in self.states:
            return (
                f"the state is none of those allowed after {self.acknowledged} acknowledged batches: "
                f"{answer['state']} with {answer['count']} records"
            )
        if answer["recall"] is not None and answer["recall"] < self.recall - RECALL_SLACK:
            return f"recall@10 is {answer['recall']}, it was {self.recall}"
        return None


@dataclass(slots=True)
class Promises:
    """What the workload was told so far. Batches of several threads change different records."""

    durability: str = "full"
    created: bool = False
    acknowledged: int = 0
    recall: float = 1.0
    _state: State = field(default_factory=dict)
    _past: list[str] = field(default_factory=lambda: [digest({})])
    """States since the last one that has to be there, oldest first."""
    _begun: dict[str, Changes] = field(default_factory=dict)
    """The batch that each thread waits for."""

    def hear(self, word: str, rest: str) -> bool:
        """Take a mark in; True where more is promised from here on."""
        if word == "begin":
            thread, _, changes = rest.partition(" ")
            self._begun[thread] = json.loads(changes)
        elif word == "ack":
            _apply(self._state, self._begun.pop(rest))
            self.acknowledged += 1
            self._past.append(digest(self._state))
        elif word == "lost":
            del self._begun[rest]
        elif word == "opened":
            self.created = True
        elif word == "recall":
            self.recall = min(self.recall, float(rest))
        if word == "kept" or (word == "ack" and self.durability == "full"):
            self._past = self._past[-1:]
        return word in ("ack", "lost", "opened", "kept")

    def demand(self) -> Demand:
        """What holds now: all that has to be there, and of what was begun each batch whole or absent."""
        states = [*(() if self.created else (_ABSENT,)), *self._past]
        for count in range(1, len(self._begun) + 1):
            for some in combinations(self._begun.values(), count):
                state = dict(self._state)
                for changes in some:
                    _apply(state, changes)
                states.append(digest(state))
        return Demand(tuple(states), self.acknowledged, self.recall)


def _apply(state: State, changes: Changes) -> None:
    for key, metadata, vector, text in changes["put"]:
        state[key] = (metadata, vector, text)
    for key in changes["gone"]:
        state.pop(key, None)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, and how to see it again."""

    image: str
    """scenario/model/operation/kind"""
    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image} (after {self.operation}): {self.reason}"


@dataclass(slots=True)
class Tally:
    """What one scenario under one model came to."""

    name: str
    model: str
    points: int = 0
    built: int = 0
    distinct: int = 0
    """Images with a content that no earlier one of this scenario had; each was checked."""
    seconds: float = 0.0


@dataclass(slots=True)
class Enumeration:
    """The images of one trace. Equal images are checked once, and judged at each point where they appear."""

    name: str
    seed: int
    planted: str = ""
    sample: int = 0
    """Of so many images one is kept to have its recovery recorded; 0: none."""
    stop_at_violation: bool = False
    only: tuple[str, int, str] | None = None
    """Model, operation and kind of the one image to look at."""
    skip: int = 0
    """Marks of the workload before the first point."""
    share: int = 1
    """One of so many images is checked, by digest and seed, and all that stand for a kill or for what was synced."""
    workers: int | None = None
    tallies: list[Tally] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    kept: list[Image] = field(default_factory=list)
    trace: Path | None = None
    """Where the operations are kept if a promise was broken."""
    _open: dict[str, list[tuple[Demand, str, str]]] = field(default_factory=dict)
    _judged: set[tuple[str, Demand]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def checked(self) -> int:
        """Distinct images that were opened."""
        return len(self.answers)

    @property
    def _holds(self) -> str:
        return SCENARIOS[self.name.removesuffix(RECOVERY)].holds

    def run(self, ops: Sequence[Op], models: Sequence[str] = MODELS) -> None:
        """Enumerate a trace; one with violations is kept in a file."""
        pool = Pool(self._holds, self._take, self.planted, self.workers)
        try:
            for model in models:
                begun = time.monotonic()
                tally = Tally(self.name, model)
                self.tallies.append(tally)
                self._follow(ops, model, pool, tally)
                tally.seconds = time.monotonic() - begun
        finally:
            begun = time.monotonic()
            pool.close()
            self.tallies[-1].seconds += time.monotonic() - begun
        assert self.stop_at_violation or not self._open, "images without an answer"
        if self.violations and not self.planted:
            self.trace = Path(tempfile.gettempdir(), f"nopokedb-{self.name}-{self.seed}.trace")
            trace.write(self.trace, ops)

    def _follow(self, ops: Sequence[Op], model: str, pool: Pool, tally: Tally) -> None:
        disk = Disk(model)
        scenario = SCENARIOS.get(self.name)
        promises = Promises(scenario.durability if scenario else "full")
        root = "" if self.name.endswith(RECOVERY) else "db"
        expected: dict[str, str] = {}
        demand, heard = promises.demand(), 0
        for number, op in enumerate(ops):
            disk.tell(number, op)
            if op.kind == "mark":
                heard += 1
                word, _, rest = op.data.decode().partition(" ")
                more = promises.hear(word, rest)
                if word == "expect":
                    expected.update([rest.split(" ")])
                elif word == "start":
                    disk.settle_all()
                    root, demand = f"r{rest}", Demand((expected[rest],), 0)
                elif word == "done":
                    root = ""
                else:
                    demand = promises.demand()
                if not more:
                    continue
            if not root or heard < self.skip:
                continue
            tally.points += op.kind != "mark"
            for image in disk.images(number, root, self.seed):
                if self.only and self.only != (model, number, image.kind):
                    continue
                tally.built += 1
                self._meet(image, demand, f"{self.name}/{model}/{number}/{image.kind}", str(op), pool, tally)
                if self.stop_at_violation and self.violations:
                    return

    def _meet(self, image: Image, demand: Demand, name: str, op: str, pool: Pool, tally: Tally) -> None:
        if image.kind not in _ALWAYS and int(image.digest, 16) % self.share != self.seed % self.share:
            return
        with self._lock:
            if (image.digest, demand) in self._judged:
                return
            self._judged.add((image.digest, demand))
            answer = self.answers.get(image.digest)
            new = answer is None and image.digest not in self._open
            if answer is None:
                self._open.setdefault(image.digest, []).append((demand, name, op))
            else:
                self._judge(answer, demand, name, op)
        if new:
            tally.distinct += 1
            if self.sample and int(image.digest, 16) // 7 % self.sample == self.seed % self.sample:
                self.kept.append(image)
            pool.submit(image)

    def _take(self, image: str, answer: Answer) -> None:
        with self._lock:
            self.answers[image] = answer
            for demand, name, op in self._open.pop(image):
                self._judge(answer, demand, name, op)

    def _judge(self, answer: Answer, demand: Demand, name: str, op: str) -> None:
        if (reason := demand.objection(answer)) is not None:
            self.violations.append(Violation(name, op, reason))

    # --- recoveries ------------------------------------------------------------------------------------------

    def recoveries(self, limit: int, share: int = 1) -> Enumeration | None:
        """Record the recovery of up to `limit` of the kept images and enumerate its crash points too."""
        ops = self.recorded_recoveries(limit)
        if not ops:
            return None
        inner = Enumeration(self.name + RECOVERY, self.seed, self.planted, share=share, workers=self.workers)
        inner.run(ops)
        return inner

    def recorded_recoveries(self, limit: int) -> list[Op]:
        """The recoveries of up to `limit` of the kept images, one after the other; nothing where there are none."""
        if self._holds == BACKUPS:
            return []
        images = [i for i in self.kept if not self.answers[i.digest]["problem"]]
        images = [i for i in images if self.answers[i.digest]["state"] != _ABSENT][:limit]
        if not images:
            return []
        place = scratch()
        try:
            folders = [place / str(number) for number in range(len(images))]
            for image, folder in zip(images, folders, strict=True):
                image.write(folder)
            ops = record(f"recover {self._holds}", self.seed, self.planted, folders)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        states = [self.answers[image.digest]["state"] for image in images]
        return [*(Op("mark", data=f"expect {at} {state}".encode()) for at, state in enumerate(states)), *ops]
