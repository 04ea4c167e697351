"""Ranked full-text search over (label, text), by tantivy.

Scores are BM25 (Robertson and Zaragoza 2009; k1 = 1.2, b = 0.75) as tantivy computes them, with document lengths
rounded to one byte. Adds and retirements become visible at `commit`; a `TextSearcher` keeps the state it was made of.

Figures are of 100,000 texts of 8 to 39 words (Zipf's law, 30,000 words) on two busy cores of a server. The ten best
take 0.07 ms (p50) for one word, 0.23 ms for two, 0.43 ms for three and 0.76 ms for five, words drawn as often as
they occur; the first search after opening 0.4 ms. Building takes 2.3 s of one core and 10 MB on disk; stemming is half
of it and `plain`, without which prefixes could only be compared with stems, a third.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from nopokedb.embedded.search.analysis import Analyzer, prepare
from nopokedb.embedded.search.match import PLAIN, TEXT, Match, Matcher
from nopokedb.text_query import TextQuery

if TYPE_CHECKING:
    import tantivy

Labels: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = Callable[[Labels], npt.NDArray[np.bool_]]

_SMALL_HEAP_BYTES = 15_000_000
"""tantivy's minimum; it is filled only as documents come."""
_BULK_HEAP_BYTES = 128_000_000
_SPARE_HITS = 8
"""Asked for beyond the limit, so that the last of a tie is usually seen at once; costs nothing measurable."""
_GROWTH = 8
_NATIVE_HITS_PER_LABEL = 4
"""One label in a native restriction costs as much as about four hits fetched and masked (100,000 documents: 1.4 ms for
100 labels, 5 ms for 1,000, 9 ms for 10,000, against 0.9 ms for 1,000 hits and 8 to 15 ms for 10,000)."""
_RETIRE_AT_ONCE = 10_000


class TextSearcher:
    """One committed state of the index. Any number of threads may search it."""

    def __init__(self, searcher: tantivy.Searcher, matcher: Matcher) -> None:
        import tantivy

        self._searcher = searcher
        self._matcher = matcher
        self._ascending = tantivy.Order.Asc
        self.alive_count: int = searcher.num_docs
        self.stored_count: int = searcher.doc_freq("every", "1")
        """Retired documents included that no merge has dropped yet: the number that BM25's statistics go by."""

    def search(
        self,
        query: TextQuery,
        limit: int,
        allowed: Mask | None = None,
        allowed_labels: Labels | None = None,
    ) -> tuple[Labels, Scores]:
        """The `limit` best documents, or all that match and are allowed; best first, ties by label.

        `allowed` tells for labels which of them may be returned; `allowed_labels` are all that may be, ascending and
        unique. Given both, a label has to pass both.
        """
        match = self._matcher.match(query)
        total = self.alive_count
        if match is None or limit < 1 or not total or (allowed_labels is not None and not len(allowed_labels)):
            return np.empty(0, np.int64), np.empty(0)
        size = limit + _SPARE_HITS
        native = False
        if allowed_labels is not None:
            size = 2 * size * total // len(allowed_labels) if len(allowed_labels) < total else size
            native = size >= _NATIVE_HITS_PER_LABEL * len(allowed_labels)
        while True:
            if native and allowed_labels is not None:
                match = Match(self._matcher.labels(match.query, allowed_labels.tolist()), match.constant)
                size, allowed_labels, native = min(size, len(allowed_labels)), None, False
            labels, scores = self._fetch(match, min(size, total))
            ended = len(labels) < size
            kept = np.ones(len(labels), np.bool_) if allowed is None else allowed(labels)
            if allowed_labels is not None:
                places = np.searchsorted(allowed_labels, labels)
                kept = kept & (allowed_labels[np.minimum(places, len(allowed_labels) - 1)] == labels)
            if ended or self._settled(match, scores, scores[kept], limit):
                labels, scores = labels[kept], scores[kept]
                order = np.lexsort((labels, -scores))[:limit]
                return labels[order], scores[order]
            size *= _GROWTH
            native = allowed_labels is not None and min(size, total) >= len(allowed_labels)

    def _settled(self, match: Match, scores: Scores, kept: Scores, limit: int) -> bool:
        """Whether no document further down belongs among the first `limit`. Within a segment tantivy breaks ties by
        label, because segments are sorted so; between segments it does not: then the whole tie has to be here."""
        if len(kept) < limit:
            return False
        return match.constant or self._searcher.num_segments == 1 or bool(scores[-1] < kept[limit - 1])

    def _fetch(self, match: Match, count: int) -> tuple[Labels, Scores]:
        searcher = self._searcher
        if match.constant:
            found = searcher.search(match.query, count, False, order_by_field="label", order=self._ascending).hits
            return np.array([label for label, _ in found], np.int64), np.ones(len(found))
        found = searcher.search(match.query, count, False).hits
        labels = searcher.fast_field_values("label", [address for _, address in found])
        return np.array(labels, np.int64), np.array([score for score, _ in found], np.float64)


class TextIndex:
    """The index, in a folder (which holds what an earlier one left there) or in memory.

    One thread at a time may change it. The writer and its six threads exist from the first change to `rest`; opening
    one takes 0.5 ms, a twentieth of a commit.
    """

    def __init__(self, language: str, folder: Path | None = None) -> None:
        import tantivy

        self._new_document = tantivy.Document
        self._term_set = tantivy.Query.term_set_query
        self.analyzer = Analyzer(language)
        self._plain = language != "none"
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("label", indexed=True, fast=True)
        builder.add_text_field(TEXT, tokenizer_name="terms")
        builder.add_text_field("every", tokenizer_name="raw", index_option="basic")
        if self._plain:
            builder.add_text_field(PLAIN, tokenizer_name="plain", index_option="basic")
        self._schema = builder.build()
        # Sorted by label, so that ties within a segment come in the order of labels.
        self._index = tantivy.Index(self._schema, None if folder is None else str(folder), sort_by_field="label")
        # The default, reloading by itself after each commit, races with our own reload for a lock that is tried again
        # only every 100 ms (seen: 104 ms for a commit that takes 2.5 ms).
        self._index.config_reader("manual")
        self._index.register_tokenizer("terms", self.analyzer.terms)
        self._index.register_tokenizer("plain", self.analyzer.plain)
        self._matcher = Matcher(self.analyzer, self._schema)
        self._writer: tantivy.IndexWriter | None = None
        self._bulk = False
        self.searcher = self._current()
        _indexes.add(self)

    def add(self, documents: Iterable[tuple[int, str]], *, bulk: bool = False) -> int:
        """Add documents with labels that are not in here; how many they were. `bulk` gives the writer more memory."""
        writer = self._open_writer(bulk)
        count = 0
        for label, text in documents:
            # Typed calls only: a value of another type than the schema's ends the writer's thread.
            document = self._new_document()
            document.add_unsigned("label", label)
            text = prepare(text)
            document.add_text(TEXT, text)
            if self._plain:
                document.add_text(PLAIN, text)
            document.add_text("every", "1")
            writer.add_document(document)
            count += 1
        return count

    def retire(self, labels: Labels) -> None:
        """Never return these labels again."""
        writer = self._open_writer(False)
        for start in range(0, len(labels), _RETIRE_AT_ONCE):
            part = labels[start : start + _RETIRE_AT_ONCE].tolist()
            # By query: deletion by an integer term matches nothing in tantivy-py 0.27 (the term gets another type).
            writer.delete_documents_by_query(self._term_set(self._schema, "label", part))

    def commit(self) -> TextSearcher:
        """Make all changes visible; the new `searcher`."""
        if self._writer is not None:
            self._writer.commit()
            self._index.reload()
            self.searcher = self._current()
        return self.searcher

    def rest(self) -> None:
        """Wait for merges and end the writer with its threads. What was not committed is dropped."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.wait_merging_threads()
            self._index.reload()
            self.searcher = self._current()

    def abandon(self) -> None:
        """End the writer and its threads, whatever state it is in. For an index that is not used any more."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.wait_merging_threads()
            except ValueError:
                pass  # it failed before: this is why the index is abandoned

    def _open_writer(self, bulk: bool) -> tantivy.IndexWriter:
        if self._writer is not None and bulk and not self._bulk:
            self._writer.commit()
            self.rest()
        if self._writer is None:
            self._bulk = bulk
            self._writer = self._index.writer(_BULK_HEAP_BYTES if bulk else _SMALL_HEAP_BYTES, 1)
        return self._writer

    def _current(self) -> TextSearcher:
        return TextSearcher(self._index.searcher(), self._matcher)

    def leave_to_parent(self) -> None:
        """After a fork, in the child: the writer's threads exist only in the parent, and ending a writer waits for its
        threads, which panics. So the child's copy is never ended: one reference to it is left over."""
        writer, self._writer = self._writer, None
        if writer is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(writer))


_indexes: weakref.WeakSet[TextIndex] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for index in list(_indexes):
        index.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
