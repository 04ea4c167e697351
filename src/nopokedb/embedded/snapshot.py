"""What a reader sees: one immutable state of the collection.

A snapshot is "the first n labels, this live set, these segments". Files only grow and a label never changes its
meaning, so a snapshot stays right for as long as somebody holds it, whatever writers do meanwhile. It holds the store
of its generation, whose files and connections are given up when no snapshot refers to them any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from nopokedb.embedded.search.segments import Segment
from nopokedb.embedded.storage.bitmap import Bitmap, Bytes
from nopokedb.embedded.storage.columns import Column
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.errors import CorruptionError
from nopokedb.records import Vectors

if TYPE_CHECKING:
    from nopokedb.embedded.store import Store


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state. Published whole, by assigning one attribute."""

    lsn: int
    label_count: int
    row_count: int
    next_auto_id: int
    live: Bitmap
    """Labels that are the current version of their id."""
    live_rows: Bitmap
    """Rows of the live labels."""
    vectors: Vectors
    """Shape (row_count, dim), mapped."""
    rows: npt.NDArray[Any]
    """Norm and CRC of each row, mapped (ROW_TYPE)."""
    row_labels: npt.NDArray[np.uint32]
    """Newest label of each row; may already name one that is newer than this snapshot."""
    labels: Column
    store: Store
    """Where its labels and rows have their meaning."""
    segments: tuple[Segment, ...] = ()
    _bits: dict[tuple[int, int], tuple[Bytes | None, int]] = field(default_factory=dict)

    @property
    def tail_start(self) -> int:
        """First row that no segment covers."""
        return self.segments[-1].stop if self.segments else 0

    @property
    def retired_label_count(self) -> int:
        """How many labels were given and are live no more."""
        return self.label_count - self.live.count

    @property
    def retired_row_count(self) -> int:
        """How many rows no live label owns."""
        return self.row_count - self.live_rows.count

    def labels_of(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """The labels that own these live rows in this snapshot."""
        found: list[int] = self.row_labels[rows].tolist()
        if not found or max(found) < self.label_count:
            return found
        for at, label in enumerate(found):
            while label >= self.label_count:  # a later metadata update shares the row: step back to our version
                label = int(self.labels.view(label + 1)["previous"][label])
            found[at] = label
        return found

    def rows_of(self, labels: list[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of these labels."""
        return self.labels.view(self.label_count)["row"][labels].astype(np.int64)

    def require_rows(self, stored: Sequence[Stored], rows: npt.NDArray[np.int64]) -> None:
        """Raise `CorruptionError` unless these versions are in these rows by their records as well."""
        if [item.row for item in stored] != rows.tolist():
            raise CorruptionError(f"a label names another row: {self.labels.path}", file=str(self.labels.path))

    def verified_vectors(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of these rows, compared with their stored CRC."""
        vectors = self.vectors[rows]
        self.verify(rows, vectors)
        return vectors

    def verify(self, rows: npt.NDArray[np.int64], vectors: Vectors) -> None:
        """Raise `CorruptionError` unless these vectors, read from these rows, have their stored CRC."""
        stored = self.rows["crc"][rows].tolist()
        if (found := list(map(google_crc32c.value, vectors))) != stored:
            at = next(at for at, crc in enumerate(found) if crc != stored[at])
            path, offset = self.store.vectors.path, int(rows[at]) * vectors.shape[1] * 4
            raise CorruptionError(
                f"the vector in row {rows[at]} is damaged: {path} at byte {offset}", file=str(path), offset=offset
            )

    def live_bits(self, start: int, stop: int) -> Bytes | None:
        """The live rows of [start, stop) as a bitmap, None if all are live. `start` is a multiple of 8."""
        return self._live(start, stop)[0]

    def live_count(self, start: int, stop: int) -> int:
        """How many rows of [start, stop) are live."""
        return self._live(start, stop)[1]

    def _live(self, start: int, stop: int) -> tuple[Bytes | None, int]:
        """Both of a range, kept: every query asks for the same few."""
        found = self._bits.get((start, stop))
        if found is None:
            bits = self.live_rows.slice(start, stop)
            count = int(np.bitwise_count(bits).sum())
            found = self._bits[start, stop] = (None if count == stop - start else bits, count)
        return found
