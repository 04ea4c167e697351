"""`Job`: work of a server that takes longer than a request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Job:
    """What became of one piece of work, as of the moment of the answer."""

    id: str
    kind: str
    """"backup", "restore", "check", "compact", "optimize" or "import"."""
    collection: str
    state: Literal["waiting", "running", "done", "failed"]
    created_at: datetime
    ended_at: datetime | None
    progress: float | None
    """Share that is done, 0 to 1, where it is known."""
    result: Any
    """Of one that is done: what the method of the same name answers, as plain JSON."""
    error: str | None
    """Of one that failed: the class of its error, and what it says."""
