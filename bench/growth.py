"""One collection at several sizes: until it is searchable, sealed and has its graph; opening; one query and many.

    python -m bench.growth                               20,000, 100,000 and 300,000 vectors of 256 dimensions
    python -m bench.growth --counts 1000000
    python -m bench.growth --quick                       a smoke test

Results go to `.bench/growth/results.json`, with a table in `results.md` beside it. Every opening is in a process of its
own, with warm files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench import datasets
from bench.datasets import Dataset
from bench.machine import describe
from bench.measure import recall_of, say, time_round
from bench.opening import measure_opening
from bench.peers.nopokedb_ours import settle
from bench.scale import BATCH_SIZE, K
from nopokedb import NoPokeDB

FOLDER = Path(".bench/growth")
DIM, QUERIES = 256, 400
TARGETS = (0.9, 0.95, 0.99)
OPENINGS = 5


def _rates(db: NoPokeDB, dataset: Dataset, seconds: float) -> dict[str, Any]:
    """Queries a second, one by one and many at once, at each recall; and the recall that was reached."""
    found: dict[str, Any] = {}
    for target in TARGETS:

        def ask(query: Any, target: float = target) -> Any:
            return db.query(query, k=K, target_recall=target)

        answers = [[hit["id"] for hit in ask(query)] for query in dataset.queries]
        one = time_round(ask, dataset.queries, seconds)
        started = time.perf_counter()
        db.query_many(dataset.queries, k=K, target_recall=target)
        many = len(dataset.queries) / (time.perf_counter() - started)
        strategy = db.explain(dataset.queries[0], k=K, target_recall=target).searches[0].strategy
        found[str(target)] = {
            "recall": recall_of(answers, dataset),
            "qps": one.qps,
            "p95_us": one.p95_us,
            "qps_many": many,
            "strategy": strategy,
        }
        say(f"  {target}: {found[str(target)]}")
    return found


def measure(count: int, seconds: float) -> dict[str, Any]:
    """The figures of one size."""
    data = FOLDER / f"embedding-{count}.npz"
    if not data.exists():
        say(f"making {count:,} vectors")
        datasets.save(datasets.embedding_like(count, DIM, QUERIES), data)
    dataset = datasets.load(data)
    folder = FOLDER / "collection"
    shutil.rmtree(folder, ignore_errors=True)
    db = NoPokeDB(DIM, path=folder)
    started = time.perf_counter()
    for at in range(0, count, BATCH_SIZE):
        db.add_many(dataset.vectors[at : at + BATCH_SIZE])
    result: dict[str, Any] = {"load_s": time.perf_counter() - started}
    settle(db)
    result["sealed_s"] = time.perf_counter() - started
    say(f"  {count:,}: loaded in {result['load_s']:.1f} s, sealed after {result['sealed_s']:.1f} s")
    result["sealed"] = _rates(db, dataset, seconds)
    started = time.perf_counter()
    db.optimize()
    result["optimize_s"] = time.perf_counter() - started
    say(f"  {count:,}: optimized in {result['optimize_s']:.1f} s: {db.stats().segments}")
    result["optimized"] = _rates(db, dataset, seconds)
    result["index_bytes"] = db.stats().index_bytes
    started = time.perf_counter()
    exact = db.query_many(dataset.queries, k=K, target_recall=1.0)
    result["exact_many_qps"] = len(exact) / (time.perf_counter() - started)
    started = time.perf_counter()
    some = dataset.queries[:20]
    for query in some:
        db.query(query, k=K, target_recall=1.0)
    result["exact_one_qps"] = len(some) / (time.perf_counter() - started)
    db.close()
    result["opening"] = measure_opening(folder, data, OPENINGS)
    say(f"  {count:,}: opens in {result['opening']['open_ms']:.0f} ms")
    shutil.rmtree(folder)
    return result


def report(results: dict[str, Any]) -> str:
    """A line per size."""
    heads = ["vectors", "load", "sealed", "optimize", "open", "exact, one / many"]
    heads += [f"{target} one / many" for target in TARGETS]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for count, found in results["sizes"].items():
        cells = [f"{int(count):,}", *(f"{found[name]:.1f} s" for name in ("load_s", "sealed_s", "optimize_s"))]
        cells.append(f"{found['opening']['open_ms']:.0f} ms")
        cells.append(f"{found['exact_one_qps']:,.0f} / {found['exact_many_qps']:,.0f}")
        for target in TARGETS:
            point = found["optimized"][str(target)]
            rates = f"{point['qps']:,.0f} / {point['qps_many']:,.0f}"
            cells.append(f"{rates} at {point['recall']:.3f} ({point['strategy']})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure each size that is asked for; sizes that are there already are kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 100_000, 300_000])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / ("quick.json" if asked.quick else "results.json")
    results: dict[str, Any] = {"machine": describe(FOLDER), "sizes": {}}
    if path.exists() and not asked.fresh:
        results["sizes"] = json.loads(path.read_text())["sizes"]
    for count in [5_000] if asked.quick else asked.counts:
        if str(count) not in results["sizes"]:
            results["sizes"][str(count)] = measure(count, 0.0 if asked.quick else 1.0)
            path.write_text(json.dumps(results, indent=2, default=float))
    text = report(results)
    path.with_suffix(".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
