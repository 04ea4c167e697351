"""Bugs, planted to prove that the instrument finds such. Each replaces functions of the package in the processes of the
instrument; the package itself has no switch.

They are in `plants_in_log.py` and `plants_in_stores.py`. Tried and left out, because they are no bugs: not syncing the
header of a new log file (the first commit syncs it, and without one a log is an unfinished end), and not syncing an
index file (its checksum is compared, and it is built again).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Replace = Callable[[Any, str, Any], None]


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug, and the smallest workload that shows it."""

    patch: Callable[[Replace], None]
    scenario: str
    skip: int
    """Marks of the workload before the first point that is looked at: it cannot show earlier, or shows later too."""
    in_recovery: bool
    """It shows only when a recovery is interrupted."""


_PLANTS: dict[str, Plant] = {}


def plant(
    scenario: str, skip: int = 0, *, in_recovery: bool = False
) -> Callable[[Callable[[Replace], None]], Callable[[Replace], None]]:
    def register(patch: Callable[[Replace], None]) -> Callable[[Replace], None]:
        _PLANTS[patch.__name__] = Plant(patch, scenario, skip, in_recovery)
        return patch

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Within the block the package has this bug."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    try:
        all_plants()[name].patch(put)
        yield
    finally:
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)


def nothing(*_: Any) -> None:
    """In place of a sync."""


def written_unsynced(path: Path, data: bytes) -> None:
    """`write_durably` without its sync."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def all_plants() -> dict[str, Plant]:
    """Every bug by name."""
    from crash import plants_in_log, plants_in_stores

    assert plants_in_log and plants_in_stores  # imported for what they register
    return _PLANTS
