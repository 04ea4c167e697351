"""The results as Markdown: the original project's columns, then the goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench import peers
from bench.goals import Goal
from bench.measure import TARGET_RECALL
from bench.scale import BATCH_SIZE, QUICK, K, Scale

IDLE_CORES = 1.15
"""Up to here the processor time of a query loop counts as that of one thread; clocks are not exact."""


@dataclass(frozen=True)
class Row:
    """One line of the table; times in microseconds."""

    backend: str
    build_per_s: float
    qps: float
    p50_us: float
    p95_us: float
    recall: float
    cores: float


def _setting(result: dict[str, Any], point: dict[str, Any]) -> str:
    default_ef = result["parameters"].get("default_ef")
    if point["ef"] is None:
        return "default" if default_ef is None else f"default, ef {default_ef}"
    return f"ef {point['ef']}"


def backend_rows(results: dict[str, Any]) -> list[Row]:
    """Per backend: its default, the settings it lists, and the lowest ef that reaches the target recall."""
    rows: list[Row] = []
    for name in peers.SEED_PEERS:
        if name not in results:
            continue
        result = results[name]
        shown = {*result["table_efs"], result["tuned_ef"]}
        build_per_s = result["count"] / result["build"]["seconds"]
        for point in result["points"]:
            if point["ef"] in shown:
                setting = _setting(result, point) if len(result["points"]) > 1 else ""
                if point["ef"] is not None and point["ef"] == result["tuned_ef"]:
                    setting += f", lowest for {TARGET_RECALL}"
                label = f"{result['label']} ({setting})" if setting else result["label"]
                timed = (point["qps"], point["p50_us"], point["p95_us"], point["recall"], point["cores"])
                rows.append(Row(label, build_per_s, *timed))
    return rows


def _rate(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.1f}k" if value >= 1e3 else f"{value:.0f}"


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1e3:.3f} ms"


def _notes(results: dict[str, Any], scale: Scale) -> list[str]:
    notes = [
        f"{scale.seed_count:,} x {scale.seed_dim} Gaussian vectors of length 1, {scale.query_count} queries, "
        f"k = {K}, cosine. One query at a time from one thread; QPS, p50 and p95 are medians over "
        f"{scale.round_count} rounds of at least {scale.round_s} s after a warm-up.",
        "Builds use as many threads as each backend does by default; queries use one.",
        f"The databases sync every batch of {BATCH_SIZE:,} before they go on, and store metadata, which "
        "comes back with every hit; the others hold an index in memory and return row numbers.",
    ]
    ours = results.get("nopokedb")
    if ours:
        acknowledged = ours["count"] / ours["build"]["acknowledged_seconds"]
        notes.append(
            "NoPokeDB's build includes the index that the queries then use; its vectors were durable and "
            f"searchable after {ours['build']['acknowledged_seconds']:.2f} s ({_rate(acknowledged)} v/s)."
        )
    original = results.get("nopokedb-0.5.1")
    if original:
        notes.append(
            "NoPokeDB 0.5.1 keeps its index in memory until `save`, which took "
            f"{original['build']['save_seconds']:.2f} s more and is not counted."
        )
    for name in peers.SEED_PEERS:
        busiest = max((point["cores"] for point in results.get(name, {}).get("points", [])), default=0.0)
        if busiest > IDLE_CORES:
            notes.append(f"{results[name]['label']} kept up to {busiest:.2f} cores busy while it was queried.")
    return notes


def goal_table(goals: list[Goal]) -> list[str]:
    """One row a goal."""
    answers = {True: "yes", False: "no", None: "-"}
    rows = [f"| {goal.measure} | {goal.goal} | {goal.measured} | {answers[goal.reached]} |" for goal in goals]
    return ["| measure | goal | measured | reached |", "|---|---|---|---|", *rows]


def machine_line(machine: dict[str, Any]) -> str:
    """What the figures were measured on, in one sentence."""
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{machine['system']}; Python {machine['python']}; {versions}; {machine['filesystem']}, "
        f"{machine['syncs_per_second']:,} syncs of 1 kB a second; load {machine['load_average']:.1f} at the "
        f"start; {machine['date'][:10]}."
    )


def markdown(
    rows: list[Row],
    goals: list[Goal],
    results: dict[str, Any],
    machine: dict[str, Any],
    scale: Scale,
    missing: dict[str, str],
    reused: dict[str, str],
) -> str:
    """Both tables with what a reader must know of how they came about."""
    lines = [machine_line(machine), ""]
    if scale == QUICK:
        lines += ["**A smoke test: too small and too short to measure anything.**", ""]
    if rows:
        lines += [f"| Backend | Build v/s | QPS | p50 | p95 | recall@{K} |", "|---|---:|---:|---:|---:|---:|"]
        lines += [
            f"| {row.backend} | {_rate(row.build_per_s)} | {_rate(row.qps)} | {_milliseconds(row.p50_us)} "
            f"| {_milliseconds(row.p95_us)} | {row.recall:.3f} |"
            for row in rows
        ]
        lines += ["", *(f"- {note}" for note in _notes(results, scale)), ""]
    lines += goal_table(goals)
    if "bulk" in results:
        lines += ["", f"- The larger collection's vectors: {results['bulk']['recipe']}."]
    if reused:
        earlier = ", ".join(f"{name} ({finished})" for name, finished in reused.items())
        lines += ["", f"Reused from earlier runs, so compare with care: {earlier}."]
    if missing:
        lines += ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in missing.items())]
    return "\n".join(lines) + "\n"
