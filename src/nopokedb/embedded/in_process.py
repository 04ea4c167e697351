"""The engines of this process: what a fork and the end of the program do to them."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nopokedb.embedded.engine import EmbeddedEngine

engines: weakref.WeakSet[EmbeddedEngine] = weakref.WeakSet()
"""Those that are open."""
opening: set[EmbeddedEngine] = set()
"""Those that hold their lock but are not open yet."""
of_parent: list[EmbeddedEngine] = []
"""After a fork, in the child: to close their SQLite connections here could touch the parent's files."""


def _after_fork_in_child() -> None:
    for engine in {*engines, *opening}:
        engine.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    """Close what the program left open, before the interpreter ends under the upkeep threads."""
    for engine in list(engines):
        engine.close()
