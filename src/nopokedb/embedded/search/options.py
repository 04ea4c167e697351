"""What the builders of all segment kinds may be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Stopped(Exception):
    """A build was given up because `should_stop` said so."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """One build."""

    space: str
    M: int = 16
    ef_construction: int = 200
    fine: bool = False
    """scan: twice the code size, for data that the coarse codes cannot tell apart."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked now and then by builds that take long."""

    def raise_if_stopped(self) -> None:
        if self.should_stop():
            raise Stopped
