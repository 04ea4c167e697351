"""The process of one backend: builds it, finds how to reach a recall, and times what it is told to.

Run by the driver as `python -m bench.suite.child NAME DATA FOLDER`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers
from bench.conversation import serve
from bench.machine import versions_of
from bench.measure import build_of, lowest_ef
from bench.memory import anonymous_bytes
from bench.peers import Setting
from bench.scale import K
from bench.scoring import score_answer
from bench.suite import data
from bench.timing import FEWEST, stretch, stretch_in_threads

WARM_UP = 3


class Child:
    """One backend and the data set it holds."""

    def __init__(self, name: str, data_folder: Path, folder: Path) -> None:
        self._peer = peers.load(name)
        self._data = data.read(data_folder)
        self._folder = folder
        self._recalls: dict[int, float] = {}
        self._unopened_bytes = 0

    def about(self) -> dict[str, Any]:
        """What the backend is."""
        return {
            "label": self._peer.label,
            "syncs": self._peer.syncs,
            "is_database": self._peer.is_database,
            "takes_threads": self._peer.takes_threads,
            "parameters": self._peer.parameters(),
            "versions": versions_of(self._peer.packages),
        }

    def build(self) -> dict[str, Any]:
        """Stores everything and reports how long it took, and what lies on disk after closing."""
        before = anonymous_bytes()
        built = build_of(self._peer, self._data.vectors, self._folder)
        held = anonymous_bytes() - before
        self._peer.close()
        size = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        return {**built, "built_bytes": held, "disk_bytes": size}

    def open(self) -> dict[str, float]:
        """Opens what was built before, and asks one query."""
        self._unopened_bytes = anonymous_bytes()
        started = time.perf_counter()
        self._peer.open(self._folder)
        opened = time.perf_counter()
        self._peer.use({})
        asked = time.perf_counter()
        self._peer.query(self._data.queries[0], K)
        return {"open_ms": (opened - started) * 1e3, "first_query_ms": (time.perf_counter() - asked) * 1e3}

    def memory(self) -> dict[str, int]:
        """Bytes that no file backs, beyond those before opening."""
        return {"memory_bytes": anonymous_bytes() - self._unopened_bytes}

    def recall(self, setting: Setting, seconds: float) -> dict[str, float]:
        """Recall and median time over the queries, or over as many as fit in the time."""
        self._peer.use(setting)
        started = time.perf_counter()
        right, latencies = 0, []
        for query, nearest, worst in zip(self._data.queries, self._data.nearest, self._data.worst, strict=True):
            before = time.perf_counter()
            answer = self._peer.query(query, K)
            latencies.append(time.perf_counter() - before)
            ids = self._peer.ids(answer)
            right += score_answer(ids, query, float(worst), len(nearest), self._data.vectors, None)[0]
            if len(latencies) >= FEWEST and time.perf_counter() - started > seconds:
                break
        return {"recall": right / (K * len(latencies)), "p50_us": statistics.median(latencies) * 1e6}

    def _recall_at(self, effort: int, seconds: float) -> float:
        if effort not in self._recalls:
            self._recalls[effort] = self.recall(self._peer.setting(effort), seconds)["recall"]
        return self._recalls[effort]

    def tune(self, targets: list[float], seconds: float) -> dict[str, dict[str, Any]]:
        """By name, settings and their recall: the default, a curve, and for each target the least effort that does.

        Of the exact ways to search that a database also has, one is taken where no effort reaches the target.
        """
        points: dict[str, dict[str, Any]] = {"default": {"setting": {}, **self.recall({}, seconds)}}
        limit = min(self._peer.largest_effort, len(self._data.vectors))
        exact = [{"setting": each, **self.recall(each, seconds)} for each in self._peer.exact_settings]
        for target in targets:
            effort = lowest_ef(partial(self._recall_at, seconds=seconds), limit, target) if limit else None
            if effort is not None:
                found = {"setting": self._peer.setting(effort), "effort": effort, "recall": self._recalls[effort]}
                points[str(target)] = found
            elif reaching := [each for each in (points["default"], *exact) if each["recall"] >= target]:
                points[str(target)] = min(reaching, key=lambda each: float(each["p50_us"]))
        for effort in (each for each in self._peer.curve if each <= limit):
            recall = self._recall_at(effort, seconds)
            points[f"effort {effort}"] = {"setting": self._peer.setting(effort), "effort": effort, "recall": recall}
        return points

    def time(self, setting: Setting, seconds: float, thread_count: int = 1) -> dict[str, float]:
        """Asks the queries in turn until the time is over, in one thread or several at once."""
        self._peer.use(setting)
        for query in self._data.queries[:WARM_UP]:
            self._peer.query(query, K)

        def question(number: int) -> Callable[[], object]:
            return partial(self._peer.query, self._data.queries[number % len(self._data.queries)], K)

        if thread_count == 1:
            return stretch(question, seconds)
        return stretch_in_threads(question, seconds, thread_count)

    def close(self) -> None:
        """Closes the backend in its own way."""
        self._peer.close()

    def actions(self) -> dict[str, Callable[..., Any]]:
        """What the driver may ask for."""
        offered = (self.about, self.build, self.open, self.memory, self.recall, self.tune, self.time, self.close)
        return {each.__name__: each for each in offered}


if __name__ == "__main__":
    serve(lambda: Child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).actions())
