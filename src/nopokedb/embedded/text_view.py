"""A text index that equals the live texts of a snapshot: read-your-writes full-text search.

The index is a view of the records. Nothing is written to it when records are written; the first search after a write,
or the background thread before it, reads the new texts from the records and commits them: from 10 ms for one text to
13 ms for 100 in a folder, where tantivy syncs its files, and 3 to 7 ms in memory. Deletes alone cost no commit; they
are masked until enough have gathered.

Why the labels make this simple: a label never changes its meaning, so catching up is adding the texts of the labels
in [label_count before, label_count now) that are live, and retiring those that are in the index but no longer live.

`save` keeps the state of a moment for the next open (see `text_files`). It is not done on every commit, which would
double its time: a crash then costs reading the texts since the last save again, about 40,000 a second.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nopokedb.distribution import install_hint
from nopokedb.embedded.search.text import Labels, Mask, Scores, TextIndex, TextSearcher
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.text_files import Saved, TextFiles, Unusable
from nopokedb.errors import ClosedError, NoPokeError
from nopokedb.text_query import TextQuery

_log = logging.getLogger("nopokedb")

BULK_TEXTS = 20_000
"""From so many labels on the writer gets 128 MB, which makes fewer and larger segments."""
MASKED_LABELS = 1_024
"""So many retired labels are masked in each search (5 µs) before a commit removes them."""
RETIRED_SHARE = 0.2
"""BM25 goes by statistics that count retired documents until tantivy merges them away. At this share of retired ones
the background thread builds a new index; the average length and the rarity of words stay right to about a fifth."""
_URGENT_RETIRED_SHARE = 0.5
"""Without a background thread (read-only handles) the next search builds it."""
_DETACH_S = 1.0
"""So long the change to another engine, for which writers wait, waits for who brings the index up to date just now."""
_NO_LABELS = np.empty(0, np.int64)


class TextReader(Protocol):
    """Where the texts are: `MetadataReader`."""

    def texts_between(self, start: int, stop: int) -> Iterator[list[tuple[int, str]]]:
        """The texts of the labels in [start, stop), ascending, in pages."""


@dataclass(frozen=True, slots=True)
class TextAt:
    """The texts of one snapshot. Published whole, by assigning one attribute."""

    lsn: int
    label_count: int
    live: Bitmap
    """The live set of that lsn: its chunks, by identity, tell what the next snapshot has changed."""
    indexed: Bitmap
    """Labels in the index, the masked ones included."""
    masked: Labels
    """Labels that the searcher still finds, but that are not live any more; ascending."""
    searcher: TextSearcher

    def search(
        self, query: TextQuery, limit: int, mask: Mask | None = None, labels: Labels | None = None
    ) -> tuple[Labels, Scores]:
        """The best matches among the live texts; `mask` and `labels` as `TextSearcher.search` takes them."""
        mask = _both(self.masked, mask) if len(self.masked) else mask
        return self.searcher.search(query, limit, mask, labels)


def text_identity(collection: int, generation: int) -> int:
    """What the index of one generation is told by: labels mean nothing in another one."""
    return (collection + (generation - 1) * 0x9E3779B97F4A7) % 2**53


class TextView:
    """The text index of one collection (of one generation). Any number of threads may search it.

    `folder` is the collection's folder, in which `text/` is created; None keeps the index in memory, for handles that
    must not write. `identity` tells collections and generations apart. Everything is done at the first use.
    """

    def __init__(self, folder: Path | None, language: str, reader: TextReader, identity: int = 0) -> None:
        if importlib.util.find_spec("tantivy") is None:
            raise ImportError("full-text search needs an extra: " + install_hint("text"), name="tantivy")
        self.notes: list[str] = []
        """What was found wrong with saved files, and that they were built anew."""
        self._reader = reader
        self._language = language
        self._files = None if folder is None else TextFiles(folder / "text", language, identity)
        self._lock = threading.Lock()  # one thread at a time changes the index
        self._state: TextAt | None = None
        self._index: TextIndex | None = None
        self._work: Path | None = None
        self._saved_lsn = -1
        self._closed = False

    def successor(self, reader: TextReader, identity: int) -> TextView:
        """The view of the next generation, beside this one: nothing that was saved before it is taken for its own."""
        view = TextView(None, self._language, reader)
        view._files = None if self._files is None else self._files.successor(identity)
        return view

    @property
    def lsn(self) -> int | None:
        """The lsn that the index equals; None before the first use and after an error."""
        state = self._state
        return None if state is None else state.lsn

    def at(self, take_snapshot: Callable[[], Snapshot]) -> tuple[Snapshot, TextAt]:
        """A snapshot and its texts: sees every write that returned before the call.

        `take_snapshot` may be called twice, the second time under the view's lock. Raises OSError if the index cannot
        be written (a full disk), CorruptionError if a text is damaged; the next call starts from the records again.
        """
        return self._caught_up(take_snapshot)

    def highlight(self, query: TextQuery, texts: list[str]) -> list[str]:
        """The best fragment of each text, see `Highlighter.highlight`."""
        from nopokedb.embedded.search.analysis import Analyzer
        from nopokedb.embedded.search.highlight import Highlighter

        index = self._index
        highlighter = Highlighter(query, Analyzer(self._language) if index is None else index.analyzer)
        return [highlighter.highlight(text) for text in texts]

    def catch_up(self, snapshot: Snapshot) -> None:
        """Bring the index to this snapshot ahead of the next search, waiting for merges, and build it anew if too many
        of its documents are retired. Does nothing if it is there already. For the background thread."""
        with self._lock:
            state = self._state
            if state is None or state.lsn < snapshot.lsn:
                state = self._advanced(snapshot)
            state = self._rested(state)  # an idle writer would hold six threads
        if state.lsn == snapshot.lsn and _retired_share(state) > RETIRED_SHARE:
            self._renew(snapshot)

    def save(self, durable_lsn: int) -> bool:
        """Keep the present state for the next open. Called once everything up to `durable_lsn` survives a power cut;
        False if the view is further than that: its labels might be given to other records after a cut."""
        with self._lock:
            state = self._state
            if self._files is None or self._work is None or state is None:
                return True
            if state.lsn > durable_lsn:
                return False
            if state.lsn != self._saved_lsn:
                state = self._rested(state)
                self._files.save(self._work, Saved(state.lsn, state.label_count, state.indexed))
                self._saved_lsn = state.lsn
            return True

    def close(self) -> None:
        """End the writer and its threads. Searches that run go on; later ones, and those that wait for the index to be
        built, raise ClosedError."""
        self._closed = True  # before the lock: a long build looks at it after each page
        with self._lock:
            self._discard()

    def detached(self, last: Snapshot) -> TextView:
        """Close this view, and let go of the folder, which somebody else is going to own. The one returned answers
        from what is indexed here, brought up to the `last` snapshot; if that is far off or fails, from an index in
        memory that the first question makes."""
        successor = TextView(None, self._language, self._reader)
        if self._lock.acquire(timeout=_DETACH_S):  # a build of all texts is not waited for
            try:
                state = self._state
                if state is not None and last.label_count - state.label_count <= BULK_TEXTS:
                    successor._state = self._advanced(last) if state.lsn < last.lsn else state
            except (OSError, NoPokeError) as error:
                _log.warning(
                    "the text index of before is made anew in memory: %s", error, extra={"event": "text_index_behind"}
                )
            finally:
                self._lock.release()
        self.close()
        return successor

    def drop(self) -> None:
        """Close and remove what was saved."""
        self.close()
        if self._files is not None:
            self._files.forget_saved()

    # --- keeping up: everything below is called under the lock -------------------------------------------------

    def _caught_up(self, take_snapshot: Callable[[], Snapshot]) -> tuple[Snapshot, TextAt]:
        snapshot, state = take_snapshot(), self._state
        if state is not None and state.lsn == snapshot.lsn and not self._closed:
            return snapshot, state  # the common case takes no lock
        with self._lock:
            # Taken again: another thread may have brought the index past the first one while this one waited.
            snapshot, state = take_snapshot(), self._state
            if state is None or state.lsn < snapshot.lsn or self._closed:
                state = self._advanced(snapshot)
            if state.lsn > snapshot.lsn:
                raise ValueError(
                    f"expected a snapshot at lsn {state.lsn} or later, got one at {snapshot.lsn}; an older one needs a "
                    "view of its own"
                )
            if _retired_share(state) > _URGENT_RETIRED_SHARE:
                state = self._build(snapshot)
            return snapshot, state

    def _advanced(self, snapshot: Snapshot) -> TextAt:
        """The state at this snapshot, published."""
        if self._closed:
            raise ClosedError("the text index is closed")
        state = self._state
        if state is None or self._index is None:  # none, or one that answers for `last` only (`detached`)
            state = self._opened(snapshot)
            if state is None:
                return self._build(snapshot)
        index = self._index
        assert index is not None
        masked = np.union1d(state.masked, state.indexed.missing_from(snapshot.live, before=state.live))
        searcher, indexed = state.searcher, state.indexed
        with self._whole_or_discarded():
            added = self._add(index, state.label_count, snapshot)
            if len(added) or len(masked) > MASKED_LABELS:
                if len(masked):
                    index.retire(masked)
                searcher = index.commit()
                indexed, masked = indexed.changed(added, masked), _NO_LABELS
        return self._publish(TextAt(snapshot.lsn, snapshot.label_count, snapshot.live, indexed, masked, searcher))

    def _add(self, index: TextIndex, start: int, snapshot: Snapshot) -> Labels:
        """Add the live texts of the labels from `start` on; their labels."""
        added: list[int] = []
        live, bulk = snapshot.live, snapshot.label_count - start >= BULK_TEXTS
        for page in self._reader.texts_between(start, snapshot.label_count):
            if self._closed:
                raise ClosedError("the text index is closed")
            wanted = [document for document in page if document[0] in live]
            if wanted:
                index.add(wanted, bulk=bulk)
                added += [label for label, _ in wanted]
        return np.array(added, np.int64)

    def _rested(self, state: TextAt) -> TextAt:
        """The same state with all merges done and no writer."""
        index = self._index
        assert index is not None
        with self._whole_or_discarded():
            index.rest()
        return self._publish(replace(state, searcher=index.searcher))

    def _opened(self, snapshot: Snapshot) -> TextAt | None:
        """The saved state, if there is one and it fits."""
        if self._files is None:
            return None
        self._files.remove_leftovers()
        work = self._files.new_work()
        try:
            saved = self._files.load(work)
            if saved is None:
                self._files.drop_work(work)
                return None
            if saved.lsn > snapshot.lsn or saved.label_count > snapshot.label_count:
                raise Unusable(f"it is of lsn {saved.lsn}, the records of {snapshot.lsn}")
            try:
                index = TextIndex(self._language, work)
            except ValueError as error:
                raise Unusable(f"tantivy refuses it ({error})") from error
            if index.searcher.alive_count != saved.indexed.count:
                raise Unusable(f"it has {index.searcher.alive_count} texts instead of {saved.indexed.count}")
        except Unusable as unusable:
            self.notes.append(f"the text index is built anew: {unusable}")
            self._files.drop_work(work)
            self._files.forget_saved()
            return None
        except BaseException:
            self._files.drop_work(work)
            raise
        self._index, self._work, self._saved_lsn = index, work, saved.lsn
        masked = saved.indexed.missing_from(snapshot.live)
        return self._publish(TextAt(saved.lsn, saved.label_count, snapshot.live, saved.indexed, masked, index.searcher))

    def _build(self, snapshot: Snapshot) -> TextAt:
        """A new index of all live texts, in use from here on."""
        made = self._made(snapshot)
        self._discard()
        return self._take_over(*made)

    def _made(self, snapshot: Snapshot) -> tuple[TextIndex, Path | None, TextAt]:
        work = None if self._files is None else self._files.new_work()
        index = TextIndex(self._language, work)
        with _reported():
            try:
                added = self._add(index, 0, snapshot)
                index.commit()
                if len(added) >= BULK_TEXTS:
                    index.rest()  # gives its memory back
            except BaseException:
                index.abandon()
                if self._files is not None and work is not None:
                    self._files.drop_work(work)
                raise
        indexed = Bitmap().changed(added, _NO_LABELS)
        state = TextAt(snapshot.lsn, snapshot.label_count, snapshot.live, indexed, _NO_LABELS, index.searcher)
        return index, work, state

    def _take_over(self, index: TextIndex, work: Path | None, state: TextAt) -> TextAt:
        self._index, self._work, self._saved_lsn = index, work, -1
        return self._publish(state)

    def _renew(self, snapshot: Snapshot) -> None:
        """Replace the index by one without retired documents. Built beside the old one, which goes on answering; it may
        then be behind that one, and the next search catches up."""
        index, work, state = self._made(snapshot)
        with self._lock:
            if self._closed:
                index.abandon()
                if self._files is not None and work is not None:
                    self._files.drop_work(work)
                return
            self._discard()
            self._take_over(index, work, state)

    def _publish(self, state: TextAt) -> TextAt:
        self._state = state
        return state

    @contextmanager
    def _whole_or_discarded(self) -> Iterator[None]:
        """After an error half of the changes may be in. The records have them all: the next use makes a whole index."""
        with _reported():
            try:
                yield
            except BaseException:
                self._discard()
                raise

    def _discard(self) -> None:
        """Stop using the index and remove its `work` folder."""
        index, work = self._index, self._work
        self._state = self._index = self._work = None
        self._saved_lsn = -1
        if index is not None:
            index.abandon()
        if self._files is not None and work is not None:
            self._files.drop_work(work)


@contextmanager
def _reported() -> Iterator[None]:
    """tantivy reports a full disk or an ended thread as a ValueError, as if the caller were to blame."""
    try:
        yield
    except ValueError as error:
        raise OSError(f"the text index could not be written: {error}") from error


def _both(masked: Labels, mask: Mask | None) -> Mask:
    """`mask` without the masked labels."""

    def allowed(labels: Labels) -> npt.NDArray[np.bool_]:
        places = np.minimum(np.searchsorted(masked, labels), len(masked) - 1)
        there: npt.NDArray[np.bool_] = masked[places] != labels
        return there if mask is None else there & mask(labels)

    return allowed


def _retired_share(state: TextAt) -> float:
    stored = state.searcher.stored_count
    return 1 - (state.indexed.count - len(state.masked)) / stored if stored else 0.0
