"""Near-duplicates: groups of records that a chain of small distances connects.

Single-linkage clusters cut at the threshold. Exactly: all pairs are compared, by matrix products above the engine.
With a recall below 1: the collection's own search names each record's neighbours, and only where a whole list of them
is within the threshold all others are compared.
"""

from __future__ import annotations

import numpy as np

from nopokedb.insight.blocks import Block, Positions, blocks
from nopokedb.insight.groups import Groups
from nopokedb.insight.pairs import Prepared, Within, portions
from nopokedb.reading import Reading
from nopokedb.records import Id, Vectors
from nopokedb.where import Where

_CHUNK_BYTES = 128 * 2**20
"""Vectors and their factors that are held while all others pass by."""
_BLOCK_RECORDS = 4_096
_ASKED = 256
"""Questions of one call."""
_LENGTHS = (16, 128)
"""Lengths of the lists that are asked for, one after the other, while they are full."""


def duplicate_groups(
    db: Reading, space: str, dim: int, threshold: float, where: Where, limit: int, recall: float
) -> list[list[Id]]:
    """See `NoPokeDB.duplicates`."""
    finder = _Finder(db, Within(space, threshold), threshold, where, max(1, _CHUNK_BYTES // (8 * dim)))
    if recall >= 1.0:
        finder.compare_all()
    else:
        finder.ask(recall)
    return finder.groups.found(limit)


class _Finder:
    """One search for duplicates."""

    def __init__(self, db: Reading, within: Within, threshold: float, where: Where, chunk: int) -> None:
        self._db = db
        self._within = within
        self._threshold = threshold
        self._where = where
        self._chunk = chunk
        self.groups = Groups()

    def compare_all(self) -> None:
        """Every record with every later one."""
        for held in blocks(self._db, self._where, self._chunk):
            numbers = self.groups.number_all(held.ids)
            prepared = self._within.prepared(held.vectors)
            self._join(prepared, numbers, prepared, numbers)
            if len(held.ids) == self._chunk:
                self._compare(prepared, numbers, after=held.ids[-1])

    def ask(self, recall: float) -> None:
        """The neighbours of every record, as the collection's search names them; of equal vectors once."""
        crowded: list[tuple[Id, Vectors]] = []
        first_of: dict[bytes, int] = {}
        for block in blocks(self._db, self._where, _ASKED):
            numbers = self.groups.number_all(block.ids)
            new, copies = _sorted_out(block.vectors, numbers, first_of)
            if self._within.copies_are_near:
                originals = [first_of[_digest(block.vectors[at])] for at in copies]
                self.groups.join(numbers[copies], np.array(originals, np.int64))
                copies = []
            full = self._asked(block, numbers, new, recall) if new else []
            crowded += [(block.ids[at], block.vectors[at]) for at in full + copies]
            if len(crowded) >= self._chunk:
                self._compare_crowded(crowded)
                crowded = []
        if crowded:
            self._compare_crowded(crowded)

    def _asked(self, block: Block, numbers: Positions, full: list[int], recall: float) -> list[int]:
        """Join these records of the block with their neighbours; those whose lists had no end."""
        for k in _LENGTHS:
            answers = self._db.query_many(
                block.vectors[full],
                k,
                where=self._where,
                max_distance=self._threshold,
                target_recall=recall,
                include=(),
            )
            counts = [len(answer) for answer in answers]
            near = self.groups.number_all([hit.id for answer in answers for hit in answer])
            self.groups.join(np.repeat(numbers[full], counts), near)
            full = [at for at, count in zip(full, counts, strict=True) if count == k]
            if not full:
                break
        return full

    def _compare_crowded(self, records: list[tuple[Id, Vectors]]) -> None:
        """Those whose neighbours no list named, with all."""
        numbers = self.groups.number_all([id_ for id_, _ in records])
        self._compare(self._within.prepared(np.stack([vector for _, vector in records])), numbers, after=None)

    def _compare(self, held: Prepared, numbers: Positions, after: Id | None) -> None:
        """These records with all, or all behind an id."""
        for block in blocks(self._db, self._where, _BLOCK_RECORDS, after=after):
            self._join(held, numbers, self._within.prepared(block.vectors), self.groups.number_all(block.ids))

    def _join(self, first: Prepared, first_numbers: Positions, second: Prepared, second_numbers: Positions) -> None:
        groups = self.groups
        for row, column, sure in self._within.pairs(first, second):
            apart = groups.apart(first_numbers[row], second_numbers[column])
            row, column = row[apart], column[apart]
            if sure:
                groups.join(first_numbers[row], second_numbers[column])
                continue
            for some, others in portions(row, column):
                apart = groups.apart(first_numbers[some], second_numbers[others])
                some, others = some[apart], others[apart]
                if not len(some):
                    continue
                near = self._within.decided(first, second, some, others)
                groups.join(first_numbers[some[near]], second_numbers[others[near]])


def _sorted_out(vectors: Vectors, numbers: Positions, first_of: dict[bytes, int]) -> tuple[list[int], list[int]]:
    """Where vectors stand that have not come before, and where those that have."""
    new: list[int] = []
    copies: list[int] = []
    for at, number in enumerate(numbers.tolist()):
        (new if first_of.setdefault(_digest(vectors[at]), number) == number else copies).append(at)
    return new, copies


def _digest(vector: Vectors) -> bytes:
    from hashlib import blake2b  # not when the package is imported

    return blake2b(vector.tobytes(), digest_size=16).digest()
