"""Groups that grow together: union-find over the numbers of records, in arrays.

Tarjan, "Efficiency of a Good But Not Linear Set Union Algorithm" (1975). Here many pairs come at once, so trees are
flattened by pointer jumping over the whole array instead of path by path.
"""

from __future__ import annotations

import numpy as np

from nopokedb.insight.blocks import Positions
from nopokedb.records import Id, id_order


class Groups:
    """Ids, numbered as they come, and which of them belong together."""

    def __init__(self) -> None:
        self._numbers: dict[Id, int] = {}
        self._parents: Positions = np.arange(1024)

    def number_all(self, ids: list[Id]) -> Positions:
        """The numbers of these ids; new ones begin as groups of their own."""
        numbers = self._numbers
        found = np.array([numbers.setdefault(id_, len(numbers)) for id_ in ids], np.int64)
        while len(self._parents) < len(numbers):
            self._parents = np.concatenate([self._parents, np.arange(len(self._parents), 2 * len(self._parents))])
        return found

    def apart(self, first: Positions, second: Positions) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of these pairs are not of one group yet."""
        return self._parents[first] != self._parents[second]  # type: ignore[no-any-return]

    def join(self, first: Positions, second: Positions) -> None:
        """Each of these pairs is of one group."""
        while len(first):
            # One pair for each record on either side is enough to join most; the others are looked at again.
            ahead = np.union1d(np.unique(first, return_index=True)[1], np.unique(second, return_index=True)[1])
            for one, other in zip(first[ahead].tolist(), second[ahead].tolist(), strict=True):
                one, other = self._root(one), self._root(other)
                self._parents[max(one, other)] = min(one, other)
            self._flatten()
            apart = self.apart(first, second)
            first, second = first[apart], second[apart]

    def found(self, limit: int) -> list[list[Id]]:
        """The groups of two and more, the largest first and then by the first id, each in id order."""
        members: dict[int, list[Id]] = {}
        roots = self._parents.tolist()
        for id_, number in self._numbers.items():
            members.setdefault(roots[number], []).append(id_)
        groups = [sorted(ids, key=id_order) for ids in members.values() if len(ids) > 1]
        groups.sort(key=lambda ids: (-len(ids), id_order(ids[0])))
        return groups[:limit]

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            number = int(parents[number])
        return number

    def _flatten(self) -> None:
        """Every number points at its root."""
        while True:
            above = self._parents[self._parents]
            if np.array_equal(above, self._parents):
                return
            self._parents = above
