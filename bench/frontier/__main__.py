"""Builds each index in a process of its own and measures queries a second against recall, from one thread.

    python -m bench.frontier                      20,000 and 100,000 vectors, Gaussian and like embeddings
    python -m bench.frontier --counts 300000 --data embedding
    python -m bench.frontier --vectors FILE.npy   vectors of your own; a thousandth of them become the queries
    python -m bench.frontier --quick              a smoke test

Results that are there are not measured again (`--fresh` does). They go to `.bench/frontier/results.json`, with a
table in `results.md` beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench import datasets
from bench.datasets import Dataset
from bench.frontier.indexes import INDEXES
from bench.machine import describe
from bench.measure import recall_of, say, time_round
from bench.scale import K

FOLDER = Path(".bench/frontier")
DIM = 256
TARGETS = (0.9, 0.95, 0.99)
BUILD_THREADS = 2
ROUNDS = 3
QUERIES = 400


def dataset_of(kind: str, count: int, vectors: Path | None) -> Dataset:
    """Made once, with its exact answers, and kept."""
    path = FOLDER / "data" / f"{kind}-{count}.npz"
    if not path.exists():
        say(f"making {kind} {count:,}")
        if vectors is not None:
            rows = np.load(vectors, mmap_mode="r", allow_pickle=False)[: count + QUERIES].astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            rows = rows[np.random.default_rng(3).permutation(len(rows))]
            queries, rows = rows[:QUERIES], rows[QUERIES:]
            made = Dataset(rows, queries, datasets.exact_neighbours(rows, queries, K))
        elif kind == "gaussian":
            made = datasets.gaussian(count, 128, QUERIES)
        else:
            made = datasets.embedding_like(count, DIM, QUERIES)
        datasets.save(made, path)
    return datasets.load(path)


def measure(name: str, dataset: Dataset, seconds: float) -> dict[str, Any]:
    """Build time, memory and points of one index, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faiss.omp_set_num_threads(BUILD_THREADS)
    started = time.perf_counter()
    index = INDEXES[name](dataset.vectors, K, BUILD_THREADS)
    built = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    say(f"  {name}: built in {built:.1f} s")
    faiss.omp_set_num_threads(1)
    queries = [np.ascontiguousarray(query[None, :]) for query in dataset.queries]
    points = []
    for setting in index.settings:
        ask = index.ask(setting)
        recall = recall_of([ask(query).tolist() for query in queries], dataset)
        rounds = [time_round(ask, queries, seconds) for _ in range(ROUNDS)]
        best = max(rounds, key=lambda each: each.qps)
        points.append({"setting": setting, "recall": recall, "qps": best.qps, "p95_us": best.p95_us})
    return {"build_s": built, "build_memory_bytes": peak * 1024, "size_bytes": index.size_bytes, "points": points}


def report(results: dict[str, Any]) -> str:
    """Queries a second at each recall: the fastest setting that reaches it."""
    lines = []
    for data, by_index in results["data"].items():
        lines += [f"## {data}", "", "| index | build | size | " + " | ".join(map(str, TARGETS)) + " |"]
        lines.append("|---|---:|---:|" + "---:|" * len(TARGETS))
        for name, found in by_index.items():
            rates = []
            for target in TARGETS:
                reached = [point["qps"] for point in found["points"] if point["recall"] >= target]
                rates.append(f"{max(reached):,.0f}" if reached else "-")
            size = f"{found['size_bytes'] / 2**20:,.0f} MiB"
            lines.append(f"| {name} | {found['build_s']:.1f} s | {size} | " + " | ".join(rates) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Measure what is asked for, index after index."""
    parser = argparse.ArgumentParser(prog="python -m bench.frontier", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--data", choices=["gaussian", "embedding"], nargs="+", default=["gaussian", "embedding"])
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--indexes", nargs="+", choices=list(INDEXES), default=list(INDEXES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        name, data, out, seconds = asked.child
        Path(out).write_text(json.dumps(measure(name, datasets.load(Path(data)), float(seconds))))
        return 0
    counts, seconds = ([2_000], 0.0) if asked.quick else (asked.counts, 0.5)
    kinds = ["own"] if asked.vectors else asked.data
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / ("quick.json" if asked.quick else "results.json")
    results: dict[str, Any] = {"machine": describe(FOLDER), "data": {}}
    if path.exists() and not asked.fresh:
        results["data"] = json.loads(path.read_text())["data"]
    for kind in kinds:
        for count in counts:
            dataset_of(kind, count, asked.vectors)
            done = results["data"].setdefault(f"{kind} {count:,}", {})
            for name in asked.indexes:
                if name in done:
                    continue
                say(f"{kind} {count:,}: {name}")
                out = FOLDER / "child.json"
                data = FOLDER / "data" / f"{kind}-{count}.npz"
                child = [sys.executable, "-m", "bench.frontier", "--child", name, str(data), str(out), str(seconds)]
                if subprocess.run(child, check=False).returncode:
                    say(f"  {name} failed")
                    continue
                done[name] = json.loads(out.read_text())
                path.write_text(json.dumps(results, indent=2))
    text = report(results)
    path.with_suffix(".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
