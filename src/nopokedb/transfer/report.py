"""What an import says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no record."""

    line: int
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What an import did; of a resumed one, with what earlier runs did."""

    source: str
    path: str
    format: str
    dim: int
    space: str
    unit: str
    """What `BadRow.line` counts: "line" of a text, or "row"; both from 1."""
    imported: int = 0
    bad_count: int = 0
    bad: list[BadRow] = field(default_factory=list)
    """The first of this run."""
    resumed_at: int | None = None
    """Rows that were behind already; if `finished` too, all of them."""
    created: bool = False
    finished: bool = False
    """False: it stopped at a bad row."""
    dry_run: bool = False
