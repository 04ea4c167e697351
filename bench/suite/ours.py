"""What only this project is measured on: overhead, sealing, asking while adding, and how near the scan is to the limit.

Run by the driver as `python -m bench.suite.ours NAME DATA FOLDER`.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench import bandwidth, peers
from bench.bare_index import bare_index_us
from bench.conversation import serve
from bench.datasets import Floats, metadata_for
from bench.peers import Layout
from bench.peers.nopokedb_ours import POLL_S, Backend, settle
from bench.scale import BATCH_SIZE, K
from bench.scale import Scale as SeedScale
from bench.scoring import score_answer
from bench.suite import data
from bench.timing import stretch, timed_us

ADDED_PER_S = 1_000
ADDED_AT_ONCE = 100
SCAN_ROUNDS = 200


class Child:
    """One collection of this project."""

    def __init__(self, name: str, data_folder: Path, folder: Path) -> None:
        self._peer = cast(Backend, peers.load(name))
        self._data = data.read(data_folder)
        self._folder = folder

    def _query(self, number: int) -> Any:
        return self._peer.query(self._data.queries[number % len(self._data.queries)], K)

    def _recall(self, answers: dict[int, list[int]]) -> float:
        right = sum(
            score_answer(ids, self._data.queries[row], float(self._data.worst[row]), K, self._data.vectors, None)[0]
            for row, ids in answers.items()
        )
        return right / (K * len(answers))

    def overhead(self, round_count: int, seconds: float) -> dict[str, float]:
        """Median microseconds of a query, with and without metadata, and of its bare index calls, in turn."""
        self._peer.open(self._folder)
        db, queries = self._peer.handle, self._data.queries
        settle(db)
        scale = SeedScale(round_s=seconds)
        with_metadata, without, bare = [], [], []
        for row in range(len(queries)):
            self._query(row)
        for _ in range(round_count):
            with_metadata.append(stretch(lambda number: partial(self._query, number), seconds)["p50_us"])
            plain = lambda number: partial(db.query, queries[number % len(queries)], k=K, include=())  # noqa: E731
            without.append(stretch(plain, seconds)["p50_us"])
            bare.append(bare_index_us(db, queries, scale))
        stats, median = db.stats(), statistics.median
        self._peer.close()
        times = {"query_us": median(with_metadata), "without_metadata_us": median(without), "bare_us": median(bare)}
        return {**times, "stored_bytes": stats.disk_bytes - stats.index_bytes}

    def seal(self) -> dict[str, Any]:
        """Loads everything; seconds from the start of that until written, until found, and until indexed."""
        shutil.rmtree(self._folder, ignore_errors=True)
        vectors, metadatas = self._data.vectors, metadata_for(len(self._data.vectors))
        self._peer.create(self._folder, Layout(vectors.shape[1], len(vectors), metadatas[0]))
        started = time.perf_counter()
        for start in range(0, len(vectors), BATCH_SIZE):
            self._peer.add(start, vectors[start : start + BATCH_SIZE], metadatas[start : start + BATCH_SIZE])
        written = time.perf_counter() - started
        answers = {0: self._peer.ids(self._query(0))}
        searchable = time.perf_counter() - started
        answers |= {row: self._peer.ids(self._query(row)) for row in range(1, min(20, len(self._data.queries)))}
        asked = time.perf_counter() - started
        while self._peer.handle.stats().sealing:
            time.sleep(POLL_S)
        sealed = time.perf_counter() - started
        segments = [f"{each.kind} of {each.row_count:,}" for each in self._peer.handle.stats().segments]
        self._peer.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        times = {"written_s": written, "searchable_s": searchable, "asked_s": asked - searchable, "sealed_s": sealed}
        return {**times, "recall": self._recall(answers), "segments": segments}

    def _strangers(self, count: int) -> Floats:
        """Stored vectors turned around, without those that would be an answer to any of the queries."""
        rng = np.random.default_rng(3)
        chosen = -self._data.vectors[rng.integers(0, len(self._data.vectors), 2 * count)]
        nearest = (chosen @ self._data.queries.T - self._data.worst).max(axis=1)
        kept = chosen[nearest < 0][:count]
        return np.ascontiguousarray(kept)

    def while_adding(self, seconds: float) -> dict[str, float]:
        """Queries a second and recall, at rest and while vectors are added that no query has among its answers.

        The additions come on a copy of the collection, which is not kept.
        """
        copy = self._folder.with_name(f"{self._folder.name}-while")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._folder, copy)
        self._peer.open(copy)
        settle(self._peer.handle)
        answers: dict[int, list[int]] = {}

        def question(number: int) -> Callable[[], object]:
            row = number % len(self._data.queries)

            def ask() -> None:
                answers[row] = [hit["id"] for hit in cast(Any, self._query(row))]

            return ask

        stretch(question, min(1.0, seconds))
        idle = stretch(question, seconds)
        idle_recall = self._recall(answers)
        added = self._strangers(round(ADDED_PER_S * seconds * 1.5))
        done, stored = threading.Event(), 0

        def add() -> None:
            nonlocal stored
            metadatas = metadata_for(ADDED_AT_ONCE)
            started = time.perf_counter()
            while not done.is_set() and stored + ADDED_AT_ONCE <= len(added):
                self._peer.handle.add_many(added[stored : stored + ADDED_AT_ONCE], metadatas)
                stored += ADDED_AT_ONCE
                done.wait(max(0.0, stored / ADDED_PER_S - (time.perf_counter() - started)))

        answers.clear()
        adder = threading.Thread(target=add)
        adder.start()
        busy = stretch(question, seconds)
        done.set()
        adder.join()
        busy_recall = self._recall(answers)
        self._peer.close()
        shutil.rmtree(copy, ignore_errors=True)
        return {
            "idle_qps": idle["qps"],
            "busy_qps": busy["qps"],
            "idle_recall": idle_recall,
            "busy_recall": busy_recall,
            "idle_p99_us": idle["p99_us"],
            "busy_p99_us": busy["p99_us"],
            "added_per_s": stored / seconds,
        }

    def limit(self) -> dict[str, Any]:
        """Read bandwidth of one thread, and the bytes of codes that the scan reads in its time."""
        self._peer.open(self._folder)
        db: Any = self._peer.handle
        settle(db)
        snapshot = db._engine.snapshot()
        read, spent_us, rows = 0, 0.0, 0
        for segment in snapshot.segments:
            if segment.kind != "scan":
                continue
            ef = segment.ef_for(K)
            queries = self._data.queries
            times = [
                timed_us(partial(segment.search, queries[number % len(queries)][None], ef))
                for number in range(SCAN_ROUNDS)
            ]
            read, spent_us, rows = (
                read + segment.bytes_for(ef),
                spent_us + statistics.median(times),
                rows + segment.row_count,
            )
        self._peer.close()
        scan = {"bytes": read, "us": spent_us, "row_count": rows, "gb_per_s": read / max(spent_us, 1e-9) / 1e3}
        return {"bandwidth_gb_per_s": bandwidth.measure(), "scan": scan}

    def actions(self) -> dict[str, Callable[..., Any]]:
        """What the driver may ask for."""
        offered = (self.overhead, self.seal, self.while_adding, self.limit)
        return {each.__name__: each for each in offered}


if __name__ == "__main__":
    serve(lambda: Child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).actions())
