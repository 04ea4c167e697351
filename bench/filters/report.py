"""The results as Markdown, ready for docs/benchmarks.md, and as plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.filters.scale import TARGET_RECALL
from bench.scale import K

Results = dict[str, Any]


def _rate(value: float) -> str:
    return f"{value / 1e3:.1f}k" if value >= 1e3 else f"{value:.0f}"


def _filter_table(result: Results) -> list[str]:
    """One row a filter; per database queries a second, the recall behind them, and the percentiles."""
    backends = result["backends"]
    lines = [
        f"### {result['count']:,} x 256 real embeddings, k = {K}, metadata returned, one client thread",
        "",
        "| filter | " + " | ".join(found["label"] for found in backends.values()) + " |",
        "|---|" + "---:|" * len(backends),
    ]
    for case in result["cases"]:
        cells = []
        for found in backends.values():
            tuned, timed = found["tuned"][case["name"]], found["timed"][case["name"]]
            mark = "" if tuned["reached"] else " (!)"
            times = f"{timed['p50_us'] / 1e3:.2f} / {timed['p95_us'] / 1e3:.2f} ms"
            cells.append(f"{_rate(timed['qps'])} at {tuned['recall']:.3f}{mark}, {times}")
        lines.append(f"| {case['name']} | " + " | ".join(cells) + " |")
    lines += ["", *_filter_notes(result), ""]
    return lines


def _filter_notes(result: Results) -> list[str]:
    first = next(iter(result["backends"].values()))
    notes = [
        "- Cells: queries a second at recall@10 within the filter, then p50 / p95; medians over rounds that go through "
        f"all filters and databases in turn. (!): {TARGET_RECALL} was not reached by any setting tried.",
        f"- Records: {first['recipe']}. Queries come from texts of which nothing is stored.",
        "- The half-space holds what lies on the positive side of a random direction; the far cluster is the hundredth "
        "of the records nearest to a random one, asked with the queries least like it; the changing filter has another "
        "limit with each query, all others repeat theirs.",
    ]
    for found in result["backends"].values():
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        parameters = ", ".join(f"{name} {value}" for name, value in found["parameters"].items())
        settings = {str(case["setting"]) for case in found["tuned"].values()}
        cores = max(timed["cores"] for timed in found["timed"].values())
        notes.append(
            f"- {found['label']} ({versions}; {parameters}): {found['syncs']}. Written in {found['written_s']:.1f} s, "
            f"indexed after {found['seconds']:.1f} s, {found['disk_bytes'] / 2**20:.0f} MiB; up to {cores:.1f} cores a "
            f"query; settings used: {', '.join(sorted(settings))}."
        )
    return notes


def _first_seen_table(result: Results) -> list[str]:
    lines = [
        "### What a filter costs",
        "",
        "| filter | `count`, new | `count`, known | query, new | query, known | first of its field |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, found in result["kinds"].items():
        names = ("count_new_us", "count_known_us", "new_over_plain_us", "known_over_plain_us", "first_of_field_us")
        lines.append(f"| {kind} | " + " | ".join(f"{found[name] / 1e3:.3f} ms" for name in names) + " |")
    return [*lines, "", "Queries: time over the same query without a filter. Ranges let a tenth pass.", ""]


def _text_table(result: Results) -> list[str]:
    backends = result["backends"]
    first = next(iter(backends.values()))
    lines = [
        f"### {result['count']:,} documents of {first['mean_characters']:.0f} characters on average",
        "",
        "| query, p50 / p95 | " + " | ".join(found["label"] for found in backends.values()) + " |",
        "|---|" + "---:|" * len(backends),
    ]
    for kind in first["timed"]:
        cells = [
            f"{found['timed'][kind]['p50_us'] / 1e3:.3f} / {found['timed'][kind]['p95_us'] / 1e3:.3f} ms"
            for found in backends.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines.append("")
    for found in backends.values():
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        parameters = ", ".join(f"{name} {value}" for name, value in found["parameters"].items())
        hits = ", ".join(f"{kind} {count:.1f}" for kind, count in found["hits"].items())
        lines.append(
            f"- {found['label']} ({versions}; {parameters}): {found['syncs']}. {found['add_per_s']:,.0f} records/s "
            f"written, text searchable {found['searchable_s']:.2f} s later, all indexed {found['indexed_s']:.1f} s "
            f"later; mean hits: {hits}."
        )
    return [*lines, "", "Queries are one-line descriptions of packages; words are joined by OR.", ""]


def _quality_table(result: Results) -> list[str]:
    return [
        f"### {result['query_count']:,} queries over {result['document_count']:,} package descriptions",
        "",
        "| way | MRR@10 | recall@10 |",
        "|---|---:|---:|",
        *(f"| {name} | {found['mrr']:.4f} | {found['recall']:.4f} |" for name, found in result["ways"].items()),
        "",
        "A query is a package's one-line description, its answer the long one, without the name, the one-line "
        "description, and a first sentence that repeats it; a document holds "
        f"{result['shared_words']:.0%} of its query's words on average. The best alpha is read off these very queries.",
        "",
    ]


_TABLES: dict[str, Callable[[Results], list[str]]] = {
    "filters": _filter_table,
    "large": _filter_table,
    "first-seen": _first_seen_table,
    "text": _text_table,
    "quality": _quality_table,
}


def tables(results: Results) -> list[str]:
    """The tables of the parts that there are, and when those finished."""
    lines = []
    for name, table in _TABLES.items():
        if name in results:
            lines += table(results[name])
    finished = {name: results[name]["finished"] for name in _TABLES if name in results}
    if finished:
        lines += ["Finished: " + ", ".join(f"{name} {when}" for name, when in finished.items()) + ".", ""]
    return lines


def draw(results: Results, folder: Path) -> list[Path]:
    """The plots of what there is; none without matplotlib."""
    try:
        from bench.filters import plot
    except ImportError:
        return []
    return plot.draw(results, folder)
