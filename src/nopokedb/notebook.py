"""How records look: in one line, and in a notebook as small HTML tables, in which all that is stored is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_SHOWN = 200
"""Characters of a value."""


def shortened(value: object) -> str:
    """A value as text of bounded length."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def html_table(caption: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; each cell is text, shortened and escaped."""

    def line(kind: str, cells: Sequence[object]) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(shortened(cell))}</{kind}>" for cell in cells) + "</tr>"

    head = f"<thead>{line('th', names)}</thead>" if names else ""
    body = "".join(line("td", row) for row in rows)
    return f"<table><caption>{escape(shortened(caption))}</caption>{head}<tbody>{body}</tbody></table>"


def parts_table(what: str, id_: object, parts: Mapping[str, Any]) -> str:
    """The parts of one record or hit that are there."""
    there = [
        (name, vector_text(part) if name == "vector" else part) for name, part in parts.items() if part is not None
    ]
    return html_table(f"{what} {id_!r}", (), there)


def record_text(id_: object, metadata: object, text: object, vector: Any, cursor: object) -> str:
    """A record in one line, with the parts that are there."""
    parts = {"id": id_, "metadata": metadata, "text": text, "cursor": cursor}
    shown = [f"{name}={part!r}" for name, part in parts.items() if part is not None]
    if vector is not None:
        shown.append(f"vector={vector_text(vector)}")
    return f"Record({', '.join(shown)})"


def vector_text(vector: Any) -> str:
    """The beginning of a vector, and its length."""
    shown = ", ".join(f"{float(x):.4g}" for x in vector[:4])
    return f"[{shown}{', ...' if len(vector) > 4 else ''}] ({len(vector)})"
