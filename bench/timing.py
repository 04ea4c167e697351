"""One timed stretch of questions: the smallest thing that a round consists of."""

from __future__ import annotations

import threading
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
    p50, p95, p99 = np.percentile(latencies_us, [50, 95, 99])
    return {
        "qps": len(latencies_us) / (sum(latencies_us) / 1e6),
        "p50_us": float(p50),
        "p95_us": float(p95),
        "p99_us": float(p99),
        "cores": (time.process_time() - cpu_started) / wall,
        "asked_count": len(latencies_us),
    }


def together(work: Callable[[int], object], thread_count: int) -> float:
    """Seconds that `work(0)`, `work(1)`, ... take in threads that start together; raises what one of them raised."""
    gate = threading.Barrier(thread_count + 1)
    failures: list[Exception] = []

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except Exception as error:  # noqa: BLE001  # raised below, in the thread that is listened to
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(thread_count)]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return seconds


def stretch_in_threads(
    question: Callable[[int], Callable[[], object]], seconds: float, thread_count: int
) -> dict[str, float]:
    """The same from several threads that start together, each with other questions; rates are added up.

    Latencies are those of the first thread.
    """
    found: dict[int, dict[str, float]] = {}

    def ask(number: int) -> None:
        found[number] = stretch(lambda asked: question(asked * thread_count + number), seconds)

    together(ask, thread_count)
    return {**found[0], "qps": sum(each["qps"] for each in found.values())}
