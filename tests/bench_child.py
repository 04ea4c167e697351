"""A child process for the test of the benchmarks' conversation."""

from __future__ import annotations

import os

from bench.conversation import serve


def double(number: int) -> int:
    """Twice the number, and some noise."""
    print("noise")
    return 2 * number


if __name__ == "__main__":
    serve({"double": double, "fail": lambda: 1 / 0, "leave": lambda: os._exit(3)})
