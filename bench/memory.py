"""What a process holds in memory."""

from __future__ import annotations

from pathlib import Path

SMAPS = Path("/proc/self/smaps_rollup")


def anonymous_bytes() -> int:
    """Memory of this process that no file backs, in bytes; 0 where the system does not tell."""
    try:
        lines = SMAPS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:")), 0)
