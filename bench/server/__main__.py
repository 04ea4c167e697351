"""`python -m bench.server`: build the collection once, then measure query and echo in turn, and judge the ratio."""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets import Floats, embedding_like, metadata_for
from bench.machine import processor_name
from nopokedb import NoPokeDB

FOLDER = Path(".bench/server")
LEAST = 0.6
JUDGED = 16
"""The goal is for so many requests at once, and more."""
K = 10


@dataclass(frozen=True)
class Case:
    """One kind of request."""

    name: str
    packed: bool
    """The vector in base64, else as a JSON array."""
    where: dict[str, Any] | None = None


CASES = (
    Case("vector as a JSON array", packed=False),
    Case("vector in base64", packed=True),
    Case("base64, a tenth passes", packed=True, where={"group": {"$lt": 10}}),
)


def build(count: int, dim: int) -> Floats:
    """The collection, made once; vectors to ask."""
    data = embedding_like(count, dim, 2_000)
    folder = FOLDER / "collections" / f"c{count}"
    if not (folder / "manifest.json").exists():
        with NoPokeDB(dim=dim, path=folder, indexed_fields=["group"]) as db:
            for at in range(0, count, 10_000):
                db.add_many(data.vectors[at : at + 10_000], metadata_for(min(10_000, count - at), at))
    return data.queries


def wait_for_indexes(count: int) -> None:
    """Until every row but a short tail is in a segment, and nothing is being built."""
    with NoPokeDB(path=FOLDER / "collections", collection=f"c{count}") as db:
        while (stats := db.stats()).sealing or stats.tail_count > 8_192:
            db.count({"group": 1})


def bodies(queries: Floats, case: Case) -> Path:
    """A file with one request body per line."""
    path = FOLDER / "bodies.jsonl"
    with path.open("w") as out:
        for query in queries:
            vector: Any = {"base64": base64.b64encode(query.tobytes()).decode()}
            if not case.packed:
                vector = [float(str(np.float32(value))) for value in query]
            body = {"vector": vector, "k": K} | ({} if case.where is None else {"where": case.where})
            out.write(json.dumps(body, separators=(",", ":")) + "\n")
    return path


@contextmanager
def process(*command: str, last: str | None = None) -> Iterator[str]:
    """A server process; the address that it prints, or all that it prints up to a line."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        said = started.stdout.readline()
        while last is not None and said.splitlines()[-1] != last:
            said += started.stdout.readline()
        try:
            yield said.split()[-1].rstrip("/") if last is None else said
        finally:
            started.terminate()


def load(address: str, file: Path, connections: int, seconds: int) -> dict[str, Any]:
    """What wrk measures."""
    script = Path(__file__).with_name("wrk.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), address, "--", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found | {"qps": found["requests"] / found["seconds"]}


def measure(case: Case, count: int, queries: Floats, connections: int, seconds: int, rounds: int) -> dict[str, Any]:
    """Query and echo in turn, so that both meet the same moods of the machine; medians."""
    file = bodies(queries, case)
    answers: list[dict[str, Any]] = []
    echoes: list[dict[str, Any]] = []
    serve = ("-m", "nopokedb", "serve", str(FOLDER / "collections"), "--port", "0", "--grpc-port", "-1")
    with process(*serve) as address, process("-m", "bench.server.echo") as echo:
        target = f"{address}/v1/collections/c{count}/query"
        load(target, file, connections, min(2, seconds))
        for _ in range(rounds):
            answers.append(load(target, file, connections, seconds))
            echoes.append(load(f"{echo}/echo", file, connections, seconds))
    qps, echo_qps = (statistics.median(item["qps"] for item in part) for part in (answers, echoes))
    return {
        "qps": qps,
        "echo_qps": echo_qps,
        "ratio": qps / echo_qps,
        "p50_ms": statistics.median(item["p50_us"] for item in answers) / 1e3,
        "p99_ms": statistics.median(item["p99_us"] for item in answers) / 1e3,
        "errors": sum(item["errors"] for item in answers),
    }


def report(columns: str, rows: Iterable[tuple[str, bool, dict[str, Any]]]) -> bool:
    """Print a Markdown table, row by row: what was asked, whether the goal is for it, what was measured. True if it
    was reached."""
    print(f"Server and load on {os.cpu_count()} cores of {processor_name()}.\n")
    print(f"| {columns} | queries/s | echo/s | ratio | p50 | p99 | errors |")
    print("|---|---|---|---|---|---|---|---|")
    reached = True
    for asked, judged, row in rows:
        reached = reached and row["errors"] == 0 and (not judged or row["ratio"] >= LEAST)
        print(
            f"| {asked} | {row['qps']:,.0f} | {row['echo_qps']:,.0f} | {row['ratio']:.2f} | "
            f"{row['p50_ms']:.2f} ms | {row['p99_ms']:.2f} ms | {row['errors']} |",
            flush=True,
        )
    print(f"\ngoal: >= {LEAST} x the echo without a filter from {JUDGED} at once on, no errors: {reached}")
    return reached


def main() -> int:
    """Print a Markdown table; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few records, short rounds")
    parser.add_argument("--fresh", action="store_true", help="build the collection anew")
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("expected wrk on the path (Debian: apt-get install wrk), found none")
    count, seconds, rounds = (5_000, 1, 1) if chosen.quick else (100_000, 8, 3)
    if chosen.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    queries = build(count, 256)
    wait_for_indexes(count)
    rows = (
        (
            f"{case.name} | {connections}",
            case.where is None and connections >= JUDGED,
            measure(case, count, queries, connections, seconds, rounds),
        )
        for case in CASES
        for connections in (1, 16, 64, 200)
    )
    print(f"{count:,} records of 256 dimensions with metadata, k={K}; medians of {rounds} rounds of {seconds} s.\n")
    reached = report("request | connections", rows)
    return 0 if reached or chosen.quick else 1


if __name__ == "__main__":
    sys.exit(main())
