"""Folders of the original nopokedb, as an origin; legacy.py reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nopokedb.errors import ArchiveError
from nopokedb.legacy import LegacyReport, collect
from nopokedb.moving.origin import Origin
from nopokedb.records import Id, Record, Space


class OriginalOrigin(Origin):
    """A folder of nopokedb 0.5.1 or before. Its records are in memory, as they were in the original's."""

    program = "legacy"

    def __init__(self, folder: Path, space: Space | None) -> None:
        super().__init__()
        self.path, self.space = str(folder), space or "cosine"
        report = LegacyReport(self.path, space=self.space)
        _, self._records = collect(folder, self.space, False, report)
        if not report.dim:
            raise ArchiveError(f"expected vectors in {folder}, found none", file=self.path)
        self.dim = report.dim
        self.ids = [*self._records]  # by number, as `collect` has them
        self.refused |= report.refused  # type: ignore[arg-type]  # ids as text
        if self.space == "cosine":
            self.notes.append("lengths of vectors: the original kept them at length 1 under cosine")
        for words, ids in (
            ("vectors without metadata, most likely deleted", report.without_metadata),
            ("metadata whose vectors the original lost", report.without_vector),
        ):
            if ids:
                self.notes.append(f"{len(ids)} {words}: {', '.join(map(str, ids[:20]))}")

    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        return [Record(id_, dict(self._records[id_][1]), self._records[id_][0]) for id_ in ids if isinstance(id_, int)]
