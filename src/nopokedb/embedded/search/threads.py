"""How many threads native code may take, which is not many after a fork.

OpenMP keeps a pool of threads for each thread that has used it. A fork copies the pool and not its threads: whatever
the forked thread then computes in parallel waits for ever (GNU libgomp). There it computes by itself; threads that are
started later get pools of their own.
"""

from __future__ import annotations

import os
import threading

import faiss

_forked: int | None = None
"""The thread in which this process began, if it began by a fork."""


def usable_threads(wanted: int) -> int:
    """As many as wanted, or one where more would hang."""
    return 1 if _forked is not None and threading.get_ident() == _forked else wanted


def _after_fork_in_child() -> None:
    global _forked
    _forked = threading.get_ident()
    faiss.omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
