"""What `explain` says: how a query was answered, part by part, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of an answer. The stages of a plan add up to its `total_ms`."""

    name: str
    """"filter", "segment 0" and so on, "tail", "distances" (final ones, in float64), "text", "fusion", "metadata",
    "hits", and "rest" for what is between them."""
    ms: float


@dataclass(frozen=True, slots=True)
class TestPlan:
    """One test of a filter."""

    __test__ = False  # pytest would collect a class of this name

    test: str
    source: str
    """Where it was known from: "cache", "index", "sorted numbers" (of an index, in memory) or "scan"; "cache + " and
    one of these where only newer records had to be looked up."""
    match_count: int | None
    """Live records that pass it; None if that is no longer kept."""


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """What a filter left over."""

    match_count: int
    """Live records that pass."""
    selectivity: float
    """Share of the live records that pass."""
    cached: bool
    """The whole filter was known for this state of the collection."""
    tests: tuple[TestPlan, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """How one segment, or the tail, was searched. Groups may take several rounds; each has its own."""

    part: str
    """"segment 0" and so on, "tail"."""
    kind: str
    """The kind of index that the segment has; "none" for the tail."""
    round: int
    strategy: str
    """"exact", "scan", "graph" or "skipped"."""
    why: str
    row_count: int
    allowed_count: int
    """Rows that may be an answer: live, and passing the filter."""
    ef_asked: int | None
    """As given by the caller."""
    ef: int | None
    """Length of the list that was taken; None where there was none."""
    estimated_candidates: int
    """Rows that the plan expected to compare by their vectors."""
    candidates: int
    """Rows that were compared by their vectors."""
    doublings: int
    """How often the list was not settled and was made twice as long."""
    bytes_read: int
    """Estimate: codes and links looked at, and vectors compared."""
    ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query was answered; `print(plan)` shows a table."""

    query: str
    """"vector", "text" or "hybrid"."""
    k: int
    target_recall: float | None
    """What lists were chosen to reach; None where `ef` was given, or only text was asked for."""
    record_count: int
    filter: FilterPlan | None
    searches: tuple[Search, ...]
    stages: tuple[Stage, ...]
    hit_count: int
    """Hits of the answer, those of all groups together."""
    total_ms: float

    @property
    def candidates(self) -> int:
        """Rows that were compared by their vectors."""
        return sum(search.candidates for search in self.searches)

    @property
    def bytes_read(self) -> int:
        return sum(search.bytes_read for search in self.searches)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and lists, which JSON can hold."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain | {"candidates": self.candidates, "bytes_read": self.bytes_read}

    def __str__(self) -> str:
        asked = f", for a recall of {self.target_recall:g}" if self.target_recall is not None else ""
        lines = [
            f"{self.query} query, k={self.k}{asked}: {self.hit_count} hits among {self.record_count:,} records in "
            f"{self.total_ms:.3f} ms"
        ]
        if self.filter is not None:
            known = ", known already" if self.filter.cached else ""
            lines += ["", f"filter: {self.filter.match_count:,} records pass ({self.filter.selectivity:.2%}){known}"]
            lines += _table(
                ("test", "from", "records"),
                [
                    (test.test, test.source, "?" if test.match_count is None else f"{test.match_count:,}")
                    for test in self.filter.tests
                ],
                right=(2,),
            )
        if self.searches:
            several = len({search.round for search in self.searches}) > 1
            head = ("part", "index", "strategy", "rows", "allowed", "ef", "expected", "compared", "x2", "read", "ms")
            rows = [
                (
                    f"{search.round}: {search.part}" if several else search.part,
                    search.kind,
                    search.strategy,
                    f"{search.row_count:,}",
                    f"{search.allowed_count:,}",
                    "-" if search.ef is None else f"{search.ef:,}",
                    f"{search.estimated_candidates:,}",
                    f"{search.candidates:,}",
                    str(search.doublings),
                    _size(search.bytes_read),
                    f"{search.ms:.3f}",
                    search.why,
                )
                for search in self.searches
            ]
            lines += ["", *_table((*head, "why"), rows, right=range(3, 11))]
        lines += ["", *_table(("stage", "ms"), [(stage.name, f"{stage.ms:.3f}") for stage in self.stages], right=(1,))]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _size(count: int) -> str:
    """A number of bytes for people."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:,.0f} KiB" if count < 2**20 else f"{count / 2**20:,.1f} MiB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Lines of aligned columns, those in `right` flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
