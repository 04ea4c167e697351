"""Recall against queries a second, one line per backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench import peers
from bench.measure import TARGET_RECALL
from bench.scale import K, Scale

STYLES: dict[str, tuple[str, str]] = {
    "nopokedb": ("#d62728", "o"),
    "nopokedb-0.5.1": ("#7f7f7f", "s"),
    "hnswlib": ("#1f77b4", "^"),
    "faiss-hnsw": ("#2ca02c", "v"),
    "faiss-hnsw-efc200": ("#9467bd", "D"),
    "faiss-exact": ("#000000", "P"),
}
CROWDED_RECALL = 0.96
"""Beyond this the lines meet and their numbers would hide each other; the legend names the target's ef."""


def _legend(result: dict[str, Any]) -> str:
    tuned = result["tuned_ef"]
    return str(result["label"]) if tuned is None else f"{result['label']} ({TARGET_RECALL} at ef {tuned})"


def _draw_backend(axes: Any, result: dict[str, Any], colour: str, marker: str, width: float) -> None:
    """One line over the points whose ef is known; a default that chooses its own ef stands beside it."""
    default_ef = result["parameters"].get("default_ef")
    known = [(point["ef"] or default_ef, point) for point in result["points"] if point["ef"] or default_ef]
    known.sort(key=lambda pair: int(pair[0]))
    line = [point for _, point in known]
    style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": width, "label": _legend(result)}
    drawn = line or result["points"]
    axes.plot([point["recall"] for point in drawn], [point["qps"] for point in drawn], **style)
    for ef, point in known:
        if point["recall"] < CROWDED_RECALL:
            place = (point["recall"], point["qps"])
            axes.annotate(str(ef), place, (5, 4), textcoords="offset points", fontsize=7, color=colour)
    default = next(point for point in result["points"] if point["ef"] is None)
    ring = {"marker": "o", "markersize": 12, "fillstyle": "none", "markeredgewidth": 1.4, "color": colour}
    axes.plot(default["recall"], default["qps"], **ring)


def draw(results: dict[str, Any], path: Path, scale: Scale) -> None:
    """Writes the plot as PNG. Each point is one ef; a ring marks what a backend does by default."""
    figure = Figure(figsize=(9, 5.5), dpi=150)
    axes = figure.subplots()
    for name in peers.SEED_PEERS:
        if name in results:
            _draw_backend(axes, results[name], *STYLES[name], width=2.6 if name == "nopokedb" else 1.3)
    axes.axvline(TARGET_RECALL, color="#777777", linewidth=0.9, linestyle="--", label=f"recall {TARGET_RECALL}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"recall@{K} (further right is better)")
    axes.set_ylabel("queries a second, one thread (higher is better)")
    title = f"{scale.seed_count:,} x {scale.seed_dim} Gaussian vectors, cosine (numbers: ef; rings: defaults)"
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
