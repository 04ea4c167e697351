"""The background scrub: every vector that a record uses is compared with its checksum now and then.

Vectors that a query returns are always compared. One that is damaged may still be *missed*: its distance is computed
from wrong bytes, so it may not be among the nearest. The scrub finds such rows in idle time, a slice at a time; from
then on queries that could miss one raise `CorruptionError` until the record is replaced or deleted, or the folder is
repaired.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nopokedb.embedded.check import damaged_vectors
from nopokedb.errors import CorruptionError

if TYPE_CHECKING:
    from nopokedb.embedded.snapshot import Snapshot

SLICE_BYTES = 4 * 2**20
"""One slice takes about 2 ms, read from memory."""
SLICE_PAUSE_S = 0.25
"""Between two slices: at most 16 MiB are read in a second, and one core is busy for less than a hundredth of it."""
IDLE_S = 0.5
"""A slice is only taken when nothing was written for so long."""
PASS_PAUSE_S = 24 * 3600.0
"""Between two passes over all rows."""


class Scrub:
    """The progress of one handle's scrub, and the damaged rows it knows. One thread steps; any thread may ask."""

    def __init__(self) -> None:
        self._next_row = 0
        self._finished_at: float | None = None
        self.damaged: frozenset[int] = frozenset()
        self.passes = 0

    def due(self, snapshot: Snapshot) -> bool:
        """Whether there is a slice to take: a pass is running, or the last one was long ago."""
        if not snapshot.row_count:
            return False
        return self._finished_at is None or time.monotonic() - self._finished_at >= PASS_PAUSE_S

    def step(self, snapshot: Snapshot) -> None:
        """Compare the next slice of rows that a record uses."""
        width = snapshot.vectors.shape[1] * 4
        start = min(self._next_row, snapshot.row_count)
        stop = min(start + max(1, SLICE_BYTES // width), snapshot.row_count)
        found = [
            row
            for row in damaged_vectors(snapshot.vectors[start:stop], snapshot.rows["crc"][start:stop], start)
            if row in snapshot.live_rows
        ]
        # Rows of this slice that are sound now, or that nobody uses any more, are taken off the list.
        outside = {row for row in self.damaged if not start <= row < stop}
        self.damaged = frozenset(outside.union(found))
        self._next_row = stop
        if stop >= snapshot.row_count:
            self._next_row, self._finished_at = 0, time.monotonic()
            self.passes += 1

    def raise_if_damaged(self, snapshot: Snapshot) -> None:
        """Raise if a row is damaged that a query of this snapshot might have to find."""
        if not self.damaged:
            return
        for row in sorted(self.damaged):
            if row < snapshot.row_count and row in snapshot.live_rows:
                offset = row * snapshot.vectors.shape[1] * 4
                file = str(snapshot.store.vectors.path)
                raise CorruptionError(
                    f"the vector in row {row} is damaged: {file} at byte {offset}. A query might miss it, so "
                    "none is answered; close the folder and run `nopokedb check --repair`, or replace the record",
                    file=file,
                    offset=offset,
                )

    def begin_anew(self) -> None:
        """Rows have got other numbers: a new generation is in use."""
        self._next_row, self._finished_at, self.damaged = 0, None, frozenset()

    def progress(self, snapshot: Snapshot) -> float:
        """Share of the rows that the running pass has compared; 1.0 when it is over."""
        if self._finished_at is not None and not self._next_row:
            return 1.0
        return min(1.0, self._next_row / max(1, snapshot.row_count))
