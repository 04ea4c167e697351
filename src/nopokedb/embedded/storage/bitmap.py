"""An immutable set of small integers, shared chunk by chunk between versions (copy on write).

The live set is one: the labels that are the current version of their id. A snapshot keeps its version for as
long as somebody reads it; the next one copies only the 8 KB chunks that a batch touches. Bits are least
significant first within bytes, as FAISS' selectors and `numpy.unpackbits(bitorder="little")` read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]

CHUNK_BITS = 1 << 16
_CHUNK_BYTES = CHUNK_BITS // 8


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A set of integers >= 0. Use `changed` to derive the next version."""

    chunks: tuple[Bytes, ...] = ()
    count: int = 0

    def __contains__(self, value: int) -> bool:
        chunk = value >> 16
        return chunk < len(self.chunks) and bool((self.chunks[chunk][(value & 0xFFFF) >> 3] >> (value & 7)) & 1)

    def changed(self, add: npt.NDArray[np.int64], remove: npt.NDArray[np.int64]) -> Bitmap:
        """This set with `add` in it, then `remove` out of it. Both may name members and strangers alike."""
        chunks = list(self.chunks)
        count = self.count
        for values, member in ((add, True), (remove, False)):
            if not len(values):
                continue
            places = values >> 16
            for at in [int(places[0])] if len(values) == 1 else np.unique(places).tolist():
                while len(chunks) <= at:
                    chunks.append(np.zeros(_CHUNK_BYTES, np.uint8))
                chunk = chunks[at]
                if at < len(self.chunks) and chunk is self.chunks[at]:
                    chunk = chunks[at] = chunk.copy()
                if len(values) == 1:
                    count += _set_one(chunk, int(values[0]) & 0xFFFF, member)
                else:
                    count += _set_many(chunk, values[places == at] & 0xFFFF, member)
        return Bitmap(tuple(chunks), count)

    def slice(self, start: int, stop: int) -> Bytes:
        """The bits [start, stop) as contiguous bytes; `start` is a multiple of 8. Padding bits are 0."""
        first, last = start // CHUNK_BITS, -(-stop // CHUNK_BITS)
        parts = list(self.chunks[first:last])
        missing = last - first - len(parts)
        joined = np.concatenate([*parts, np.zeros(missing * _CHUNK_BYTES, np.uint8)]) if parts or missing else None
        if joined is None:
            return np.zeros(0, np.uint8)
        begin = (start - first * CHUNK_BITS) // 8
        out = joined[begin : begin + -(-(stop - start) // 8)].copy()
        if (stop - start) % 8:
            out[-1] &= (1 << ((stop - start) % 8)) - 1
        return out

    def members(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The members in [start, stop), ascending."""
        base = start - start % 8
        bits = np.unpackbits(self.slice(base, stop), bitorder="little", count=stop - base)
        found = np.flatnonzero(bits).astype(np.int64) + base
        return found[found >= start] if base != start else found

    def missing_from(self, other: Bitmap, *, before: Bitmap | None = None) -> npt.NDArray[np.int64]:
        """The members that `other` lacks, ascending. Chunks that `other` shares with `before`, an earlier version of it
        (None: this set), are not looked at: what they lack they have lacked since then."""
        known = (self if before is None else before).chunks
        found = [np.empty(0, np.int64)]
        for at, chunk in enumerate(self.chunks):
            there = other.chunks[at] if at < len(other.chunks) else None
            if there is not None and at < len(known) and there is known[at]:
                continue
            bits = chunk if there is None else chunk & ~there
            if bits.any():
                found.append(np.flatnonzero(np.unpackbits(bits, bitorder="little")) + at * CHUNK_BITS)
        return np.concatenate(found)

    def to_bytes(self) -> bytes:
        """All chunks, concatenated."""
        return b"".join(chunk.tobytes() for chunk in self.chunks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Bitmap:
        """What `to_bytes` wrote."""
        bits = np.frombuffer(data, np.uint8)
        chunks = tuple(bits[at : at + _CHUNK_BYTES] for at in range(0, len(bits), _CHUNK_BYTES))
        return cls(chunks, int(np.bitwise_count(bits).sum()))

    @classmethod
    def of(cls, values: Iterable[int]) -> Bitmap:
        """The set of these integers."""
        return cls().changed(np.fromiter(values, np.int64), np.empty(0, np.int64))


def _set_one(chunk: Bytes, value: int, member: bool) -> int:
    """Set or clear one bit; how much the number of members changes."""
    byte, mask = int(chunk[value >> 3]), 1 << (value & 7)
    if bool(byte & mask) == member:
        return 0
    chunk[value >> 3] = byte ^ mask
    return 1 if member else -1


def _set_many(chunk: Bytes, values: npt.NDArray[np.int64], member: bool) -> int:
    """Set or clear bits; how much the number of members changes."""
    before = int(np.bitwise_count(chunk).sum())
    bits = (1 << (values & 7)).astype(np.uint8)
    if member:
        np.bitwise_or.at(chunk, values >> 3, bits)
    else:
        np.bitwise_and.at(chunk, values >> 3, ~bits)
    return int(np.bitwise_count(chunk).sum()) - before
