"""The process under test: runs one scenario on the recording file system and says what it does.

Marks: `begin THREAD {changes}` before a batch and `ack THREAD` after its call returned; `opened` once an opening
returned; `kept` once a `save` or `close` returned; `recall N` for what the indexes found when they were made;
`start N`, `done N` around the N-th recovery. A batch that a killed process had begun is acknowledged by the next one if
it finds it, and `lost THREAD` says that it does not: what was seen once has to stay.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from next_format import NEXT, format_is

from crash import plants
from crash.records import DIM, Versions, id_of, metadata_of, read_record, text_of, vector_of
from nopokedb import NoPokeDB
from nopokedb.embedded import upkeep
from nopokedb.embedded.search.curve import Cost
from nopokedb.embedded.storage import columns, oplog

_DEADLINE_S = 60.0
_say = os.pwrite
"""Marks are written by the system's own call, whatever is done to the one that the package uses."""
KILLED = 9
"""Exit code of a process that ended itself where a kill was wanted."""


class Workload:
    """A database whose every batch is announced before and acknowledged after."""

    def __init__(self, mount: Path, durability: str, seed: int = 0, stage: int = 0) -> None:
        self.folder = mount / "db"
        self.durability = durability
        self.seed, self.stage = seed, stage
        self._marks = os.open(mount / "marks", os.O_RDWR | os.O_CREAT)
        self._mutex = threading.Lock()
        self.live: dict[int, Versions] = {}
        self._next = 0
        self._open: tuple[str, dict[str, Any]] | None = None
        """The batch that an earlier process had begun."""
        self._at = 0
        for line in os.pread(self._marks, 2**24, 0).decode().splitlines(keepends=True):
            self._at += len(line)
            self._remember(line.strip())
        self.db: NoPokeDB

    def _remember(self, mark: str) -> None:
        """Take in what an earlier process said, which did one batch at a time."""
        word, _, rest = mark.partition(" ")
        if word == "begin":
            thread, _, changes = rest.partition(" ")
            self._open = (thread, json.loads(changes))
            for key, *_ in self._open[1]["put"]:
                self._next = max(self._next, key + 1)
        elif word in ("ack", "lost") and self._open is not None:
            if word == "ack":
                self._apply(self._open[1])
            self._open = None

    def _apply(self, changes: dict[str, Any]) -> None:
        self.live.update({key: (m, v, t) for key, m, v, t in changes["put"]})
        for key in changes["gone"]:
            self.live.pop(key, None)

    def say(self, text: str) -> None:
        """One mark, in the order of the file operations."""
        with self._mutex:
            self._at += _say(self._marks, f"{text}\n".encode(), self._at)

    def open(self, **arguments: Any) -> None:
        """Create or reopen the collection."""
        self.db = NoPokeDB(dim=DIM, path=self.folder, durability=self.durability, **arguments)
        if self._open is not None:
            thread, changes = self._open
            records = self.db.scan(include=("metadata", "vector", "text"))
            found = dict(read_record(record) for record in records)
            before = dict(self.live)
            self._apply(changes)
            if found != self.live:
                assert found == before, "a batch is there in part"
                self.live = before
            self.say(f"{'ack' if found == self.live != before else 'lost'} {thread}")
            self._open = None
        self.say("opened")

    def die_at(self, call: int) -> None:
        """From here on the process is killed at its `call`-th file operation, before it is done."""
        left = call

        def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(KILLED)
                return real(*arguments, **options)

            return run

        for name in ("pwrite", "fdatasync", "fsync", "replace", "rename", "unlink", "open"):
            setattr(os, name, guarded(getattr(os, name)))

    def fail_sync(self, number: int) -> None:
        """The `number`-th sync from here on says EIO, and what it should have written never reaches the disk."""
        self.say(f"fail {number}")

    def close(self) -> None:
        self.db.close()
        self.say("kept")

    def save(self) -> None:
        self.db.save()
        self.say("kept")

    def begin(self, puts: dict[int, Versions], gone: Sequence[int] = ()) -> None:
        """Announce a batch."""
        changes = {"put": [[key, *v] for key, v in puts.items()], "gone": list(gone)}
        self.say(f"begin {threading.get_ident()} {json.dumps(changes)}")
        self.live.update(puts)
        for key in gone:
            self.live.pop(key, None)

    def ack(self) -> None:
        self.say(f"ack {threading.get_ident()}")

    def new_keys(self, count: int) -> list[int]:
        """Keys that were never used."""
        with self._mutex:
            self._next += count
            return list(range(self._next - count, self._next))

    def add(self, count: int = 1) -> list[int]:
        """One batch of new records."""
        keys = self.new_keys(count)
        self.begin(dict.fromkeys(keys, (0, 0, 0)))
        if count == 1:
            key = keys[0]
            self.db.add(vector_of(key, 0), metadata_of(key, (0, 0, 0)), id=id_of(key), text=text_of(key, 0))
        else:
            self.db.add_many(
                np.array([vector_of(key, 0) for key in keys]),
                [metadata_of(key, (0, 0, 0)) for key in keys],
                ids=[id_of(key) for key in keys],
                texts=[text_of(key, 0) for key in keys],
            )
        self.ack()
        return keys

    def upsert(self, keys: Sequence[int]) -> None:
        """One batch that replaces every part of these records; new keys are added."""
        news = {key: tuple(v + 1 for v in self.live.get(key, (-1, -1, -1))) for key in keys}
        puts: dict[int, Versions] = {key: (v[0], v[1], v[2]) for key, v in news.items()}
        self.begin(puts)
        self.db.upsert_many(
            [id_of(key) for key in keys],
            np.array([vector_of(key, puts[key][1]) for key in keys]),
            [metadata_of(key, puts[key]) for key in keys],
            texts=[text_of(key, puts[key][2]) for key in keys],
        )
        self.ack()

    def update_metadata(self, keys: Sequence[int]) -> None:
        """One batch that leaves vectors and texts as they are."""
        puts = {key: (self.live[key][0] + 1, *self.live[key][1:]) for key in keys}
        self.begin(puts)
        self.db.upsert_many([id_of(key) for key in keys], metadatas=[metadata_of(key, puts[key]) for key in keys])
        self.ack()

    def delete(self, keys: Sequence[int]) -> None:
        """One batch of deletions."""
        self.begin({}, keys)
        self.db.delete_many([id_of(key) for key in keys])
        self.ack()

    def delete_by_filter(self, tag: str) -> None:
        """One batch that deletes every record with this tag."""
        chosen = [key for key, versions in self.live.items() if metadata_of(key, versions)["tag"] == tag]
        self.begin({}, chosen)
        assert self.db.delete_many(where={"tag": tag}) == len(chosen)
        self.ack()

    def rollback(self, name: str, then: dict[int, Versions]) -> None:
        """One batch that brings a named snapshot back."""
        puts = {key: versions for key, versions in then.items() if self.live.get(key) != versions}
        self.begin(puts, [key for key in self.live if key not in then])
        self.db.rollback(name)
        self.ack()

    def undo(self, then: dict[int, Versions]) -> None:
        """One batch that takes the last one back."""
        puts = {key: versions for key, versions in then.items() if self.live.get(key) != versions}
        self.begin(puts, [key for key in self.live if key not in then])
        self.db.undo()
        self.ack()

    def mixed_batch(self, new: int, replaced: Sequence[int], gone: Sequence[int]) -> None:
        """A `with db.batch()` of all kinds of writes."""
        puts: dict[int, Versions] = dict.fromkeys(self.new_keys(new), (0, 0, 0))
        for key in replaced:
            old = self.live[key]
            puts[key] = (old[0] + 1, old[1] + 1, old[2] + 1)
        self.begin(puts, gone)
        with self.db.batch() as batch:
            for key in gone:
                batch.delete(id_of(key))
            for key, versions in puts.items():
                text = text_of(key, versions[2])
                batch.upsert(id_of(key), vector_of(key, versions[1]), metadata_of(key, versions), text=text)
        self.ack()

    def wait_until_sealed(self) -> None:
        """Return when the upkeep has nothing left to do, and say what its indexes find."""
        deadline = time.monotonic() + _DEADLINE_S
        while self.db.stats().sealing:
            assert time.monotonic() < deadline, "the upkeep did not finish"
            os.sched_yield()
        assert self.db.stats().segments, f"no index was built: {self.db.stats().notes}"
        self.say(f"recall {recall_of(self.db, self.live)}")


def recall_of(db: NoPokeDB, state: dict[int, Versions]) -> float:
    """Recall@10 of 20 fixed queries against brute force over `state`, by the indexes, however few rows they cover."""
    queries = np.random.default_rng(77).standard_normal((20, DIM)).astype(np.float32)
    keys = list(state)
    rows = np.array([vector_of(key, state[key][1]) for key in keys], np.float64)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    usual = Cost.list_us
    Cost.list_us = lambda self, length: 0.0  # type: ignore[method-assign]
    try:
        answers = db.query_many(queries, k=10, include=())
    finally:
        Cost.list_us = usual  # type: ignore[method-assign]
    found = 0
    for best, hits in zip(nearest, answers, strict=True):
        found += len({id_of(keys[at]) for at in best} & {hit.id for hit in hits})
    return found / nearest.size


def make_small(seed: int) -> None:
    """Small extents, so that files grow often and images stay small; fixed random numbers, so that traces repeat."""
    oplog._AHEAD_BYTES = 8192
    columns._MIN_EXTENT = 4096
    upkeep.PAUSE_S = 0.0
    secrets.randbits = random.Random(seed).getrandbits


def recover(mount: Path, folders: Sequence[str], work: Workload) -> None:
    """Open and close a copy of each folder, recorded from the first operation of the opening on."""
    for number, folder in enumerate(folders):
        place = mount / f"r{number}"
        shutil.copytree(folder, place)
        work.say(f"start {number}")
        NoPokeDB(dim=DIM, path=place).close()
        work.say(f"done {number}")


def main() -> None:
    """Arguments: mount point, name of a scenario or `recover` and what the folders hold, seed, planted bug or "", then
    the number of the process or the folders to recover."""
    from crash.checker import OLDER
    from crash.scenarios import SCENARIOS

    mount, name, seed, planted, *rest = sys.argv[1:]
    make_small(int(seed))
    with ExitStack() as stack:
        for plant in filter(None, planted.split(",")):
            stack.enter_context(plants.planted(plant))
        if name.startswith("recover "):
            if name.endswith(OLDER):
                stack.enter_context(format_is(NEXT))
            recover(Path(mount), rest, Workload(Path(mount), "full"))
        else:
            scenario = SCENARIOS[name]
            scenario.run(Workload(Path(mount), scenario.durability, int(seed), int(rest[0])))
    # As a killed process ends: the package would close what is open.
    os._exit(0)


if __name__ == "__main__":
    main()
