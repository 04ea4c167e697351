"""Append-only files of fixed-width entries: entry i stands at i * width, little-endian.

    vectors-G.f32   float32[dim] per row, as given by the user
    rows-G.bin      per row: float64 norm, u32 CRC-32C of the row's bytes in vectors-G.f32, u32 flags (COMPUTED)
    labels-G.bin    per label: u32 row, u32 previous label on the same row (NONE if it is the first)

Entries are written by position, taken from the operation log, never from the file's length, so writing one
again is harmless and recovery simply does. Files only grow, by pwrite: a store through a map into a hole on a
full disk, or a file shortened under a map, would kill the process, while pwrite reports ENOSPC. The map is
read-only. Growth runs ahead of the entries in extents (sparse: a single byte at the new end), so that the map
is renewed a logarithmic number of times.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.storage.files import open_file, sync, write_at
from nopokedb.errors import ClosedError

NONE = 0xFFFF_FFFF
"""No label, no row."""
MAX_ENTRIES = NONE
"""Rows and labels are u32; a collection that reaches this needs a new generation."""

ROW_TYPE = np.dtype([("norm", "<f8"), ("crc", "<u4"), ("flags", "<u4")])
COMPUTED = 1
"""The vector was computed from the text, so a new text may replace it."""
LABEL_TYPE = np.dtype([("row", "<u4"), ("previous", "<u4")])

_MIN_EXTENT = 64 * 1024
_MAX_EXTENT = 64 * 2**20


class Column:
    """One append-only file. `view(n)` is its first n entries, mapped."""

    def __init__(self, path: Path, dtype: np.dtype[Any], *, writable: bool) -> None:
        self.path = path
        self.dtype = dtype
        self._descriptor = open_file(path, os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size
        self._mapped: npt.NDArray[Any] = np.empty(0, dtype)

    def write(self, first: int, entries: npt.NDArray[Any]) -> None:
        """Write entries first, first + 1, ...; OSError when the disk is full."""
        offset = first * self.dtype.itemsize
        end = offset + entries.nbytes
        write_at(self._descriptor, entries.view(np.uint8).reshape(-1).data, offset)
        if end > self._size:
            extent = min(max(_MIN_EXTENT, end // 8), _MAX_EXTENT)
            self._size = -(-(end + extent) // _MIN_EXTENT) * _MIN_EXTENT
            write_at(self._descriptor, b"\0", self._size - 1)

    def view(self, count: int) -> npt.NDArray[Any]:
        """The first `count` entries. Stays valid, also after `close`, as long as the array lives."""
        if count > len(self._mapped):
            self._map()
            if count > len(self._mapped):
                raise EOFError(f"{self.path.name} holds {len(self._mapped)} entries, expected {count}")
        return self._mapped[:count]

    def _map(self) -> None:
        if self._descriptor < 0:
            raise ClosedError(f"{self.path} is closed")
        size = os.fstat(self._descriptor).st_size
        if size:
            mapped = mmap.mmap(self._descriptor, size, access=mmap.ACCESS_READ)
            entries: npt.NDArray[Any] = np.frombuffer(mapped, self.dtype, size // self.dtype.itemsize)
            if len(entries) > len(self._mapped):
                self._mapped = entries

    def sync(self) -> None:
        """Make everything written durable."""
        sync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor; arrays handed out keep their map."""
        descriptor, self._descriptor = self._descriptor, -1  # the number may soon name another file
        if descriptor >= 0:
            os.close(descriptor)
