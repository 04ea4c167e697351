"""One timed stretch of questions: the smallest thing that a round consists of."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

FEWEST = 10
"""Questions that are asked however slow a database is."""


def timed_us(call: Callable[[], object]) -> float:
    """Microseconds that one call takes."""
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e3


def stretch(question: Callable[[int], Callable[[], object]], seconds: float) -> dict[str, float]:
    """Asks question 0, 1, 2, ... until the time is over. What `question` does itself is not timed, only its result.

    `cores` is processor time divided by wall time: above 1 the database used more threads than the one that asks.
    """
    latencies_us: list[float] = []
    cpu_started, started = time.process_time(), time.perf_counter()
    while True:
        latencies_us.append(timed_us(question(len(latencies_us))))
        wall = time.perf_counter() - started
        if wall >= seconds and len(latencies_us) >= FEWEST:
            break
    p50, p95 = np.percentile(latencies_us, [50, 95])
    return {
        "qps": len(latencies_us) / (sum(latencies_us) / 1e6),
        "p50_us": float(p50),
        "p95_us": float(p95),
        "cores": (time.process_time() - cpu_started) / wall,
        "asked_count": len(latencies_us),
    }
