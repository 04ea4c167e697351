"""The ratios this project aims for, computed from the results of one benchmark run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.measure import TARGET_RECALL

Results = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """One line: what is measured, the goal, the outcome, and whether it was reached (None: only reported)."""

    measure: str
    goal: str
    measured: str
    reached: bool | None


def _at_target(result: dict[str, Any]) -> dict[str, Any] | None:
    """The point of the lowest ef that reaches the target recall, or the default where there is no ef."""
    wanted = result["tuned_ef"]
    for point in result["points"]:
        if point["ef"] == wanted and point["recall"] >= TARGET_RECALL:
            return dict(point)
    return None


def _fastest_at_target(results: Results, names: tuple[str, ...]) -> dict[str, Any] | None:
    points = [point for name in names if name in results if (point := _at_target(results[name]))]
    return max(points, key=lambda point: float(point["qps"]), default=None)


def _shown(point: dict[str, Any]) -> str:
    ef = "default" if point["ef"] is None else f"ef {point['ef']}"
    return f"{point['qps']:,.0f} at {point['recall']:.3f}, {ef}"


def _search_goals(results: Results) -> list[Goal]:
    if "nopokedb" not in results:
        return []
    tuned = _at_target(results["nopokedb"])
    default = next(point for point in results["nopokedb"]["points"] if point["ef"] is None)
    measured: list[Goal] = []
    rivals = {"hnswlib": ("hnswlib",), "FAISS HNSW": ("faiss-hnsw", "faiss-hnsw-efc200")}
    for rival, names in rivals.items():
        theirs = _fastest_at_target(results, names)
        if theirs is None:
            continue
        for ours, setting in ((tuned, "lowest ef"), (default, "NoPokeDB's default")):
            measure = f"QPS at recall >= {TARGET_RECALL} over {rival}, {setting}"
            if ours is None or ours["recall"] < TARGET_RECALL:
                shown = "recall not reached" if ours is None else f"recall {ours['recall']:.3f}"
                measured.append(Goal(measure, ">= 4 x", shown, False))
                continue
            ratio = ours["qps"] / theirs["qps"]
            text = f"{ratio:.1f} x ({_shown(ours)}; {_shown(theirs)})"
            measured.append(Goal(measure, ">= 4 x", text, ratio >= 4))
    return measured


def _write_goals(results: Results) -> list[Goal]:
    ours, original = results.get("writes"), results.get("writes-0.5.1")
    if not ours or not original:
        return []
    # Batches of 1,000 for this project; for the original those or one call for everything, the faster.
    theirs = max(original["batched_per_s"], original["at_once_per_s"])
    build = ours["batched_per_s"] / theirs
    single = ours["single_per_s"] / original["single_per_s"]
    return [
        Goal(
            "durable build over nopokedb 0.5.1, batches of 1,000",
            ">= 5 x",
            f"{build:.1f} x ({ours['batched_per_s']:,.0f} v/s; {theirs:,.0f} v/s in its faster way)",
            build >= 5,
        ),
        Goal(
            "durable single adds over nopokedb 0.5.1",
            ">= 4 x",
            f"{single:.1f} x ({ours['single_per_s']:,.0f}/s; {original['single_per_s']:,.0f}/s)",
            single >= 4,
        ),
    ]


def _thread_goals(results: Results) -> list[Goal]:
    threads = results.get("threads")
    if not threads:
        return []
    ratio = threads["many_threads_per_s"] / threads["one_thread_per_s"]
    text = f"{ratio:.1f} x ({threads['many_threads_per_s']:,.0f}/s; {threads['one_thread_per_s']:,.0f}/s)"
    return [Goal(f"single adds, {threads['thread_count']} threads over 1", "reported", text, None)]


def _bulk_goals(results: Results) -> list[Goal]:
    bulk = results.get("bulk")
    if not bulk:
        return []
    size = f"{bulk['count']:,} x {bulk['dim']}"
    load, opening, overhead = bulk["load"], bulk["opening"], bulk["overhead"]
    memory_limit = bulk["dim"] / 2 + 100
    per_vector = opening["queried_bytes"] / bulk["count"]
    measured = [
        Goal(
            f"{size}: durable load, batches of 1,000 with metadata",
            ">= 100,000 v/s",
            f"{load['per_s']:,.0f} v/s",
            load["per_s"] >= 100_000,
        ),
        Goal(
            f"{size}: recall of queries right after the load",
            f">= {TARGET_RECALL}",
            f"{load['recall_at_once']:.4f} ({load['median_query_at_once_us']:,.0f} us a query)",
            load["recall_at_once"] >= TARGET_RECALL,
        ),
        Goal(f"{size}: queries once settled", "reported", _shown(bulk["rested"]), None),
        Goal(
            f"{size}: open after a clean close",
            "<= 100 ms",
            f"{opening['open_ms']:.1f} ms ({opening['cold_ms']:.0f} ms from the start of a process)",
            opening["open_ms"] <= 100,
        ),
        Goal(
            f"{size}: first query after opening over a warm one",
            "<= 5 x",
            f"{opening['first_over_warm']:.1f} x ({opening['first_query_us']:,.0f} us; "
            f"{opening['warm_query_us']:,.0f} us; {opening['further_query_us']:,.0f} us for the next new ones)",
            opening["first_over_warm"] <= 5,
        ),
        Goal(
            f"{size}: memory beyond the mapped vectors",
            f"<= {memory_limit:.0f} bytes a vector",
            f"{per_vector:.0f} ({opening['open_bytes'] / bulk['count']:.0f} before the first query)",
            0 < per_vector <= memory_limit,
        ),
    ]
    for key, what in (
        ("query_us", "without metadata"),
        ("query_with_metadata_us", "with metadata"),
        ("first_pass_us", "with metadata read for the first time"),
    ):
        over = overhead[key] - overhead["bare_index_us"]
        text = f"{over:.0f} us ({overhead[key]:.0f} us; {overhead['bare_index_us']:.0f} us)"
        reported = key == "first_pass_us"
        measured.append(
            Goal(
                f"{size}: query over its bare index, {what}",
                "reported" if reported else "<= 60 us",
                text,
                None if reported else over <= 60,
            )
        )
    return measured


def _upsert_goals(results: Results) -> list[Goal]:
    upserts = results.get("upserts")
    if not upserts:
        return []
    right = upserts["wrong_count"] == 0 and upserts["lowest_recall"] >= TARGET_RECALL
    text = (
        f"{upserts['per_s']:,.0f}/s, {upserts['wrong_count']} wrong answers, lowest recall "
        f"{upserts['lowest_recall']:.4f}, slowest batch {upserts['slowest_batch_ms']:.0f} ms, "
        f"{upserts['disk_bytes'] / 2**20:.0f} MiB on disk"
    )
    measure = f"{upserts['upsert_count']:,} metadata-only upserts stay right"
    return [Goal(measure, f"0 wrong, recall >= {TARGET_RECALL}", text, right)]


_PARTS: tuple[Callable[[Results], list[Goal]], ...] = (
    _search_goals,
    _write_goals,
    _bulk_goals,
    _upsert_goals,
    _thread_goals,
)


def compare(results: Results) -> list[Goal]:
    """Every goal whose measurements are there."""
    return [goal for part in _PARTS for goal in part(results)]
