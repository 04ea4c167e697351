"""Queries a second against selectivity, and the quality of fusions against their weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.filters.scale import TARGET_RECALL

STYLES: dict[str, tuple[str, str]] = {
    "nopokedb": ("#d62728", "o"),
    "zvec": ("#1f77b4", "^"),
    "chroma": ("#2ca02c", "v"),
    "lancedb": ("#9467bd", "D"),
}


def _draw_filters(result: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(10, 5), dpi=150)
    axes = figure.subplots()
    for name, found in result["backends"].items():
        colour, marker = STYLES[name]
        for kind, line in (("range", "-"), ("equality", "--")):
            cases = [case for case in result["cases"] if case["kind"] in ("none", kind)]
            percents = [case["percent"] for case in cases]
            rates = [found["timed"][case["name"]]["qps"] for case in cases]
            label = f"{found['label']}, {kind}"
            axes.plot(percents, rates, line, color=colour, marker=marker, markersize=4, label=label)
            missed = [
                (percent, rate)
                for case, percent, rate in zip(cases, percents, rates, strict=True)
                if not found["tuned"][case["name"]]["reached"]
            ]
            for percent, rate in missed:
                axes.plot(percent, rate, "x", color="black", markersize=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g} %"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("records that pass the filter")
    axes.set_ylabel("queries a second, one thread (higher is better)")
    axes.set_title(f"{result['count']:,} real embeddings (x: recall {TARGET_RECALL} not reached)", fontsize=10)
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(path)


def _draw_quality(result: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(7, 4), dpi=150)
    axes = figure.subplots()
    ways = result["ways"]
    weighted = {float(name.rpartition(" ")[2]): found["mrr"] for name, found in ways.items() if "alpha" in name}
    line = {0.0: ways["BM25"]["mrr"], **weighted, 1.0: ways["vector"]["mrr"]}
    axes.plot(list(line), list(line.values()), "-o", color="#d62728", label="weighted (0: BM25 alone, 1: vector alone)")
    axes.axhline(ways["RRF"]["mrr"], color="#1f77b4", linestyle="--", label="RRF")
    axes.set_xlabel("alpha, the share of the vector")
    axes.set_ylabel("MRR@10 (higher is better)")
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the plots of the parts that there are; returns their paths."""
    written: list[Path] = []
    for name, draw_part in (("filters", _draw_filters), ("large", _draw_filters), ("quality", _draw_quality)):
        if name in results:
            written.append(folder / f"{name}.png")
            draw_part(results[name], written[-1])
    return written
