"""The text index of a handle, from generation to generation: made at the first use, replaced at a switch.

Labels mean nothing in another generation, so each has a view of its own. A compaction makes the next one ahead of the
switch if there is one in use, so that no query has to wait for it. An engine that gets a successor leaves the folder
to that one, and answers on without it.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.store import Store
from nopokedb.embedded.text_files import forget_saved
from nopokedb.embedded.text_view import TextView, text_identity
from nopokedb.errors import ClosedError

_log = logging.getLogger("nopokedb")


class SwitchedError(Exception):
    """A new generation came in the middle of a question; it is asked again."""


class Texts:
    """Owns the text view of the current store. `folder` is None in handles that must not write."""

    def __init__(self, folder: Path | None, language: str, identity: int, current: Callable[[], Store]) -> None:
        self._folder = folder
        self._language = language
        self._identity = identity
        self._current = current
        """The store of the present state."""
        self._lock = threading.Lock()  # one change of what is below at a time
        self._view: TextView | None = None
        self._store: Store | None = None
        self._closed = False
        self._next: tuple[Store, TextView] | None = None
        """Of the generation that a compaction is making."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found wrong with saved files."""
        view = self._view
        return () if view is None else tuple(view.notes)

    def view(self, store: Store) -> TextView:
        """The index of the texts in this store, which is the current one; else `SwitchedError`."""
        with self._lock:
            if self._closed:
                raise ClosedError("the text index is closed")
            if store is not self._current():
                raise SwitchedError
            before = self._view
            if before is None or self._store is not store:
                if before is not None:
                    before.close()
                self._view, self._store = self._made(store, before), store
            assert self._view is not None
            return self._view

    def _made(self, store: Store, before: TextView | None) -> TextView:
        if self._next is not None and self._next[0] is store:  # the switch has just been, and a query comes first
            view, self._next = self._next[1], None
            return view
        identity = text_identity(self._identity, store.generation)
        if before is None:
            return TextView(self._folder, self._language, store.reader, identity)
        return before.successor(store.reader, identity)

    def keep(self, snapshot: Snapshot, durable_lsn: int) -> None:
        """For the background thread: bring the index up to date, and keep it for the next open. One that nobody has
        asked for in this folder is not made."""
        assert self._folder is not None
        used = self._view is not None or (self._folder / "text").is_dir()
        if not used or importlib.util.find_spec("tantivy") is None:
            return
        try:
            view = self.view(snapshot.store)
            view.catch_up(snapshot)
            view.save(durable_lsn)
        except (SwitchedError, ClosedError):  # a new generation has come: the next round looks after that
            return
        except OSError as error:  # it is derived: the next query makes it anew, or is told the same
            _log.warning(
                "%s: the text index could not be brought up to date: %s",
                self._folder,
                error,
                extra={"event": "text_index_behind"},
            )

    def prepare(self, snapshot: Snapshot) -> None:
        """Index the texts of a generation that is not in use yet, if the present one has an index in use."""
        with self._lock:
            before = self._view
        if before is None:
            return
        view = self._made(snapshot.store, before)
        self._next = (snapshot.store, view)
        try:
            view.catch_up(snapshot)
        except OSError as error:  # it is derived: the first query after the switch makes it
            _log.warning(
                "%s: the text index of the new generation was not made: %s",
                self._folder,
                error,
                extra={"event": "text_index_not_made"},
            )
            self.give_up()

    def give_up(self) -> None:
        """The generation that was being made will not be used."""
        with self._lock:
            if self._next is not None:
                self._next[1].close()
                self._next = None

    def switched(self, store: Store) -> None:
        """The generation of this store is in use."""
        assert self._folder is not None
        with self._lock:
            if self._view is not None and self._store is not store:
                self._view.close()
                self._view, self._store = self._made(store, self._view), store
            self._next = None
        try:
            forget_saved(self._folder / "text")
        except OSError as error:  # the next open sees that it is of another generation
            _log.warning(
                "%s: the text index of the generation before stays: %s",
                self._folder,
                error,
                extra={"event": "leftover_stays"},
            )

    def detach(self, last: Snapshot, adopt: Callable[[Texts], object]) -> None:
        """Close this and let go of the folder, which another engine is going to own. What is handed to `adopt`, before
        anybody meets the closed one, writes nothing, and answers for the `last` snapshot; no other comes."""
        successor = Texts(None, self._language, self._identity, self._current)
        with successor._lock, self._lock:
            adopt(successor)
            self._closed = True
            view, self._view = self._view, None
            if view is not None:
                detached = view.detached(last)
                if self._store is last.store:
                    successor._view, successor._store = detached, last.store

    def close(self, durable_lsn: int | None) -> None:
        """Keep the index for the next open if all up to `durable_lsn` survives a power cut, and let go of it."""
        with self._lock:
            if self._view is not None:
                if durable_lsn is not None:
                    self._view.save(durable_lsn)
                self._view.close()
