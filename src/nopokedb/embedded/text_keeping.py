"""The text index of a handle: made at its first use, kept up to date in pauses, saved for the next open."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.store import Store
from nopokedb.embedded.text_view import TextView

_log = logging.getLogger("nopokedb")


class TextKeeping:
    """Owns the `TextView` on the stores that are open now; another store gets another view.

    `folder` is the collection's, None in handles that must not write: their index lives in memory.
    """

    def __init__(self, folder: Path | None, language: str, identity: Callable[[], int]) -> None:
        self._folder = folder
        self._language = language
        self._identity = identity
        self._lock = threading.Lock()
        self._view: TextView | None = None
        self._store: Store | None = None

    @property
    def notes(self) -> list[str]:
        """What was found wrong with saved files."""
        return [] if self._view is None else self._view.notes

    def view(self, store: Store) -> TextView:
        """The index of this store's texts. Raises ImportError where the extra is missing."""
        with self._lock:
            if self._view is None or self._store is not store:
                if self._view is not None:
                    self._view.close()
                self._view = TextView(self._folder, self._language, store.reader, self._identity())
                self._store = store
            return self._view

    def of_moment(self, store: Store) -> TextView:
        """A view of its own, in memory, for a state that is older than the current one."""
        return TextView(None, self._language, store.reader, self._identity())

    def keep(self, store: Store, snapshot: Snapshot, durable_lsn: int) -> None:
        """For the background thread: bring the index up to date, and save it. One that nobody has asked for in this
        folder is not made."""
        used = self._view is not None or (self._folder is not None and (self._folder / "text").is_dir())
        if not used or importlib.util.find_spec("tantivy") is None:
            return
        try:
            view = self.view(store)
            view.catch_up(snapshot)
            view.save(durable_lsn)
        except OSError as error:  # it is derived: the next query makes it anew, or is told the same
            _log.warning("%s: the text index could not be brought up to date: %s", self._folder, error)

    def close(self, durable_lsn: int | None) -> None:
        """End its threads; save it if the records up to `durable_lsn` are durable."""
        with self._lock:
            if self._view is None:
                return
            try:
                if durable_lsn is not None:
                    self._view.save(durable_lsn)
            except OSError as error:  # the next open makes it anew
                _log.warning("%s: the text index could not be kept: %s", self._folder, error)
            finally:
                self._view.close()
