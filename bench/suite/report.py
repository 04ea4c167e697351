"""The results as Markdown, ready for docs/benchmarks.md, and as plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import QUIET_SHARE
from bench.scale import K
from bench.suite.goals import fastest
from bench.suite.parts import PARTS, SEARCH_PARTS
from bench.suite.scale import TARGETS

Results = dict[str, Any]
MIB = 2**20


def _busy(entry: dict[str, Any]) -> str:
    """A mark for times that were taken while the machine did other things."""
    return "" if entry["idle_share"] >= QUIET_SHARE else " (busy)"


def _at(result: Results, name: str, target: float) -> str:
    point = fastest(result, (name,), target)
    if point is None:
        return "-"
    times = f"{point['p50_us'] / 1e3:.2f} / {point['p95_us'] / 1e3:.2f} / {point['p99_us'] / 1e3:.2f} ms"
    return f"{point['qps']:,.0f} at {point['recall']:.3f}, {times}"


def _search_table(part: str, result: Results) -> list[str]:
    """One row a backend: the fastest timed setting that reaches each recall, and what it took to get there."""
    heads = " | ".join(f"recall {target}: QPS, p50 / p95 / p99" for target in TARGETS)
    lines = [
        f"### {part}: {result['count']:,} x {result['dim']}, k = {K}, one client thread",
        "",
        f"| backend | {heads} | written v/s | indexed v/s | memory | disk | open |",
        "|---|" + "---:|" * (len(TARGETS) + 5),
    ]
    count = result["count"]
    for name, found in result["backends"].items():
        cells = [_at(result, name, target) for target in TARGETS]
        built = found["build"]
        rates = [f"{count / built[key]:,.0f}{_busy(found)}" for key in ("acknowledged_seconds", "seconds")]
        cells += rates if found["is_database"] else ["-", rates[1]]
        cells += [f"{found['memory_bytes'] / MIB:,.0f} MiB", f"{built['disk_bytes'] / MIB:,.0f} MiB"]
        cells.append(f"{found['open_ms']:,.0f} ms")
        lines.append(f"| {found['label']} | " + " | ".join(cells) + " |")
    return [*lines, "", f"- Vectors: {result['recipe']}.", *_backend_notes(result), ""]


def _backend_notes(result: Results) -> list[str]:
    notes = []
    for found in result["backends"].values():
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        parameters = ", ".join(
            f"{name} {value}" for name, value in found["parameters"].items() if name != "compiled_for"
        )
        chosen = [
            f"{target} with {found['points'][str(target)]['setting']}"
            for target in TARGETS
            if str(target) in found["points"]
        ]
        cores = max(timed["cores"] for timed in found["timed"].values())
        notes.append(
            f"- {found['label']} ({versions}; {parameters}): {found['syncs']}; least effort for "
            f"{', '.join(chosen) or 'neither recall'}; up to {cores:.1f} cores a query."
        )
    return notes


def _ingest_table(part: str, result: Results) -> list[str]:
    ways = list(dict.fromkeys(way for found in result["backends"].values() for way in found["timed"]))
    lines = [
        f"### {part}: rows a second with metadata",
        "",
        "| database | " + " | ".join(ways) + " | when a write returns, it |",
        "|---|" + "---:|" * len(ways) + "---|",
    ]
    for found in result["backends"].values():
        rates = [f"{found['timed'][way]['per_s']:,.0f}" if way in found["timed"] else "-" for way in ways]
        lines.append(f"| {found['label']} | " + " | ".join(rates) + f" | {found['syncs']} |")
    return [*lines, ""]


def _threads_table(part: str, result: Results) -> list[str]:
    lines = [
        f"### {part}: {result['count']:,}, queries a second",
        "",
        "| backend | 1 | 2 | ratio |",
        "|---|---:|---:|---:|",
    ]
    for found in result["backends"].values():
        one, two = (found["timed"][threads]["qps"] for threads in ("1", "2"))
        lines.append(f"| {found['label']} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |")
    return [*lines, ""]


def _builds_table(part: str, result: Results) -> list[str]:
    lines = [f"### {part}: {result['count']:,}, until all is indexed", "", "| backend | seconds |", "|---|---:|"]
    lines += [f"| {found['label']} | {found['seconds']:.0f} |" for found in result["backends"].values()]
    return [*lines, ""]


_TABLES: dict[str, Callable[[str, Results], list[str]]] = {
    **dict.fromkeys(("search-gaussian", *SEARCH_PARTS), _search_table),
    "ingest": _ingest_table,
    "threads": _threads_table,
    "builds-700k": _builds_table,
}


def _notes(results: Results) -> list[str]:
    """How to read the tables, and which of them were measured while the machine was busy."""
    finished = {name: results[name]["finished"] for name in PARTS if name in results}
    disturbed = [name for name in finished if results[name]["idle_share"] < QUIET_SHARE]
    lines = [
        "- Settings of all backends are asked in turn, round by round; figures are medians over the rounds. A setting "
        "is chosen by its recall over 400 queries (as many as fit in some seconds); equal products are equally right.",
        "- Databases return metadata with each hit; libraries return row numbers. Memory is what no file backs, beyond "
        "what the process held before opening. Rates marked (busy) were taken while the machine did other things: they "
        "are not for the record.",
        "- Finished: " + ", ".join(f"{name} {when}" for name, when in finished.items()) + ".",
    ]
    if disturbed:
        lines.append(f"- **Timed while the machine was not idle, not for the record: {', '.join(disturbed)}.**")
    return [*lines, ""]


def tables(results: Results) -> list[str]:
    """How to read the tables, and those of the parts that there are."""
    lines = _notes(results)
    for name in PARTS:
        if name in results and name in _TABLES:
            lines += _TABLES[name](name, results[name])
    return lines


def draw(results: Results, folder: Path) -> list[Path]:
    """The plots of what there is; none without matplotlib."""
    try:
        from bench.suite import plot
    except ImportError:
        return []
    return plot.draw(results, folder)
