"""Opens a collection in a process of its own and prints what that took, as one line of JSON.

Run as `python -m bench.opening COLLECTION DATA.npz`. Each figure needs a fresh process: a second open in the
same one finds warm caches and memory that the first has already taken.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bench.memory import anonymous_bytes
from bench.scale import K


def open_here(collection: Path, data: Path) -> dict[str, object]:
    """The figures of one open in this process. A warm query is one that has been asked before."""
    with np.load(data, allow_pickle=False) as arrays:
        queries = arrays["queries"]  # an .npz reads one member at a time: the vectors never come into memory
    started = time.perf_counter()
    import faiss  # noqa: F401  # imported here because its own import must not count as opening

    import nopokedb

    import_seconds = time.perf_counter() - started
    before = anonymous_bytes()
    started = time.perf_counter()
    db = nopokedb.NoPokeDB(path=collection)
    open_seconds = time.perf_counter() - started
    opened_at = time.time()
    after_open = anonymous_bytes()
    passes: list[list[float]] = []
    for _ in range(2):
        latencies_us: list[float] = []
        for query in queries:
            started = time.perf_counter()
            db.query(query, k=K)
            latencies_us.append((time.perf_counter() - started) * 1e6)
        passes.append(latencies_us)
    after_queries = anonymous_bytes()
    count = len(db)
    stats = str(db.stats())
    db.close()
    return {
        "count": count,
        "import_ms": import_seconds * 1e3,
        "open_ms": open_seconds * 1e3,
        "opened_at": opened_at,
        "first_query_us": passes[0][0],
        "further_query_us": statistics.median(passes[0][1:]),
        "warm_query_us": statistics.median(passes[1]),
        "open_bytes": after_open - before,
        "queried_bytes": after_queries - before,
        "stats": stats,
    }


def measure_opening(collection: Path, data: Path, open_count: int) -> dict[str, object]:
    """Medians over fresh processes. `cold_ms` is from the start of the process to the open collection."""
    runs: list[dict[str, float]] = []
    stats = ""
    for _ in range(open_count):
        started_at = time.time()
        command = [sys.executable, "-m", "bench.opening", str(collection), str(data)]
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ.copy())
        run = json.loads(finished.stdout)
        stats = run.pop("stats")
        run["cold_ms"] = (run["opened_at"] - started_at) * 1e3
        run["first_over_warm"] = run["first_query_us"] / run["warm_query_us"]
        runs.append(run)
    medians: dict[str, object] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    del medians["opened_at"]
    return {**medians, "stats": stats}


if __name__ == "__main__":
    print(json.dumps(open_here(Path(sys.argv[1]), Path(sys.argv[2]))))
