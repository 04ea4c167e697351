"""A reader of texts that counts what is read of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nopokedb import NoPokeDB
from nopokedb.embedded.storage.metadata import MetadataReader
from nopokedb.embedded.text_view import TextView
from nopokedb.text_query import parse_text_query as parse


class Watched:
    """The collection's reader; remembers from which labels texts were asked for."""

    def __init__(self, reader: MetadataReader) -> None:
        self.reader = reader
        self.starts: list[int] = []

    def texts_between(self, start: int, stop: int) -> Iterator[list[tuple[int, str]]]:
        self.starts.append(start)
        return self.reader.texts_between(start, stop)


def reader_of(db: NoPokeDB) -> MetadataReader:
    return db._engine.snapshot().store.reader  # type: ignore[attr-defined, no-any-return]


def find(view: TextView, db: NoPokeDB, text: str, limit: int = 10) -> list[int]:
    """The labels of the answers, best first."""
    snapshot, at = view.at(db._engine.snapshot)  # type: ignore[attr-defined]
    labels, scores = at.search(parse(text), limit)
    assert all(label in snapshot.live for label in labels.tolist())
    assert np.all(np.diff(scores) <= 0)
    return labels.tolist()  # type: ignore[no-any-return]
