"""Threads that work at once, and vectors that say who wrote them when."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

DIM = 8


def vector_of(key: int, version: int) -> np.ndarray:
    return np.random.default_rng([key, version]).standard_normal(DIM).astype(np.float32)


def run_all(*targets: Callable[[], None]) -> None:
    """Run these in threads; the first exception of any fails the test."""
    errors: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
