"""The write path: one commit point, one apply.

    write(batch)
      -> under the mutex: resolve ids against applied state and pending frames, append the frame to the log
      -> one waiting thread leads: sync the log (THE commit point), apply all synced frames in lsn order,
         publish the new snapshot (the visibility point), wake the others
      -> return

Threads that append while a leader syncs are served together by the next one, so they share its sync.

A failed append, sync or apply ends the writing of this handle: nothing is retried, because after a failed sync
the kernel may have dropped the pages that it then reports as clean. What had been acknowledged is in the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from nopokedb.embedded.resolve import Pending, Position, Resolver, take_auto_ids, versions_of
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.columns import COMPUTED
from nopokedb.embedded.storage.frames import Frame, encode_frame
from nopokedb.embedded.storage.oplog import LogContent, OplogWriter, read_log
from nopokedb.embedded.store import Store
from nopokedb.engine import Write
from nopokedb.errors import ClosedError, DuplicateIdError, NeedsReopenError, OutcomeUnknownError
from nopokedb.filters import Filter
from nopokedb.records import Id

Drafted: TypeAlias = tuple[Frame, list[Id]]
"""A frame without its lsn, and the ids that it leaves deleted."""


class WritePath:
    """Serialises writers, shares syncs, publishes snapshots."""

    def __init__(
        self,
        store: Store,
        log: OplogWriter,
        dim: int,
        snapshot: Snapshot,
        *,
        durable: bool,
        on_publish: Callable[[Snapshot], None],
        select: Callable[[Filter, Snapshot], list[Id]],
    ) -> None:
        self.log = log
        self.snapshot = snapshot
        """The published state. Readers take this attribute once per call. Its store is the current generation."""
        self.failure: BaseException | None = None
        self.sync_count, self.sync_seconds = 0, 0.0
        """Syncs of the log so far, and how long they took; changed by leaders only."""
        self._dim = dim
        self._resolver = Resolver(store.generation, dim, store.reader)
        self._durable = durable
        self._on_publish = on_publish
        self._select = select
        self._mutex = threading.RLock()  # guards the log's end, the position and the pending frames
        self._position = Position(snapshot.label_count, snapshot.row_count, snapshot.next_auto_id)
        self._pending: list[tuple[Frame, list[Id]]] = []
        """Frames in the log that are not applied yet, with the ids that each leaves deleted."""
        self._versions: Pending = {}
        self._versions_lsn = 0
        """Up to which frame `_versions` was filled: only when somebody has to look into pending frames."""
        self._shut = False
        self._turn = threading.Condition()  # guards leadership
        self._leader: int | None = None
        self._publishing = threading.Lock()  # guards replacing the snapshot

    # --- the path itself ---------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[list[Id] | int]:
        """Write one atomic batch; it is durable and visible when this returns."""
        if writes[0].where is not None:
            return self._write_where(writes[0])
        pending_lsn = 0
        try:
            with self._mutex:
                self.check_usable()
                pending_lsn = self._pending[-1][0].lsn if self._pending else 0
                frame, results, deleted = self._resolve(writes)
                lsn = pending_lsn if frame is None else self._append(frame, deleted)
        except DuplicateIdError:
            self._commit(pending_lsn)  # what this answer rests on may not be durable yet
            raise
        self._commit(lsn)
        return results

    def _resolve(self, writes: Sequence[Write]) -> tuple[Frame | None, list[list[Id] | int], list[Id]]:
        return self._resolver.resolve(
            writes, self._position, self._pending_versions(), self.snapshot, self._computed_at
        )

    def _computed_at(self, row: int) -> bool:
        """Whether the vector of this row, which is in the log, was computed from the text."""
        if row < self.snapshot.row_count:
            return bool(self.snapshot.rows["flags"][row] & COMPUTED)
        for frame, _ in self._pending:
            place = row - frame.first_row
            if 0 <= place < len(frame.vectors):
                return frame.computed is not None and bool(frame.computed[place])
        return False

    def _write_where(self, write: Write) -> list[list[Id] | int]:
        """Write what a filter selects: every batch before is applied first, and none comes between."""
        where = write.where
        assert where is not None
        results: list[list[Id] | int] = []

        def draft(_: Position, snapshot: Snapshot) -> Drafted | None:
            nonlocal results
            ids = self._select(where, snapshot)
            frame, results, deleted = self._resolve([replace(write, ids=ids, count=len(ids), where=None)])
            return None if frame is None else (frame, deleted)

        self.write_drafted(draft)
        return results

    def write_drafted(self, draft: Callable[[Position, Snapshot], Drafted | None]) -> bool:
        """Write the frame that `draft` makes, durable and visible when this returns; False if it makes none.

        `draft` runs while every other writer waits and nothing is pending, so it may rest on the snapshot alone. What
        it raises changes nothing. For the rare batches that speak of labels instead of ids: undo, rollback, repair.
        """
        self.check_usable()
        try:
            self._take_turn(None)
            with self._mutex:
                self.check_usable()
                self._serve_pending()
                drafted = draft(self._position, self.snapshot)
                if drafted is None:
                    return False
                self._append(*drafted)
                self._serve_pending()
        finally:
            self._step_down()
        return True

    def reserve_ids(self, count: int, above: int) -> list[int]:
        """Take automatic ids larger than `above` out of the counter; nobody else gets them from this handle."""
        with self._mutex:
            self.check_usable()
            ids, next_auto_id = take_auto_ids(max(self._position.next_auto_id, above + 1), count)
            self._position = replace(self._position, next_auto_id=next_auto_id)
            return list(ids)

    def _pending_versions(self) -> Pending:
        """Ids written by frames that are not applied yet. A single writer finds none and pays nothing."""
        for frame, deleted in self._pending:
            if frame.lsn > self._versions_lsn:
                self._versions.update(versions_of(frame, deleted))
                self._versions_lsn = frame.lsn
        return self._versions

    def _append(self, frame: Frame, deleted: list[Id]) -> int:
        payload = encode_frame(frame)
        try:
            lsn = self.log.append(payload)
            # From here on the frame's own bytes are what counts, whatever the caller does to the array.
            count, dim = frame.vectors.shape
            vectors = np.frombuffer(payload, "<f4", count * dim, len(payload) - 4 * count * dim)
            self._pending.append((replace(frame, lsn=lsn, vectors=vectors.reshape(count, dim)), deleted))
            self._position = Position(frame.labels.stop, frame.first_row + count, frame.next_auto_id)
        except BaseException as error:
            # Also an interrupt between these steps: the log may have the frame, and no other may follow it.
            self.failure = error
            raise OutcomeUnknownError(
                f"the batch could not be written to the log ({error!r}); it is not acknowledged, and this handle "
                "writes no more: close it and open the folder again"
            ) from error
        return lsn

    def _commit(self, lsn: int) -> None:
        """Return when all frames up to `lsn` are durable, applied and visible."""
        try:
            if self._take_turn(lsn):
                self._serve_pending()
        finally:
            self._step_down()

    def _serve_pending(self) -> None:
        """As the leader: everything appended so far is served together."""
        try:
            with self._mutex:
                frames = [frame for frame, _ in self._pending]
            self._sync_and_apply(frames)
        except BaseException as error:
            self.failure = self.failure or error
            if not isinstance(error, Exception):
                raise  # an interrupt stays one; the handle needs reopening all the same
            raise self._unknown_outcome() from error

    def _take_turn(self, lsn: int | None) -> bool:
        """Wait until `lsn` is published (False), or until nobody leads and this thread does (True)."""
        with self._turn:
            while True:
                if lsn is not None and self.snapshot.lsn >= lsn:
                    return False
                if self.failure is not None:
                    raise self._unknown_outcome() from self.failure
                if self._leader is None:
                    self._leader = threading.get_ident()
                    return True
                self._turn.wait()

    def _step_down(self) -> None:
        """Give up leadership, if this thread has it."""
        with self._turn:
            if self._leader == threading.get_ident():
                self._leader = None
                self._turn.notify_all()

    def _sync_and_apply(self, frames: list[Frame]) -> None:
        if not frames:
            return
        if self._durable:
            began = time.perf_counter()
            self.log.sync(frames[-1].lsn)  # THE commit point
            self.sync_count += 1
            self.sync_seconds += time.perf_counter() - began
        with self._publishing:
            self.snapshot = self.snapshot.store.apply(self.snapshot, frames)  # the visibility point
        self._on_publish(self.snapshot)
        with self._mutex:
            del self._pending[: len(frames)]
            # Applied versions are found in the stores from now on.
            applied = frames[-1].lsn
            if self._versions:
                self._versions = {id_: entry for id_, entry in self._versions.items() if entry[0] > applied}

    # --- for the upkeep ----------------------------------------------------------------------------------

    @contextmanager
    def quiesced(self) -> Iterator[Snapshot]:
        """Hold all writers; every appended frame is synced and applied. Short: writers wait meanwhile."""
        try:
            self._take_turn(None)
            with self._mutex:
                self._sync_and_apply([frame for frame, _ in self._pending])
                yield self.snapshot
        except BaseException as error:
            self.failure = self.failure or error
            raise
        finally:
            self._step_down()

    def switch(self, snapshot: Snapshot) -> None:
        """Go on in another generation, which is in the same state. Inside `quiesced`, so that the log has no frame
        that is not applied, and the next one belongs to the new generation."""
        store = snapshot.store
        self._resolver = Resolver(store.generation, self._dim, store.reader)
        # Automatic ids that were handed out but not used yet stay handed out.
        self._position = Position(snapshot.label_count, snapshot.row_count, self._position.next_auto_id)
        with self._publishing:
            self.snapshot = snapshot

    def held_log(self, after_lsn: int, first_file: int) -> tuple[Snapshot, LogContent]:
        """The state and the log that belongs to it, read while nobody appends: no frame of it is half-written. The
        caller holds checkpoints back."""
        held: list[tuple[Snapshot, LogContent]] = []

        def look(position: Position, snapshot: Snapshot) -> None:
            held.append((snapshot, read_log(self.log.path.parent, after_lsn, first_file=first_file)))

        self.write_drafted(look)
        return held[0]

    def shut(self) -> None:
        """Let no further write in, and return when none is inside. Batches that are in the log are served, unless an
        earlier failure forbids it."""
        with self._turn:
            while self._leader is not None:
                self._turn.wait()
            self._leader = threading.get_ident()
        try:
            with self._mutex:
                self._shut = True
                if self.failure is None:
                    self._sync_and_apply([frame for frame, _ in self._pending])
        except BaseException as error:
            self.failure = self.failure or error
            raise
        finally:
            self._step_down()

    def replace_segments(self, change: Callable[[Snapshot], Snapshot]) -> None:
        """Publish a snapshot with other segments; `change` gets the current one and must be quick."""
        with self._publishing:
            self.snapshot = change(self.snapshot)

    def fail(self, error: BaseException) -> None:
        """Stop writing because something that durability needs has failed."""
        with self._turn:
            self.failure = self.failure or error
            self._turn.notify_all()

    def check_usable(self) -> None:
        """Raise if this handle writes no more."""
        if self._shut:
            raise ClosedError("the database is closed; open it again")
        if self.failure is not None:
            raise NeedsReopenError(
                f"an earlier write failed ({self.failure}), so this handle writes no more; close it and open the "
                "folder again: everything acknowledged is there"
            ) from self.failure

    def _unknown_outcome(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the batch is not acknowledged: making it durable failed ({self.failure}). After closing this handle "
            "and opening the folder again it is there whole or absent"
        )
