"""The process of one database: builds it, finds the search setting for each filter, and times what it is told to.

Run by the driver as `python -m bench.filters.child NAME DATA FOLDER`.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

from bench import peers
from bench.conversation import serve
from bench.filters import dataset
from bench.filters.cases import Case, Truth
from bench.filters.scale import TARGET_RECALL
from bench.machine import versions_of
from bench.peers import FilterPeer, Layout, Setting
from bench.scale import BATCH_SIZE, K
from bench.scoring import score_answer
from bench.timing import FEWEST, stretch

WARM_UP = 3


class Child:
    """One database and the data set it holds."""

    def __init__(self, name: str, data: Path, folder: Path) -> None:
        self._peer = cast(FilterPeer, peers.load(name))
        self._data = dataset.read(data)
        self._folder = folder
        self._numbers: dict[str, Iterator[int]] = {case.name: itertools.count(1) for case in self._data.cases}

    def build(self) -> dict[str, Any]:
        """Stores everything and reports how long it took."""
        metadatas = self._data.metadatas()
        vectors = self._data.vectors
        started = time.perf_counter()
        layout = Layout(vectors.shape[1], len(vectors), metadatas[0], tuple(self._data.indexed))
        self._peer.create(self._folder, layout)
        for start in range(0, len(vectors), BATCH_SIZE):
            self._peer.add(start, vectors[start : start + BATCH_SIZE], metadatas[start : start + BATCH_SIZE])
        written = time.perf_counter() - started
        self._peer.finish()
        seconds = time.perf_counter() - started
        return {
            "label": self._peer.label,
            "syncs": self._peer.syncs,
            "parameters": self._peer.parameters(),
            "versions": versions_of(self._peer.packages),
            "disk_bytes": sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file()),
            "written_s": written,
            "seconds": seconds,
        }

    def open(self) -> None:
        """Opens what was built before and asks a few queries, so that what is read on first use is there."""
        self._peer.open(self._folder)
        self._peer.use(self._peer.filter_settings[-1])
        for query in self._data.queries[:FEWEST]:
            self._peer.query(query, K)

    def _pass(
        self, case: Case, truth: Truth, setting: Setting, seconds: float, gives_up: bool = True
    ) -> dict[str, Any]:
        """Recall and median time over the queries, or over as many as fit in the time.

        One that gives up stops when more is missed than all the queries together may miss.
        """
        allowed = (1 - TARGET_RECALL) * truth.nearest.size
        mask = case.filter.mask(self._data.columns) if case.filter else None
        condition = self._peer.native(case.filter_of(0))
        self._peer.use(setting)
        self._peer.query(self._data.queries[truth.queries[0]], K, condition)
        started = time.perf_counter()
        right = possible = wrong = 0
        latencies: list[float] = []
        for number, nearest, worst in zip(truth.queries, truth.nearest, truth.worst, strict=True):
            query = self._data.queries[number]
            before = time.perf_counter()
            answer = self._peer.query(query, K, condition)
            latencies.append(time.perf_counter() - before)
            found, broken = score_answer(
                self._peer.ids(answer), query, float(worst), len(nearest), self._data.vectors, mask
            )
            right, possible, wrong = right + found, possible + len(nearest), wrong + broken
            is_late = time.perf_counter() - started > seconds
            if len(latencies) >= FEWEST and (is_late or (gives_up and possible - right > allowed)):
                break
        middle = statistics.median(latencies) * 1e6
        return {
            "setting": setting,
            "recall": right / possible,
            "wrong_count": wrong,
            "asked_count": len(latencies),
            "p50_us": middle,
        }

    def tune(self, case: str, seconds: float) -> dict[str, Any]:
        """The fastest setting that reaches the target, or the one of the highest recall; and all that was tried."""
        found, truth = self._data.case(case)
        tried: list[dict[str, Any]] = []
        for setting in self._peer.filter_settings:
            tried.append(self._pass(found, truth, setting, seconds))
            if tried[-1]["recall"] >= TARGET_RECALL:
                break
        tried += [self._pass(found, truth, setting, seconds) for setting in self._peer.exact_settings]
        reaching = [each for each in tried if each["recall"] >= TARGET_RECALL]
        chosen = min(reaching, key=lambda each: float(each["p50_us"]), default=None)
        if chosen is None:
            best = max(tried, key=lambda each: float(each["recall"]))
            chosen = self._pass(found, truth, best["setting"], seconds, gives_up=False)
        return {**chosen, "reached": bool(reaching), "tried": tried}

    def time(self, case: str, setting: Setting, seconds: float) -> dict[str, float]:
        """Asks the case's queries in turn until the time is over."""
        found, truth = self._data.case(case)
        numbers = self._numbers[case]
        fixed = self._peer.native(found.filter)
        self._peer.use(setting)
        for row in truth.queries[:WARM_UP]:
            self._peer.query(self._data.queries[row], K, fixed)

        def question(number: int) -> Callable[[], object]:
            condition = self._peer.native(found.filter_of(next(numbers))) if found.changes else fixed
            query = self._data.queries[truth.queries[number % len(truth.queries)]]
            return partial(self._peer.query, query, K, condition)

        return stretch(question, seconds)

    def close(self) -> None:
        """Closes the database in its own way."""
        self._peer.close()

    def actions(self) -> dict[str, Callable[..., Any]]:
        """What the driver may ask for."""
        return {each.__name__: each for each in (self.build, self.open, self.tune, self.time, self.close)}


if __name__ == "__main__":
    serve(lambda: Child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).actions())
