"""Recall against queries a second, latency percentiles, ingestion, and how queries scale with size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.peers import OURS, PEERS
from bench.scale import K
from bench.suite.goals import fastest
from bench.suite.parts import SEARCH_PARTS
from bench.suite.scale import TARGETS

Results = dict[str, Any]

MARKERS = "osv^D<>pPX*h"
COLOURS = [colormaps["tab20"](place) for place in (0, 2, 4, 8, 10, 12, 14, 16, 18, 1, 3, 5, 9, 11, 13, 15, 17, 19)]
"""Those of the palette that are not red."""
LOWEST_RECALL = 0.8


def _style(name: str, width: float = 1.2) -> dict[str, Any]:
    """The same colour and marker for a backend in every plot; this project is red and thick."""
    place = list(PEERS).index(name)
    ours = name == OURS
    colour = "#d62728" if ours else COLOURS[(place - 1) % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 4,
        "linewidth": 2.4 if ours else width,
    }


def _axes(title: str, label_x: str, label_y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(10, 5.5), dpi=150)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label_x)
    axes.set_ylabel(label_y)
    axes.grid(visible=True, linewidth=0.3)
    return figure, axes


def _rates(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def _save(figure: Figure, axes: Any, path: Path) -> Path:
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(path)
    return path


def _search(result: Results, path: Path) -> Path:
    """One line a backend over those of its settings that no other one of it beats."""
    title = f"{result['count']:,} x {result['dim']}, one client thread"
    figure, axes = _axes(title, f"recall@{K} (further right is better)", "queries a second (higher is better)")
    for name, found in result["backends"].items():
        points = [(found["points"][point]["recall"], timed["qps"]) for point, timed in found["timed"].items()]
        drawn = _frontier([point for point in points if point[0] >= LOWEST_RECALL])
        if drawn:
            axes.plot(*zip(*drawn, strict=True), label=found["label"], **_style(name))
    for target in TARGETS:
        axes.axvline(target, color="#777777", linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    _rates(axes.yaxis)
    return _save(figure, axes, path)


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are faster than every one of at least their recall, by recall."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda each: (-each[0], -each[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def _latencies(result: Results, path: Path) -> Path:
    """Percentiles of each backend at its fastest setting of the higher recall."""
    figure, axes = _axes(f"{result['count']:,} x {result['dim']}, at recall {TARGETS[-1]}", "", "milliseconds a query")
    names = [name for name in result["backends"] if fastest(result, (name,), TARGETS[-1])]
    for key, marker in (("p50_us", "o"), ("p95_us", "s"), ("p99_us", "^")):
        values = [float((fastest(result, (name,), TARGETS[-1]) or {})[key]) / 1e3 for name in names]
        axes.plot(range(len(names)), values, marker, label=key.removesuffix("_us"))
    axes.set_xticks(range(len(names)), [result["backends"][name]["label"] for name in names], rotation=40, ha="right")
    axes.set_yscale("log")
    return _save(figure, axes, path)


def _scaling(results: dict[int, Results], path: Path) -> Path:
    """Queries a second of each backend at both recalls, by size."""
    title = f"real embeddings, recall {TARGETS[-1]} (dashed {TARGETS[0]})"
    figure, axes = _axes(title, "vectors", "queries a second, one client thread")
    names = dict.fromkeys(name for result in results.values() for name in result["backends"])
    for name in names:
        for target, line in zip(TARGETS, ("--", "-"), strict=True):
            found = {count: fastest(result, (name,), target) for count, result in sorted(results.items())}
            points = {count: point["qps"] for count, point in found.items() if point}
            if len(points) > 1:
                label = next(point["label"] for point in found.values() if point) if line == "-" else None
                axes.plot(list(points), list(points.values()), linestyle=line, label=label, **_style(name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted(results))
    _rates(axes.xaxis)
    _rates(axes.yaxis)
    return _save(figure, axes, path)


def _ingest(result: Results, path: Path) -> Path:
    figure, axes = _axes("durable where the database is (see the table)", "rows a second, with metadata", "")
    names = list(result["backends"])
    ways = list(dict.fromkeys(way for found in result["backends"].values() for way in found["timed"]))
    height = 0.8 / len(ways)
    for number, way in enumerate(ways):
        values = [result["backends"][name]["timed"].get(way, {}).get("per_s", 0) for name in names]
        axes.barh([place + number * height for place in range(len(names))], values, height, label=way)
    axes.set_yticks([place + 0.4 for place in range(len(names))], [result["backends"][name]["label"] for name in names])
    axes.set_xscale("log")
    _rates(axes.xaxis)
    return _save(figure, axes, path)


def draw(results: Results, folder: Path) -> list[Path]:
    """Writes the plots of the parts that there are; returns their paths."""
    written = []
    for name in ("search-gaussian", *SEARCH_PARTS):
        if name in results:
            written.append(_search(results[name], folder / f"{name}.png"))
    if "search-100k" in results:
        written.append(_latencies(results["search-100k"], folder / "latencies.png"))
    sizes = {results[name]["count"]: results[name] for name in SEARCH_PARTS if name in results}
    if len(sizes) > 1:
        written.append(_scaling(sizes, folder / "scaling.png"))
    if "ingest" in results:
        written.append(_ingest(results["ingest"], folder / "ingest.png"))
    return written
