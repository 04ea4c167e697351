"""The process of one database with texts: loads it, and times the kinds of query that it is told to.

Run by the driver as `python -m bench.filters.text NAME DATA FOLDER`.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.conversation import serve
from bench.filters import documents
from bench.filters.documents import QUERY_COUNT
from bench.machine import versions_of
from bench.measure import say
from bench.peers import texting
from bench.scale import K
from bench.timing import stretch

# Kind of query -> has it a vector, has it a text, does only a tenth pass.
KINDS = {
    "vector": (True, False, False),
    "text": (False, True, False),
    "hybrid": (True, True, False),
    "text, a tenth passes": (False, True, True),
    "hybrid, a tenth passes": (True, True, True),
}


class Child:
    """One database and the documents it holds."""

    def __init__(self, name: str, data: Path, folder: Path) -> None:
        self._peer: Any = texting.load(name)
        self._documents = documents.read(data)
        self._folder = folder

    def build(self, round_count: int) -> dict[str, Any]:
        """Loads everything, several times if asked to; medians. The last database stays."""
        loads = []
        for number in range(round_count):
            if number:
                self._peer.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            loads.append(self._peer.load(self._documents, self._folder))
            say(f"  {loads[-1].add_per_s:,.0f} records/s; searchable after {loads[-1].searchable_s:.3f} s")
        texts = self._documents.texts
        return {
            "label": self._peer.label,
            "syncs": self._peer.syncs,
            "parameters": self._peer.parameters(),
            "versions": versions_of(self._peer.packages),
            "count": len(texts),
            "mean_characters": sum(map(len, texts)) / len(texts),
            "add_per_s": statistics.median(each.add_per_s for each in loads),
            "searchable_s": statistics.median(each.searchable_s for each in loads),
            "indexed_s": statistics.median(each.indexed_s for each in loads),
        }

    def _question(self, kind: str, number: int) -> Callable[[], object]:
        has_vector, has_text, tenth = KINDS[kind]
        row = number % QUERY_COUNT
        vector = self._documents.query_vectors[row] if has_vector else None
        text = self._documents.queries[row] if has_text else None
        return partial(self._peer.query, vector, text, K, tenth)

    def open(self) -> dict[str, float]:
        """Opens what was loaded, asks every query once, and reports how many hits each kind finds on average."""
        self._peer.open(self._folder)
        return {
            kind: sum(len(self._peer.ids(self._question(kind, row)())) for row in range(QUERY_COUNT)) / QUERY_COUNT
            for kind in KINDS
        }

    def time(self, kind: str, seconds: float) -> dict[str, float]:
        """Asks queries of one kind until the time is over."""
        return stretch(partial(self._question, kind), seconds)

    def fresh(self, count: int) -> dict[str, float]:
        """Adds single records and looks for each at once; this project only."""
        vectors = self._documents.query_vectors
        pairs = [self._peer.add_and_find_us(vectors[number % QUERY_COUNT]) for number in range(count)]
        added, found = zip(*pairs, strict=True)
        return {"add_us": statistics.median(added), "found_after_add_us": statistics.median(found)}

    def close(self) -> None:
        """Closes the database in its own way."""
        self._peer.close()

    def actions(self) -> dict[str, Callable[..., Any]]:
        """What the driver may ask for."""
        return {each.__name__: each for each in (self.build, self.open, self.time, self.fresh, self.close)}


if __name__ == "__main__":
    serve(lambda: Child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).actions())
