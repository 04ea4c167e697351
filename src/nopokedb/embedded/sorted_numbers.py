"""The numbers of an indexed field in memory, sorted: what answers one range after another.

SQLite gives the labels of a range one by one, so a range that a tenth of 100,000 records pass costs about a
millisecond each time its bounds change. Sorted in memory, the same numbers answer by two binary searches. They are
read from the index once it has handed out as many labels for ranges of the field as there are entries: reading them
all then costs no more than what was spent already. Like all that filters keep, they speak of labels, whose meaning
never changes, so they stay right; of newer labels they know nothing.
"""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.storage.metadata import Labels, MetadataReader
from nopokedb.filters import Range, Test, range_of

_EXACT_INT = 2**53
"""Up to here float64 holds every int."""
_GROWTH = 0.25
"""With so many newer labels as a share of the known ones, the numbers are read again."""
_MIN_NEW = 2_048


class SortedNumbers:
    """The numbers of one field, ascending, and the label that has each, for the labels below `known`."""

    def __init__(self, values: npt.NDArray[np.float64], labels: npt.NDArray[np.uint32], known: int) -> None:
        self._values = values
        self._labels = labels
        self.known = known

    @property
    def size_bytes(self) -> int:
        return self._values.nbytes + self._labels.nbytes

    def passing(self, bounds: Range) -> Labels:
        """The labels that have a number within the bounds, in no order, some perhaps more than once."""
        _, low, high = range_of(bounds)
        start = 0 if low is None else int(np.searchsorted(self._values, low, "right" if bounds.above else "left"))
        stop = len(self._values)
        if high is not None:
            stop = int(np.searchsorted(self._values, high, "left" if bounds.below else "right"))
        return self._labels[start : max(start, stop)].astype(np.int64)


class NumberCache:
    """`SortedNumbers` by field, made when they are worth it. Any number of threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, ...], SortedNumbers] = {}
        self._looked: Counter[tuple[str, ...]] = Counter()
        """Labels that the index of a field has handed out for ranges."""
        self._refused: set[tuple[str, ...]] = set()

    @property
    def size_bytes(self) -> int:
        return sum(numbers.size_bytes for numbers in [*self._kept.values()])

    def matching(self, test: Test, start: int, stop: int, reader: MetadataReader) -> tuple[Labels, str]:
        """As `MetadataReader.matching`: the labels in [start, stop) that pass, and what said so: "index", "sorted
        numbers" or "scan"."""
        path = test.path
        if path is None or test.operator != "range" or not _comparable(test.operand):
            labels, indexed = reader.matching(test, start, stop)
            return labels, "index" if indexed else "scan"
        numbers = self._numbers(path, stop, reader)
        if numbers is None or start >= numbers.known:
            labels, indexed = reader.matching(test, start, stop)
            if indexed:
                with self._lock:
                    self._looked[path] += len(labels)
            return labels, "index" if indexed else "scan"
        labels = numbers.passing(test.operand)
        labels = labels[(labels >= start) & (labels < stop)] if start or stop < numbers.known else labels
        if numbers.known < stop:
            newer, _ = reader.matching(test, numbers.known, stop)
            labels = np.concatenate([labels, newer])
        return labels, "sorted numbers"

    def _numbers(self, path: tuple[str, ...], stop: int, reader: MetadataReader) -> SortedNumbers | None:
        """What is known of the field, read from its index if that is worth it by now."""
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None:
                if stop - kept.known <= max(_MIN_NEW, _GROWTH * kept.known):
                    return kept
                del self._kept[path]
                self._looked[path] = stop  # it was worth it before
            if path in self._refused or self._looked[path] < stop:
                return None
            self._looked[path] = 0  # whatever comes of it
        found = reader.numbers(path, stop)
        if found is None:
            return None
        values, labels = found
        if any(isinstance(value, int) and not -_EXACT_INT <= value <= _EXACT_INT for value in values):
            with self._lock:
                self._refused.add(path)
            return None
        made = SortedNumbers(np.array(values, np.float64), np.array(labels, np.uint32), stop)
        with self._lock:
            self._kept[path] = made
        return made

    def drop_one(self) -> bool:
        """Give the memory of one field back. False: there is none."""
        with self._lock:
            if not self._kept:
                return False
            del self._kept[next(iter(self._kept))]
            return True


def _comparable(bounds: Range) -> bool:
    """Whether comparing with float64 numbers is exact."""
    return all(
        bound is None
        or (isinstance(bound, int | float) and (isinstance(bound, float) or -_EXACT_INT <= bound <= _EXACT_INT))
        for bound in (bounds.low, bounds.high)
    )
