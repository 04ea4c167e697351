"""Making and dropping indexes on fields while writing goes on; fields that filters use often get one by themselves."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from nopokedb.embedded.search.options import Stopped
from nopokedb.embedded.storage.metadata import Field, MetadataWriter
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.embedded.write_path import WritePath
from nopokedb.errors import ClosedError
from nopokedb.filters import path_text

_log = logging.getLogger("nopokedb")

_SEARCHES = 8
"""So many different tests of one field for which all records were looked through are a reason to index it."""
_MAX_AUTOMATIC = 8
"""Each index makes writing slower (about 2 us a record), so there is an end to those that nobody asked for."""
_FILL_LABELS = 4_096
"""Records added to a new index at a time (about 20 ms); writers wait as long."""


class FieldIndexes:
    """The indexes of a writing handle."""

    def __init__(self, writes: WritePath, upkeep: Upkeep) -> None:
        self._writes = writes
        self._upkeep = upkeep
        self.lock = threading.Lock()
        """One index at a time is made or dropped, and none while a new generation is made."""
        self._searches: Counter[tuple[str, ...]] = Counter()
        upkeep.add_chore(self._make_wanted)

    @property
    def _writer(self) -> MetadataWriter:
        writer = self._writes.snapshot.store.writer
        assert writer is not None
        return writer

    def create(self, path: tuple[str, ...], *, automatic: bool = False) -> None:
        """Index the field; durable when this returns. Writers wait only while a part is added."""
        with self.lock:
            self._check_open()
            for field in self.fields():
                if field.path == path:
                    if field.automatic and not automatic:
                        with self._writes.quiesced():
                            self._writer.keep_field(field.number)
                        self._make_durable()
                    return
            with self._writes.quiesced() as snapshot:
                number = self._writer.add_field(path, automatic=automatic)
            for start in range(0, snapshot.label_count, _FILL_LABELS):
                self._check_open()  # the next open removes what is there of it
                with self._writes.quiesced():
                    self._writer.fill_field(number, start, min(start + _FILL_LABELS, snapshot.label_count))
            with self._writes.quiesced():
                self._writer.finish_field(number)
            self._make_durable()

    def drop(self, path: tuple[str, ...]) -> bool:
        """Forget the index. False: there is none."""
        with self.lock:
            self._check_open()
            for field in self.fields():
                if field.path == path:
                    with self._writes.quiesced():
                        self._writer.drop_field(field.number)
                    self._make_durable()
                    return True
            return False

    def _make_durable(self) -> None:
        try:
            self._writer.checkpoint()
        except BaseException as error:
            self._writes.fail(error)  # the same sync makes batches durable
            raise

    def _check_open(self) -> None:
        if self._upkeep.stopping:
            raise ClosedError("the database is closed; open it again")

    def wait(self) -> None:
        """For `close`, after the upkeep was told to stop: return when no thread makes or drops an index any more."""
        with self.lock:
            pass

    def fields(self) -> list[Field]:
        """What there is."""
        return self._writes.snapshot.store.reader.fields()

    def notice(self, path: tuple[str, ...]) -> None:
        """A filter has looked through many records for a test of this field."""
        self._searches[path] += 1
        if self._searches[path] == _SEARCHES:
            self._upkeep.wake()

    def _make_wanted(self) -> None:
        """For the background thread: index what filters use often."""
        wanted = [path for path, count in self._searches.items() if count >= _SEARCHES]
        for path in wanted:
            del self._searches[path]
            if sum(field.automatic for field in self.fields()) < _MAX_AUTOMATIC:
                try:
                    self.create(path, automatic=True)
                except ClosedError:
                    raise Stopped from None
                _log.info(
                    "filters use %s often: it has an index now", path_text(path), extra={"event": "field_indexed"}
                )
