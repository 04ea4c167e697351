"""How records are coloured by a field, as in the console's map: many different numbers by size, else by value."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from nopokedb.filters import Path, nodes_at

HUES = (
    "#6366f1",
    "#10b981",
    "#f59e0b",
    "#ef4444",
    "#0ea5e9",
    "#d946ef",
    "#84cc16",
    "#f97316",
    "#14b8a6",
    "#a855f7",
)
OTHER = "#94a3b8"
"""Of records without the field, and of values beyond the most frequent."""
_FEW = 12
"""So many different numbers still get a colour each, as far as there are colours."""
_LOW, _HIGH = 250, 40
"""Hues of the smallest and the largest number, in degrees."""
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Colouring:
    """A colour per record, and what colours mean."""

    colours: list[str]
    """As #rrggbb."""
    legend: list[tuple[str, str]]
    """Colour and words."""


def coloured(metadatas: Sequence[dict[str, Any]], field: Path) -> Colouring:
    """The colours of records by their metadata; of a list the first value counts."""
    if field is None:
        return Colouring([HUES[0]] * len(metadatas), [])
    values = [_value(metadata, field) for metadata in metadatas]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if 2 * len(numbers) > len(values) and len(set(numbers)) > _FEW:
        low, high = min(numbers), max(numbers)
        colours = [_by_size(value, low, high) for value in values]
        return Colouring(colours, [(_by_size(low, low, high), str(low)), (_by_size(high, low, high), str(high))])
    texts = [None if value is None else orjson.dumps(value).decode() for value in values]
    counts = Counter(text for text in texts if text is not None)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: len(HUES)]
    hues = {text: HUES[at] for at, (text, _) in enumerate(most)}
    legend = [(hues[text], f"{_short(text)} ({number})") for text, number in most]
    if len(counts) > len(most) or None in texts:
        legend.append((OTHER, "others"))
    return Colouring([OTHER if text is None else hues.get(text, OTHER) for text in texts], legend)


def _value(metadata: dict[str, Any], field: tuple[str, ...]) -> Any:
    for node in nodes_at(metadata, field):
        return node[0] if isinstance(node, list) and node else node
    return None


def _by_size(value: Any, low: float, high: float) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return OTHER
    share = (value - low) / ((high - low) or 1)
    red, green, blue = colorsys.hls_to_rgb((_LOW + (_HIGH - _LOW) * share) / 360, 0.55, 0.75)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _short(text: str) -> str:
    text = text.strip('"')
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
