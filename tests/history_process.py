"""A process whose threads work on one collection and write down each call as it begins and ends.

    python history_process.py writer|reader FOLDER LOG SEED FIRST_VERSION [PLANTED]

Runs until it is killed. A record's version is in its metadata, and its vector and text follow from it.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from history import PRESENT, Log

from nopokedb import DuplicateIdError, NeedsRecoveryError, NoPokeDB, Record
from nopokedb.embedded import compaction, sealing, upkeep
from nopokedb.embedded.engine import EmbeddedEngine

DIM, KEYS = 6, 8
WRITERS, READERS = 3, 2
Seen = dict[int, int | None]
Call = Callable[[], tuple[Seen, Seen, int | None]]
"""Does it, and tells what it saw, what it changed, and the number of records if it knows that."""


def vector_of(version: int) -> np.ndarray:
    """float32 (DIM,), another one for each version."""
    return np.random.default_rng(version).standard_normal(DIM).astype(np.float32)


def versions_of(records: Sequence[Record | None]) -> Seen:
    """Key -> version; each record has to be of one piece."""
    found: Seen = {}
    for record in records:
        if record is not None:
            assert record.metadata is not None and record.vector is not None and isinstance(record.id, int)
            version = record.metadata["v"]
            assert record.vector.tobytes() == vector_of(version).tobytes() and record.text == f"text {version}"
            found[record.id] = version
    return found


def whole_state(db: NoPokeDB, parts: Any = ("metadata", "vector", "text")) -> Seen:
    """What a scan shows."""
    return dict.fromkeys(range(KEYS)) | versions_of(list(db.scan(include=parts)))


class Worker:
    """Calls, written down."""

    def __init__(self, db: NoPokeDB, log: Log, versions: itertools.count[int], seed: str) -> None:
        self._db, self._log, self._versions = db, log, versions
        self._dice = random.Random(seed)
        self._name = seed
        self._number = 0

    def call(
        self,
        what: str,
        run: Callable[[], tuple[Seen, Seen, int | None]],
        seen: Seen | None = None,
        changes: Seen | None = None,
    ) -> None:
        """Do it. `seen` and `changes` hold if it does not return; `run` tells what they are if it does."""
        self._number += 1
        name = f"{self._name}/{self._number}"
        began = time.monotonic_ns()
        self._log.write(call=name, began=began, what=what, seen=seen or {}, changes=changes or {})
        result = run()
        self._log.write(call=name, ended=time.monotonic_ns(), seen=result[0], changes=result[1], count=result[2])

    def _some(self) -> list[int]:
        return self._dice.sample(range(KEYS), self._dice.randint(1, 4))

    def upsert(self) -> None:
        """One batch of one to four keys."""
        changes: Seen = {key: next(self._versions) for key in self._some()}

        def run() -> tuple[Seen, Seen, None]:
            news = [version for version in changes.values() if version is not None]
            vectors = np.array([vector_of(version) for version in news])
            texts = [f"text {version}" for version in news]
            self._db.upsert_many(list(changes), vectors, [{"v": version} for version in news], texts=texts)
            return {}, changes, None

        self.call("upsert_many", run, changes=changes)

    def add(self) -> None:
        """One record, if its id is free."""
        (key,), version = self._dice.sample(range(KEYS), 1), next(self._versions)

        def run() -> tuple[Seen, Seen, None]:
            try:
                self._db.add(vector_of(version), {"v": version}, id=key, text=f"text {version}")
            except DuplicateIdError:
                return {key: PRESENT}, {}, None
            return {key: None}, {key: version}, None

        self.call("add", run, {key: None}, {key: version})

    def delete(self) -> None:
        """One record, if it is there."""
        (key,) = self._dice.sample(range(KEYS), 1)

        def run() -> tuple[Seen, Seen, None]:
            return ({key: PRESENT}, {key: None}, None) if self._db.delete(key) else ({key: None}, {}, None)

        self.call("delete", run, changes={key: None})

    def mixed(self) -> None:
        """A block that deletes some keys and replaces others, as one batch."""
        keys = self._some()
        changes: Seen = {key: next(self._versions) if self._dice.random() < 0.7 else None for key in keys}

        def run() -> tuple[Seen, Seen, None]:
            with self._db.batch() as batch:
                for key, version in changes.items():
                    if version is None:
                        batch.delete(key)
                    else:
                        batch.upsert(key, vector_of(version), {"v": version}, text=f"text {version}")
            return {}, changes, None

        self.call("batch", run, changes=changes)

    def get(self) -> None:
        """Several keys, which are of one moment."""
        keys = self._some()

        def run() -> tuple[Seen, Seen, None]:
            found = self._db.get_many(keys, include=("metadata", "vector", "text"))
            return dict.fromkeys(keys) | versions_of(found), {}, None

        self.call("get_many", run)

    def scan(self) -> None:
        self.call("scan", lambda: (whole_state(self._db), {}, None))

    def query(self) -> None:
        """All records by distance."""

        def run() -> tuple[Seen, Seen, None]:
            hits = self._db.query(vector_of(1), k=KEYS, include=("metadata", "vector", "text"))
            return dict.fromkeys(range(KEYS)) | versions_of(hits), {}, None

        self.call("query", run)

    def count(self) -> None:
        self.call("count", lambda: ({}, {}, len(self._db)))

    def write_for_ever(self) -> None:
        """A writer reads too: what it has written."""
        kinds = [self.upsert, self.upsert, self.add, self.delete, self.mixed, self.mixed, self.get]
        while True:
            self._dice.choice(kinds)()

    def read_for_ever(self) -> None:
        while True:
            self._dice.choice([self.get, self.get, self.scan, self.query, self.count])()

    def follow_for_ever(self) -> None:
        """Of a read-only handle: move forward, then read, and read the same again."""

        def run() -> tuple[Seen, Seen, None]:
            self._db.refresh()
            state = whole_state(self._db)
            assert whole_state(self._db) == state, "it moves without a refresh"
            assert versions_of(self._db.get_many(list(range(KEYS)), include=("metadata", "vector", "text"))) == {
                key: version for key, version in state.items() if version is not None
            }
            return state, {}, None

        while True:
            try:
                self.call("refresh", run)
            except NeedsRecoveryError:  # no writer, or one that is just opening: the handle stays where it is
                self._log.write(refused=time.monotonic_ns())


# --- bugs, planted to see them found ---------------------------------------------------------------------------------


def _stale_reads() -> None:
    """Now and then a read sees the state before the last one."""
    real: Any = EmbeddedEngine.snapshot
    dice = random.Random(1)
    states: dict[int, list[Any]] = {}

    def snapshot(self: Any) -> Any:
        seen = states.setdefault(id(self), [])
        now = real(self)
        if not seen or seen[-1] is not now:
            seen.append(now)
        back = 2 if dice.random() < 0.05 else 1
        chosen = seen[-min(back, len(seen))]
        return chosen if chosen.store is now.store else now

    EmbeddedEngine.snapshot = snapshot  # type: ignore[method-assign]


def _torn_batches() -> None:
    """A batch of several records is written as several."""
    real: Any = EmbeddedEngine.write

    def write(self: Any, writes: Any) -> Any:
        return [real(self, [each])[0] for each in writes] if len(writes) > 1 else real(self, writes)

    EmbeddedEngine.write = write  # type: ignore[method-assign]


def _early_acknowledgement() -> None:
    """A batch is acknowledged, and dropped if the process dies within the next moments."""
    real: Any = EmbeddedEngine.write
    waiting: list[tuple[Any, Any]] = []
    mutex = threading.RLock()

    def write(self: Any, writes: Any) -> Any:
        with mutex:
            while waiting:
                real(*waiting.pop(0))
            if writes[0].kind == "upsert" and writes[0].ids is not None:
                waiting.append((self, writes))
                return [list(each.ids) for each in writes]
            return real(self, writes)

    EmbeddedEngine.write = write  # type: ignore[method-assign]


PLANTS = {"stale": _stale_reads, "torn": _torn_batches, "early": _early_acknowledgement}


def main() -> None:
    role, folder, file, seed, first, *planted = sys.argv[1:]
    for plant in planted:
        PLANTS[plant]()
    # Small limits, so that sealing, checkpoints and new generations happen all the time.
    sealing.SEAL_ROWS, upkeep.URGENT_ROWS, upkeep.CHECKPOINT_BYTES, upkeep.PAUSE_S = 256, 512, 20_000, 0.0
    compaction.RETIRED_LABELS, compaction.RETIRED_SHARE, compaction._PAUSE_S = 50, 0.5, 0.0
    log = Log(Path(file))
    versions = itertools.count(int(first))
    if role == "reader":
        while True:
            try:
                db = NoPokeDB(path=folder, read_only=True)
                break
            except NeedsRecoveryError:
                log.write(refused=time.monotonic_ns())
        Worker(db, log, versions, f"reader {seed}").follow_for_ever()
    db = NoPokeDB(dim=DIM, path=folder)
    log.write(opened=time.monotonic_ns())
    workers = [Worker(db, log, versions, f"{seed}/{number}") for number in range(WRITERS + READERS)]
    targets = [worker.write_for_ever for worker in workers[:WRITERS]]
    targets += [worker.read_for_ever for worker in workers[WRITERS:]]
    failed: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    while not failed:
        threads[0].join(0.1)
    raise failed[0]


if __name__ == "__main__":
    main()
