"""A server that loads its application and then forks workers, as gunicorn does with --preload. Run as a script:

    python preforking_server.py FOLDER closes|writes|reads

What the parent does before it forks. One JSON line per worker: how each step ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nopokedb import NoPokeDB

DIM, COUNT, MORE, WORKERS = 32, 4500, 4500, 2
LIMIT_S = 240


def vectors_of(count: int) -> np.ndarray:
    """float32 (count, DIM)."""
    return np.random.default_rng(5).random((count, DIM), np.float32)


def fill(db: NoPokeDB, start: int, count: int) -> None:
    """Records with an index over most of them."""
    texts = [f"word{n}" for n in range(start, start + count)]
    db.add_many(
        vectors_of(start + count)[start:],
        [{"n": n % 10 if n < COUNT else -1} for n in range(start, start + count)],
        texts=texts,
    )
    deadline = time.monotonic() + LIMIT_S
    while db.stats().sealing and time.monotonic() < deadline:
        os.sched_yield()
    assert db.stats().segments, db.stats().notes


def use(db: NoPokeDB) -> str:
    """Everything that native code takes part in."""
    vectors = vectors_of(COUNT)
    assert db.query(vectors[7], k=1)[0].id == 7
    assert [hits[0].id for hits in db.query_many(vectors[:300], k=3)] == list(range(300))
    assert [hits[0].id for hits in db.query_many(vectors[:300], k=3, target_recall=1.0)] == list(range(300))
    assert db.query(vectors[0], k=1, where={"n": 3})[0].id % 10 == 3
    assert [hit.id for hit in db.query(text="word77")] == [77]
    assert db.count({"n": 3}) == COUNT // 10
    return "right"


def outcome(step: Callable[[], Any]) -> str:
    """What it returned, or which error it raised."""
    try:
        return str(step())
    except Exception as error:  # noqa: BLE001  # told to the test
        return f"{type(error).__name__}: {error}"


def work(path: str, parents: NoPokeDB | None, number: int) -> dict[str, str]:
    """What a worker does."""
    told = {"pid": str(os.getpid())}
    if parents is not None:
        told["parents handle"] = outcome(lambda: parents.query(vectors_of(1)[0]))
        told["closing it"] = outcome(parents.close)

    def read() -> str:
        with NoPokeDB(path=path, read_only=True) as db:
            return use(db)

    def write() -> str:
        with NoPokeDB(path=path) as db:
            fill(db, COUNT, MORE)
            db.compact()
            return f"{len(db)} records, {len(db.query_many(vectors_of(100), k=5))} answers"

    told["reads"] = outcome(read)
    if number == 0:
        told["writes"] = outcome(write)
    return told


def main() -> None:
    path, what = sys.argv[1:]
    parents: NoPokeDB | None = NoPokeDB(path=path, read_only=what == "reads")
    assert parents is not None
    use(parents)
    if what == "closes":
        parents.close()
        parents = None
    for number in range(WORKERS):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(LIMIT_S)
            os.write(write_end, json.dumps(work(path, parents, number)).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            line = pipe.read()
        os.waitpid(pid, 0)
        print(line or '{"reads": "it hangs"}', flush=True)
    if parents is not None:
        print(json.dumps({"parent": outcome(lambda: use(parents)), "pid": str(os.getpid())}))
        if what == "writes":
            parents.add(vectors_of(1)[0])
        parents.close()


if __name__ == "__main__":
    main()
