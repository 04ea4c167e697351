"""The rows that an index leaves out, compared with a query by one product.

A graph is calibrated on some hundred rows that it does not contain, and does not grow. Where the k-th best of its list
is known, most of these rows are farther by far, and need no key of their own.
"""

from __future__ import annotations

import math

import numpy as np

from nopokedb.distances import SMALLEST, Doubles, Floats
from nopokedb.embedded.search.exact import Rows, products_with


class Beside:
    """A copy of these rows, in one piece."""

    def __init__(self, space: str, rows: Rows, vectors: Floats) -> None:
        """`vectors` (n, dim) are prepared as those of the index, and moved alike."""
        self._rows = rows
        self._vectors = np.ascontiguousarray(vectors)
        self._by_products = space == "ip"
        squared: Doubles = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        self._halves = (squared / 2.0).astype(np.float32)
        self._longest = math.sqrt(float(squared.max()))

    def within(self, query: Floats, limit: float) -> Rows:
        """The rows whose key may be at most `limit`, between a query (dim,) that was moved alike and these vectors."""
        products = products_with(query, self._vectors)
        length, dim = math.sqrt(float(query @ query)), len(query)
        rounding, smallest = 2e-7 * (8.0 + math.sqrt(dim)), dim * SMALLEST
        if self._by_products:
            least = -limit - rounding * length * self._longest - smallest
        else:  # |a - b|^2 = |a|^2 + |b|^2 - 2 ab
            products -= self._halves
            least = (length * length - limit) / 2.0 - rounding * (length + self._longest) ** 2 - smallest
        return self._rows[~(products < least)]  # what is no number, in a damaged row, is left to its checksum
