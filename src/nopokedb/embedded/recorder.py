"""Takes down how one query is answered, for `explain`.

Reads get a recorder or None, which is what every query of a user has: the price of being explained is a comparison
with None at each step. Steps are timed like laps: a stage is what passed since the end of the one before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from nopokedb.embedded.search.exact import Rows
from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bytes
from nopokedb.engine import Query
from nopokedb.filters import Test, text_of
from nopokedb.plan import FilterPlan, Plan, Search, Stage, TestPlan


@dataclass(slots=True)
class _Draft:
    """What is known of the search of a part so far."""

    strategy: str = "skipped"
    why: str = "no row of it is allowed"
    ef: int | None = None
    estimated: int = 0
    candidates: int = 0
    doublings: int = 0
    bytes_read: int = 0


@dataclass(slots=True)
class Recorder:
    """Notes of one query, in the order in which they come."""

    ef: int | None
    row_bytes: int
    """Bytes of a vector."""
    _stages: dict[str, float] = field(default_factory=dict)
    _searches: list[Search] = field(default_factory=list)
    _tests: list[TestPlan] = field(default_factory=list)
    _filter: FilterPlan | None = None
    _draft: _Draft = field(default_factory=_Draft)
    _round: int = 0
    _last: float = field(default_factory=time.perf_counter)
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._last

    # --- stages --------------------------------------------------------------------------------------------

    def lap(self, stage: str) -> float:
        """The time since the last lap was this stage's; in milliseconds."""
        now = time.perf_counter()
        ms, self._last = (now - self._last) * 1e3, now
        self._stages[stage] = self._stages.get(stage, 0.0) + ms
        return ms

    # --- filter --------------------------------------------------------------------------------------------

    def test(self, test: Test, source: str, match_count: int | None) -> None:
        self._tests.append(TestPlan(text_of(test), source, match_count))

    def filtered(self, match_count: int, live_count: int, *, cached: bool) -> None:
        """The whole filter."""
        share = match_count / live_count if live_count else 0.0
        self._filter = FilterPlan(match_count, share, cached, tuple(self._tests))
        self.lap("filter")

    # --- searches ------------------------------------------------------------------------------------------

    def begin_round(self) -> None:
        self._round += 1
        self.lap("rest")

    def choose(self, strategy: str, why: str, estimated: int, ef: int | None = None) -> None:
        """How the part at hand will be searched."""
        draft = self._draft
        draft.strategy, draft.why, draft.estimated, draft.ef = strategy, why, estimated, ef

    def listed(self, index: Segment, length: int, rows: Rows, *, doubled: bool = False) -> None:
        """An index gave the list of one query, and its rows were compared: all of them, or the beginning that it ranked
        itself."""
        compared = int((rows >= 0).sum())
        candidates = length if rows.size < length else compared
        draft = self._draft
        draft.ef = length
        draft.doublings += doubled
        draft.candidates += candidates
        draft.bytes_read += index.bytes_for(length) + compared * self.row_bytes

    def compared(self, count: int) -> None:
        """All allowed rows were compared."""
        draft = self._draft
        draft.candidates += count
        draft.bytes_read += count * self.row_bytes
        if draft.strategy in ("scan", "graph"):
            draft.why += "; its list fell short or did not settle, so all were compared"

    def end_part(self, part: str, kind: str, row_count: int, allowed_count: int) -> None:
        draft, self._draft = self._draft, _Draft()
        self._searches.append(
            Search(
                part,
                kind,
                self._round,
                draft.strategy,
                draft.why,
                row_count,
                allowed_count,
                self.ef,
                draft.ef,
                draft.estimated,
                draft.candidates,
                draft.doublings,
                draft.bytes_read,
                self.lap(part),
            )
        )

    # --- the whole -----------------------------------------------------------------------------------------

    def plan(self, query: Query, snapshot: Snapshot, hit_count: int) -> Plan:
        """What was taken down."""
        self.lap("rest")
        by_vector = query.vectors is not None or bool(query.like)
        rest = self._stages.pop("rest")
        stages = [Stage(name, ms) for name, ms in self._stages.items()]
        return Plan(
            "vector" if not query.texts else "hybrid" if by_vector else "text",
            query.k,
            query.recall if by_vector and query.ef is None else None,
            snapshot.live.count,
            self._filter,
            tuple(self._searches),
            (*stages, Stage("rest", rest)),
            hit_count,
            (self._last - self._began) * 1e3,
        )


def count_live(bits: Bytes, snapshot: Snapshot) -> int:
    """How many live labels a bitmap has."""
    return int(np.bitwise_count(bits & snapshot.live.slice(0, snapshot.label_count)).sum())
