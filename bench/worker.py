"""What one child process does: one backend, or one measurement of the goals, and its JSON."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from bench import datasets, peers
from bench.measure import run_peer
from bench.scale import Scale

ORIGINAL = "nopokedb-0.5.1"

# Name on the command line -> what the driver says while it runs; in the order of running, after the backends.
GOAL_RUNS = {
    "writes": "durable writes of this project",
    "writes-0.5.1": "durable writes of nopokedb 0.5.1",
    "threads": "single adds from several threads",
    "bulk": "a larger collection: load, open, memory, overhead",
    "upserts": "metadata-only upserts",
}


def needs_original(name: str) -> bool:
    """Whether a run has to import the original release instead of this project."""
    return name in (ORIGINAL, "writes-0.5.1")


def _measure(name: str, data: Path, folder: Path, scale: Scale) -> dict[str, object]:
    """Imports only what the run needs: the two packages named nopokedb never meet in one process."""
    if name == "upserts":
        from bench.upserts import measure_upserts

        return measure_upserts(folder, scale)
    dataset = datasets.load(data)
    if name in peers.SEED_PEERS:
        return run_peer(name, dataset, folder, scale)
    if name == "bulk":
        from bench.bulk import measure_bulk

        return measure_bulk(dataset, data, folder, scale)
    if name == "writes-0.5.1":
        from bench.peers.nopokedb_051 import require_original

        require_original()
    from bench import writes

    if name == "threads":
        return writes.measure_threads(dataset, folder, scale)
    return writes.measure_writes(dataset, folder, scale)


def run(name: str, data: Path, out: Path, folder: Path, scale: Scale) -> None:
    """Measures `name` with its files under `folder`, emptied before and removed after, and writes `out`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        result = _measure(name, data, folder, scale)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result["run_seconds"] = round(time.perf_counter() - started, 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
