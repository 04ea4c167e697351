"""Segments in tests: sizes that a test can afford (the fixture `quick_sealing`), and waiting for them."""

from __future__ import annotations

import threading
import time

from nopokedb import NoPokeDB


def wait_sealed(db: NoPokeDB) -> None:
    """Return when nothing is being sealed or due."""
    deadline = time.monotonic() + 120
    while db.stats().sealing:
        assert time.monotonic() < deadline, "sealing does not end"
        threading.Event().wait(0.01)  # lets the upkeep thread work


def forget_scans(db: NoPokeDB) -> None:
    """Leave only the graphs to segments that have one, so that they are what is asked."""
    for segment in db._engine.snapshot().segments:  # type: ignore[attr-defined]
        segment.scan = None
