"""A map of a collection as a file: a picture by matplotlib, or a page that needs nothing but itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import orjson

from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidInputError
from nopokedb.filters import Path as FieldPath
from nopokedb.filters import path_text
from nopokedb.insight.blocks import Block
from nopokedb.insight.colouring import OTHER, Colouring, coloured
from nopokedb.insight.projection import Projection, projection_of
from nopokedb.reading import Reading
from nopokedb.records import Metadata, shown
from nopokedb.where import Where

Kind = Literal["png", "html"]
_PAGE = Path(__file__).with_name("page.html")
_UNFINISHED = ".partial"
_FIELDS, _LETTERS, _TEXT_LETTERS = 8, 80, 200
"""What a page holds of each record: so many fields, with so much of each, and of the text."""
_INCHES, _DOTS_PER_INCH = (9.0, 7.0), 150


def plot_kind(path: object) -> tuple[Path, Kind]:
    """Where to draw, and what."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InvalidInputError(f"expected the path of a file, got {shown(path)}")
    target = Path(path)
    kinds: dict[str, Kind] = {".png": "png", ".html": "html"}
    kind = kinds.get(target.suffix.lower())
    if kind is None or "\0" in str(target):
        raise InvalidInputError(f"expected a file that ends in .png or .html, got {shown(str(path))}")
    return target, kind


def draw(
    db: Reading, space: str, dim: int, target: Path, kind: Kind, field: FieldPath, sample: int, where: Where
) -> Projection:
    """See `NoPokeDB.plot`. The file gets its name when it is whole."""
    figure = _figure_class() if kind == "png" else None
    metadatas: list[Metadata] = []
    texts: list[str | None] = []

    def keep(block: Block) -> None:
        for record in db.get_many(block.ids, include=("metadata", "text")):
            metadatas.append((record.metadata if record is not None else None) or {})
            texts.append(None if record is None else record.text)

    found = projection_of(db, space, dim, min(2, dim), sample, where, keep)
    colouring = coloured(metadatas, field)
    title = f"{len(found.ids)} records"
    if field is not None:
        title += f" by {path_text(field)}"
    unfinished = target.with_name(target.name + _UNFINISHED)
    try:
        if figure is not None:
            _picture(figure, unfinished, found, colouring, title)
        else:
            unfinished.write_text(_page(found, metadatas, texts, colouring, title), encoding="utf-8")
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return found


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(f"pictures need matplotlib: {install_hint('plot')}; a page (.html) needs nothing") from error
    return Figure


def _points(found: Projection) -> list[list[float]]:
    """In two dimensions, also those that have one."""
    return [[*point, 0.0][:2] for point in found.coordinates.tolist()]


def _axis_words(found: Projection) -> list[str]:
    shares = [*found.explained_variance.tolist(), 0.0][:2]
    return [f"axis {at + 1}: {100 * share:.1f} % of the variance" for at, share in enumerate(shares)]


def _picture(figure_class: Any, target: Path, found: Projection, colouring: Colouring, title: str) -> None:
    """A figure of its own, beside whatever else a program draws."""
    figure = figure_class(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    points = _points(found)
    axes.scatter([x for x, _ in points], [y for _, y in points], c=colouring.colours, s=9, alpha=0.8, linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")
    across, up = _axis_words(found)
    words = [axes.set_title(title), axes.set_xlabel(across), axes.set_ylabel(up)]
    if colouring.legend:
        handles = [axes.scatter([], [], c=colour, s=30) for colour, _ in colouring.legend]
        legend = axes.legend(handles, [text for _, text in colouring.legend], fontsize="small")
        words += legend.get_texts()
    for text in words:
        text.set_parse_math(False)  # a stored $ is a $
    figure.savefig(target, format="png")


def _page(
    found: Projection, metadatas: list[Metadata], texts: list[str | None], colouring: Colouring, title: str
) -> str:
    """The page with its data as JSON, in which no tag can begin."""
    palette = sorted({OTHER, *colouring.colours})
    numbers = {colour: at for at, colour in enumerate(palette)}
    data = {
        "title": title,
        "axes": _axis_words(found),
        "palette": palette,
        "legend": colouring.legend,
        "points": [[round(x, 6), round(y, 6)] for x, y in _points(found)],
        "colours": [numbers[colour] for colour in colouring.colours],
        "about": [
            [repr(id_), _fields(metadata), (text or "")[:_TEXT_LETTERS]]
            for id_, metadata, text in zip(found.ids, metadatas, texts, strict=True)
        ],
    }
    encoded = orjson.dumps(data).decode()
    for sign in "<>&\u2028\u2029":
        encoded = encoded.replace(sign, f"\\u{ord(sign):04x}")
    return _PAGE.read_text(encoding="utf-8").replace("{{data}}", encoded)


def _fields(metadata: Metadata) -> list[list[str]]:
    shown = list(metadata.items())[:_FIELDS]
    return [
        [key[:_LETTERS], (value if isinstance(value, str) else orjson.dumps(value).decode())[:_LETTERS]]
        for key, value in shown
    ]
