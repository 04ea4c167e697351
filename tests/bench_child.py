"""A child process for the test of the benchmarks' conversation."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from bench.conversation import serve


def double(number: int) -> int:
    """Twice the number, and some noise."""
    print("noise")
    return 2 * number


def actions() -> dict[str, Callable[..., Any]]:
    """What may be asked for, unless the test wants it to be missing."""
    if "--broken" in sys.argv:
        raise ModuleNotFoundError("No module named 'faster'")
    return {"double": double, "fail": lambda: 1 / 0, "leave": lambda: os._exit(3)}


if __name__ == "__main__":
    serve(actions)
