"""The goals of search, ingestion, memory and scaling, judged from the results of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bench.goals import Goal
from bench.peers import OURS
from bench.suite.parts import GRAPH, HNSW, SCAN

Results = dict[str, Any]
Point = dict[str, Any]

FAISS = tuple(name for name in HNSW if name.startswith("faiss"))
UNCHANGED = 0.005
"""Recall over 400 queries differs by this much from one set of them to another."""
EXTRA_BYTES = 100


def fastest(result: Results, names: Iterable[str], target: float) -> Point | None:
    """The fastest timed point of these backends whose recall reaches the target."""
    points = [
        {**backend["points"][name], **timed, "label": backend["label"]}
        for backend in (result["backends"][each] for each in names if each in result["backends"])
        for name, timed in backend["timed"].items()
        if backend["points"][name]["recall"] >= target
    ]
    return max(points, key=lambda point: float(point["qps"]), default=None)


def _databases(result: Results) -> list[str]:
    return [
        name for name, found in result["backends"].items() if found["is_database"] and name not in (OURS, SCAN, GRAPH)
    ]


def shown(point: Point) -> str:
    """A point in words."""
    return f"{point['label']} {point['qps']:,.0f} at {point['recall']:.3f}"


def _over(result: Results | None, what: str, target: float, rivals: Iterable[str], least: float) -> list[Goal]:
    """This project's fastest point at a recall against the fastest of the rivals at the same."""
    if result is None:
        return []
    theirs, ours = fastest(result, rivals, target), fastest(result, (OURS,), target)
    measure = f"{what}, recall {target}: QPS over {{}}"
    if theirs is None:
        return []
    measure = measure.format(theirs["label"])
    if ours is None:
        return [Goal(measure, f">= {least:g} x", "recall not reached", False)]
    ratio = ours["qps"] / theirs["qps"]
    return [Goal(measure, f">= {least:g} x", f"{ratio:.2f} x ({shown(ours)}; {shown(theirs)})", ratio >= least)]


def _gaussian(results: Results) -> list[Goal]:
    result = results.get("search-gaussian")
    what = "Gaussian"
    return [*_over(result, what, 0.99, ("hnswlib",), 5), *_over(result, what, 0.99, FAISS, 5)]


def _main_size(results: Results) -> list[Goal]:
    result = results.get("search-100k")
    if result is None:
        return []
    what, databases = f"{result['count']:,}", _databases(result)
    goals = []
    if ours := fastest(result, (OURS,), 0.99):
        goals.append(Goal(f"{what}, recall 0.99: QPS", ">= 3,000", shown(ours), ours["qps"] >= 3_000))
        peers = [name for name in result["backends"] if name not in (OURS, SCAN, GRAPH)]
        if theirs := fastest(result, peers, 0.95):
            text = f"{shown(ours)}; {shown(theirs)}"
            goals.append(
                Goal(f"{what}: QPS at 0.99 over every peer's at 0.95", "> 1 x", text, ours["qps"] > theirs["qps"])
            )
    goals += [
        *_over(result, what, 0.99, databases, 3),
        *_over(result, what, 0.99, ("hnswlib",), 3),
        *_over(result, what, 0.95, databases, 2),
        *_over(result, what, 0.95, ("hnswlib",), 1.4),
        *_tails(result),
    ]
    return goals


def _tails(result: Results) -> list[Goal]:
    """Ninety-ninth percentile over the median, at the points that the other goals use."""
    goals = []
    for target in (0.95, 0.99):
        if ours := fastest(result, (OURS,), target):
            ratio = ours["p99_us"] / ours["p50_us"]
            text = f"{ratio:.2f} ({ours['p99_us']:,.0f} us; {ours['p50_us']:,.0f} us)"
            goals.append(Goal(f"{result['count']:,}, recall {target}: p99 / p50", "<= 2", text, ratio <= 2))
    return goals


def _larger(results: Results) -> list[Goal]:
    middle, large = results.get("search-300k"), results.get("search-700k")
    goals = []
    if middle:
        what = f"{middle['count']:,}"
        goals += _over(middle, what, 0.95, ("hnswlib",), 2) + _over(middle, what, 0.99, ("hnswlib",), 2.5)
    if large:
        what = f"{large['count']:,}"
        goals += _over(large, what, 0.95, HNSW, 2.5) + _over(large, what, 0.99, HNSW, 3)
    return goals


def _overhead(results: Results) -> list[Goal]:
    found = results.get("overhead")
    if not found:
        return []
    over = found["query_us"] - found["bare_us"]
    text = (
        f"{over:.0f} us ({found['query_us']:.0f}; {found['bare_us']:.0f}; {found['without_metadata_us']:.0f} without)"
    )
    return [Goal("a query over its bare index calls, metadata returned", "<= 30 us", text, over <= 30)]


def _threads(results: Results) -> list[Goal]:
    found = results.get("threads", {}).get("backends", {})
    goals = []
    for name in (SCAN, GRAPH, OURS):
        if name in found:
            one, two = (found[name]["timed"][threads]["qps"] for threads in ("1", "2"))
            text = f"{two / one:.2f} x ({two:,.0f}; {one:,.0f})"
            judged = name != OURS
            goal = ">= 1.7 x" if judged else "reported"
            reached = two / one >= 1.7 if judged else None
            goals.append(Goal(f"{found[name]['label']}: two threads over one", goal, text, reached))
    return goals


def _while_adding(results: Results) -> list[Goal]:
    found = results.get("while-adding")
    if not found:
        return []
    share, loss = found["busy_qps"] / found["idle_qps"], found["idle_recall"] - found["busy_recall"]
    text = f"{share:.2f} x at {found['busy_recall']:.3f} (idle {found['idle_qps']:,.0f} at {found['idle_recall']:.3f}; "
    text += f"{found['added_per_s']:,.0f} added a second; p99 {found['busy_p99_us']:,.0f} us)"
    measure = "queries while 1,000 vectors a second are added"
    return [Goal(measure, ">= 0.7 x idle, recall unchanged", text, share >= 0.7 and loss <= UNCHANGED)]


def _sealing(results: Results) -> list[Goal]:
    found = results.get("sealing")
    if not found:
        return []
    count, goals = f"{found['count']:,}", []
    for name, key, what, limit in (
        (OURS, "searchable_s", "searchable at 0.99", 1),
        (SCAN, "sealed_s", "sealed as scan", 2),
        (GRAPH, "sealed_s", "sealed as graph", 20),
    ):
        if name not in found["backends"]:
            continue
        runs = found["backends"][name]
        best = min(runs, key=lambda run: float(run[key]))
        text = f"{best[key]:.2f} s after the first write, written after {best['written_s']:.2f} s; recall then "
        text += f"{best['recall']:.3f}; {', '.join(best['segments'])}; all: "
        text += ", ".join(f"{run[key]:.2f}" for run in runs)
        reached = best[key] <= limit and best["recall"] >= 0.99
        if name == GRAPH:
            reached = reached and any(not part.startswith("scan") for part in best["segments"])
        goals.append(Goal(f"{count}: {what}", f"<= {limit} s", text, reached))
    return goals


def _builds(results: Results) -> list[Goal]:
    found = results.get("builds-700k", {}).get("backends", {})
    if OURS not in found:
        return []
    ours = found[OURS]["seconds"]
    goals = []
    for name in FAISS:
        if name in found:
            ratio = ours / found[name]["seconds"]
            text = f"{ratio:.2f} x ({ours:.0f} s; {found[name]['label']} {found[name]['seconds']:.0f} s)"
            measure = f"{results['builds-700k']['count']:,}: fully sealed over {found[name]['label']}'s build"
            goals.append(Goal(measure, "<= 0.8 x", text, ratio <= 0.8))
    return goals


def _ingest(results: Results) -> list[Goal]:
    result = results.get("ingest")
    if not result or OURS not in result["backends"]:
        return []
    found, goals = result["backends"], []
    ours = found[OURS]["timed"]
    for name, least in (("sqlite-vec", 2), ("zvec", 4)):
        if name in found:
            theirs = found[name]["timed"]["batches"]["per_s"]
            ratio = ours["batches"]["per_s"] / theirs
            text = f"{ratio:.1f} x ({ours['batches']['per_s']:,.0f}/s; {theirs:,.0f}/s)"
            measure = f"durable batches of 1,000 with metadata over {found[name]['label']}"
            goals.append(Goal(measure, f">= {least} x", text, ratio >= least))
    one, many = "singles, 1 thread", f"singles, {result['thread_count']} threads"
    ratio = ours[many]["per_s"] / ours[one]["per_s"]
    text = f"{ratio:.1f} x ({ours[many]['per_s']:,.0f}/s; {ours[one]['per_s']:,.0f}/s)"
    return [*goals, Goal(f"durable single adds, {result['thread_count']} threads over 1", ">= 3 x", text, ratio >= 3)]


def _limit(results: Results) -> list[Goal]:
    found = results.get("limit")
    if not found or not found["scan"]["row_count"]:
        return []
    scan, bandwidth = found["scan"], found["bandwidth_gb_per_s"]
    # The codes of 100,000 vectors are of the smaller size.
    share = scan["gb_per_s"] / bandwidth["16 MB"]
    text = f"{share:.2f} of {bandwidth['16 MB']:.1f} GB/s ({scan['bytes'] / 1e6:.1f} MB in {scan['us']:.0f} us, "
    text += f"{scan['gb_per_s']:.1f} GB/s; 1 GB is read at {bandwidth['1 GB']:.1f} GB/s)"
    return [Goal(f"scan of {scan['row_count']:,} vectors, of read bandwidth", ">= 0.5", text, share >= 0.5)]


def _space(results: Results) -> list[Goal]:
    result, goals = results.get("search-100k"), []
    if not result:
        return []
    count, dim = result["count"], result["dim"]
    scan, raw = results.get("limit", {}).get("scan", {}), 4 * dim
    if scan.get("row_count") and SCAN in result["backends"]:
        held = result["backends"][SCAN]["memory_bytes"] / count
        limit = scan["bytes"] / scan["row_count"] + EXTRA_BYTES
        text = f"{held:.0f} bytes a vector"
        goals.append(
            Goal("memory, scan, beyond the mapped file", f"<= {limit:.0f} bytes a vector", text, held <= limit)
        )
    if GRAPH in result["backends"]:
        held = result["backends"][GRAPH]["memory_bytes"] / count / raw
        goals.append(Goal("memory, graph, over raw float32", "<= 2.6 x", f"{held:.2f} x", held <= 2.6))
    stored = results.get("overhead", {}).get("stored_bytes")
    if stored:
        share = stored / count / raw
        goals.append(Goal("disk without derived files, over raw float32", "<= 1.3 x", f"{share:.2f} x", share <= 1.3))
    return goals


_PARTS: tuple[Callable[[Results], list[Goal]], ...] = (
    _gaussian,
    _main_size,
    _larger,
    _overhead,
    _threads,
    _while_adding,
    _sealing,
    _builds,
    _ingest,
    _limit,
    _space,
)


def compare(results: Results) -> list[Goal]:
    """Every goal whose measurements are there."""
    return [goal for part in _PARTS for goal in part(results)]
