"""`Insight`: the methods of `NoPokeDB` that look at a whole collection, which a named snapshot has as well.

A part of that class in a file of its own: each checks its arguments and then works with what every engine does, scans
and queries.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nopokedb.errors import InvalidInputError
from nopokedb.insight.duplicates import duplicate_groups
from nopokedb.insight.outliers import Outlier, outliers_of
from nopokedb.insight.plot import draw, plot_kind
from nopokedb.insight.projection import Projection, projection_of
from nopokedb.question import MAX_MEASURED_K, check_recall
from nopokedb.reading import Reading
from nopokedb.records import Id, check_int, shown
from nopokedb.where import Where, parse_filter, parse_path

MAX_DIMS = 1_024
MAX_PLOTTED = 100_000


class Insight(Reading):
    """Duplicates, outliers and a map of one collection."""

    space: str

    if TYPE_CHECKING:

        @property
        def dim(self) -> int: ...

    def duplicates(
        self, threshold: float, *, where: Where = None, limit: int = 1000, target_recall: float = 1.0
    ) -> list[list[Id]]:
        """Groups of near-duplicates: records that are connected by a chain of distances of at most `threshold`.

        Distances are those of `query`. Equal vectors are near-duplicates whatever the threshold, but for dot products,
        under which a vector need not be near itself. By default nothing is missed: every record is compared with every
        other one, which takes time with the square of their number. A `target_recall` below 1 asks the collection's
        search for the neighbours of each record instead: whatever it groups is within the threshold, and a pair is
        missed only if the search names neither as a neighbour of the other and no chain connects them.

        Holds 128 MiB of vectors and their factors (others are read again for each such part), some 200 MiB of products
        and pairs, and about 200 bytes per record, 300 with a `target_recall` below 1. What is written meanwhile may or
        may not be looked at.

        Args:
            threshold: a distance; 0 or more, but under "ip".
            where: a filter; only records that pass it are compared.
            limit: return at most so many groups.
            target_recall: above 0, and at most 1, which means exact.

        Returns: groups of two or more ids, the largest first, then by their first id; each in id order.
        """
        threshold = _check_threshold(threshold, self.space)
        limit = check_int("limit", limit, 1, 2**62)
        recall = check_recall(target_recall)
        parse_filter(where)
        return duplicate_groups(self, self.space, self.dim, threshold, where, limit, recall)

    def outliers(self, count: int = 10, *, k: int = 10, where: Where = None) -> list[Outlier]:
        """The records that are farthest from their k nearest others, by the mean of these distances; exact.

        The score of Angiulli and Pizzuti (2002). Quick searches rule out most records, since their distances bound the
        true ones from above; the others are searched exactly (insight/outliers.py). Holds about 200 bytes per record.
        What is written meanwhile may or may not be looked at.

        Args:
            count: how many to return at most.
            k: neighbours, 1 to 9,999.
            where: a filter; only records that pass it are looked at, as outliers and as neighbours.

        Returns: outliers, the farthest first, ties in id order. A record without any other is none.
        """
        count = check_int("count", count, 1, 2**62)
        k = check_int("k", k, 1, MAX_MEASURED_K - 1)
        parse_filter(where)
        return outliers_of(self, count, k, where)

    def project(self, dims: int = 2, sample: int | None = None, where: Where = None) -> Projection:
        """Where the records lie along the directions in which they differ most (principal components).

        The same records give the same result, signs included. Under cosine vectors are brought to length 1. Reads the
        records twice, and holds 16 MiB of vectors or so, of dim squared numbers three times 8 bytes, and what it
        returns. Beyond 4,096 dimensions the axes are those of at most 2,048 of the records.

        Args:
            dims: directions, 1 to 1,024 and at most dim.
            sample: so many records at most, chosen by chance, but the same ones each time; None: all.
            where: a filter.
        """
        dims = check_int("dims", dims, 1, min(MAX_DIMS, self.dim))
        sample = None if sample is None else check_int("sample", sample, 1, 2**62)
        parse_filter(where)
        return projection_of(self, self.space, self.dim, dims, sample, where, lambda block: None)

    def plot(
        self, path: str | Path, *, color: str | None = None, sample: int | None = 5_000, where: Where = None
    ) -> Projection:
        """Draw a map of the records, by `project`, into a file: a picture (.png, extra "plot"), or one page (.html) in
        which metadata show under the mouse. The page asks nothing of anybody, and what is stored is only text in it.

        Args:
            path: a file that ends in .png or .html; one that is there is replaced.
            color: a field: many different numbers are coloured by size, anything else by value.
            sample: so many records at most, 1 to 100,000.
            where: a filter.

        Returns: what is drawn.
        """
        target, kind = plot_kind(path)
        field = None if color is None else parse_path(color, place="color")
        if color is not None and field is None:
            raise InvalidInputError("expected color to be a field of the metadata, got '$id'")
        sample = check_int("sample", MAX_PLOTTED if sample is None else sample, 1, MAX_PLOTTED)
        parse_filter(where)
        return draw(self, self.space, self.dim, target, kind, field, sample, where)


def _check_threshold(value: Any, space: str) -> float:
    """A finite distance that pairs can have."""
    if not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and (number >= 0 or space == "ip"):
            return number
    words = "a finite number" if space == "ip" else "a number from 0"
    raise InvalidInputError(f"expected threshold to be {words}, a distance under {space!r}, got {shown(value)}")
