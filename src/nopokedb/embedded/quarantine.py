"""`quarantine-<n>/`: where a repair puts what it cannot save. Nothing of it is read again, and nothing is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nopokedb.embedded.storage.files import sync_folder


class Quarantine:
    """One repair's folder, made when the first thing goes in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 1 + max(
            (int(path.name[11:]) for path in folder.glob("quarantine-*") if path.name[11:].isdigit()), default=0
        )
        self._lines: dict[str, list[bytes]] = {}
        self._rows: list[np.ndarray[Any, Any]] = []

    @property
    def path(self) -> Path:
        return self._folder / f"quarantine-{self._number}"

    def _made(self) -> Path:
        self.path.mkdir(exist_ok=True)
        return self.path

    def copy(self, path: Path) -> None:
        """Keep the file's bytes as they are now; the file itself stays."""
        target = self._made() / path.name
        if not target.exists():
            target.write_bytes(path.read_bytes())

    def move(self, path: Path) -> None:
        """Take the file out of the collection."""
        place = self._made() / path.parent.relative_to(self._folder)
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)

    def note(self, name: str, line: dict[str, Any]) -> None:
        """Add a line to a JSONL file."""
        self._lines.setdefault(name, []).append(orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS))

    def vector(self, row: int, label: int | None, raw: np.ndarray[Any, Any]) -> None:
        """Keep a damaged vector: its bytes as they are in `vectors.npy`, its row and label in `vectors.jsonl`."""
        self.note("vectors.jsonl", {"position": len(self._rows), "row": row, "label": label})
        self._rows.append(np.array(raw))

    def finish(self) -> None:
        """Write what was collected, durably."""
        for name, lines in self._lines.items():
            (self._made() / name).write_bytes(b"\n".join(lines) + b"\n")
        if self._rows:
            np.save(self._made() / "vectors.npy", np.stack(self._rows), allow_pickle=False)
        if self.path.exists():
            sync_folder(self.path)
            sync_folder(self._folder)
