"""Compaction: a new generation without what was replaced or deleted, made beside the one in use.

    copy the live records of a snapshot, slice by slice             writers and readers go on
    index the new rows, as the tail is sealed, and the texts        so that answers stay quick
    copy what was written meanwhile, until the rest is small        each round is shorter than the one before
    make all of it durable                                          so that the last step has little to sync
    hold the writers: copy the rest, make it durable, rotate the log,
        rename the manifest                                         THE SWITCH
        go on in the new generation                                 publish the same state with its new numbers
    drop the old log, and the old files once no read uses them

Nothing of the new generation matters before the switch: whatever fails until then, its files are dropped and the
handle goes on. From the rename on nobody can tell which generation the next open will find, so a failure between it
and the end of the switch ends the writing of the handle, as any failed sync does.

No frame is carried over. The new manifest's checkpoint is the lsn of the moment, and the log is rotated in front of
it, so every frame of the old generation is superfluous once the manifest is there, and needed until then.

Labels and rows are numbered in the order of the old labels, so what is ordered by label keeps its order, and label n
has row n until records are updated again.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nopokedb.embedded import named
from nopokedb.embedded.field_indexes import FieldIndexes
from nopokedb.embedded.leftovers import remove_generation, store_files
from nopokedb.embedded.new_generation import NewGeneration
from nopokedb.embedded.search.options import Stopped
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import LABEL_TYPE, ROW_TYPE
from nopokedb.embedded.storage.files import has_room
from nopokedb.embedded.storage.manifest import Manifest, adopt_manifest, prepare_manifest
from nopokedb.embedded.storage.oplog import drop_logs
from nopokedb.embedded.store import Store
from nopokedb.embedded.texts import Texts
from nopokedb.embedded.upkeep import Upkeep
from nopokedb.embedded.write_path import WritePath
from nopokedb.errors import ClosedError, InvalidInputError, NoPokeError

_log = logging.getLogger("nopokedb")

RETIRED_LABELS = 10_000
"""Fewer retired versions are not worth a copy: they cost a scan of all records some 30 ms."""
ASKED_SHARE = 0.1
"""What is retired without `optimize` bothering about it."""
RETIRED_SHARE = 0.5
"""Half of the versions or rows being retired, a copy gives back at least as much as it writes."""
_PAUSE_S, _MAX_WAIT_S = 1.0, 60.0
"""It waits so long for a moment without writes, but no longer than that."""
_LOOK_S, _TIDY_S = 0.1, 1.0
"""How often the background thread looks whether the moment is there, and whether reads have let go of old files."""
_RETRY_GROWTH = 1.5
"""After a failure it is not tried again before the retired versions have grown by this factor."""
FINAL_CHANGES = 512
"""Writers are held for at most so many changed versions (about 10 ms); twice as many at each further attempt, so that
it comes to an end however fast they write."""
_ROOM_BYTES = 2**20
"""Free space that has to remain, beside a tenth of what is written."""


class Compaction:
    """Makes new generations: when asked, and in the background when most versions are retired."""

    def __init__(
        self,
        folder: Path,
        writes: WritePath,
        upkeep: Upkeep,
        fields: FieldIndexes,
        texts: Texts,
        *,
        on_switch: Callable[[], object],
    ) -> None:
        self._folder = folder
        self._writes = writes
        self._upkeep = upkeep
        self._fields = fields
        self._texts = texts
        self._on_switch = on_switch
        """Told that what reads hold of the old generation can go."""
        self._lock = threading.Lock()  # one at a time
        self._old: list[tuple[int, weakref.ref[Store]]] = []
        """Generations whose files are still there, because reads use them."""
        self._due_since: float | None = None
        self._failed_at = 0
        self._noted = ""
        self._kept: tuple[object, int] = (None, 0)
        self._barred = False
        self._barring = 0
        self._unbarred = threading.Event()
        self._unbarred.set()
        upkeep.add_chore(self._look, self._patience)

    def run(self) -> int:
        """Compact now; the bytes given back on disk. Raises what went wrong; nothing has changed then, unless the
        handle needs reopening."""
        with self._lock, self._fields.lock:
            self._writes.check_usable()
            if self._barred:
                return 0
            before = self._writes.snapshot
            kept = named.kept_labels(self._folder, self._upkeep.manifest)
            if not before.retired_row_count and before.retired_label_count == _kept_only(kept, before):
                return 0  # nothing is retired, or nothing that snapshots do not need
            old = before.store
            check_room(self._folder, before, before.vectors[:0].strides[0], "a compaction")
            size = _size_of(self._folder, old.generation)
            started = time.monotonic()
            del before
            new = NewGeneration(self._folder, old, self._upkeep, self._fields, kept)
            try:
                self._fill(new)
                self._switch_when_small(new)
            except BaseException as error:
                if not new.named:
                    self._texts.give_up()
                    new.drop()
                if isinstance(error, Stopped):
                    raise ClosedError("the database was closed during a compaction, which was given up") from None
                raise
            given_back = max(0, size - _size_of(self._folder, new.store.generation))
            self._old.append((old.generation, weakref.ref(old)))
            self._note(f"compacted to generation {new.store.generation}: {given_back} bytes given back")
            _log.info(
                "%s: %s in %.1f s", self._folder, self._noted, time.monotonic() - started, extra={"event": "compacted"}
            )
            assert old.writer is not None
            old.writer.close()
            del old
            self._texts.switched(new.store)
            self._on_switch()
            self._tidy()
        return given_back

    def _note(self, note: str) -> None:
        """Keep the last word only: there may be thousands of compactions."""
        notes = self._upkeep.notes
        if self._noted in notes:
            notes.remove(self._noted)
        notes.append(note)
        self._noted = note

    @contextmanager
    def held(self) -> Iterator[None]:
        """No compaction runs meanwhile: which versions it has to keep does not change under it."""
        with self._lock:
            yield

    @contextmanager
    def barred(self) -> Iterator[None]:
        """No compaction begins meanwhile: somebody else makes the next generation, which leaves behind whatever one
        would."""
        with self._lock:
            if self._barred:
                raise InvalidInputError("expected one reembedding at a time, but another thread is at it")
            self._barred = True
            self._barring = threading.get_ident()
            self._unbarred.clear()
        try:
            yield
        finally:
            self._barred = False
            self._unbarred.set()

    def leave_to(self, successor: Compaction) -> None:
        """Another engine goes on in the folder: it removes the files of old generations when reads have let go of
        them."""
        with self._lock:
            old, self._old = self._old, []
        for generation, store in old:
            successor.leave(generation, store)

    def leave(self, generation: int, store: weakref.ref[Store]) -> None:
        """A generation that was in use before this handle's engine: its files go when its store does."""
        with self._lock:
            self._old.append((generation, store))

    def old_stores(self) -> list[Store]:
        """Those of old generations that reads still use."""
        with self._lock:
            return [store for _, reference in self._old if (store := reference()) is not None]

    def wait(self) -> None:
        """Return when no compaction runs in another thread. They give up once the upkeep is stopping."""
        with self._lock:
            pass

    def wait_unbarred(self) -> None:
        """Return when no other thread makes the next generation any more; they give up like a compaction."""
        if self._barring != threading.get_ident():
            self._unbarred.wait()

    def finish(self) -> None:
        """At the close of the handle: remove what its own reads were using. The rest is left to the next open."""
        for generation, reference in self._old:
            store = reference()
            if store is not None:
                store.close()
            self._remove(generation)

    def worthwhile(self) -> bool:
        """Whether somebody who asks for order should get it: more than a tenth of what could go is retired."""
        return self._retired_more_than(0, ASKED_SHARE)

    # --- the thread of the upkeep ----------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether a copy would give back at least as much as it writes."""
        least = max(RETIRED_LABELS, int(_RETRY_GROWTH * self._failed_at))
        return not self._barred and self._retired_more_than(least, RETIRED_SHARE)

    def _retired_more_than(self, number: int, share: float) -> bool:
        """Whether more versions or rows are retired, and kept by no named snapshot, than this number and share."""
        snapshot = self._writes.snapshot
        kept = 0
        if snapshot.retired_label_count > number:
            kept = self._kept_count(snapshot)
        for count, retired in (
            (snapshot.label_count, snapshot.retired_label_count),
            (snapshot.row_count, snapshot.retired_row_count),
        ):
            if retired - kept > max(number, share * count):
                return True
        return False

    def _kept_count(self, snapshot: Snapshot) -> int:
        """How many retired versions named snapshots keep; looked up again when something has changed."""
        manifest = self._upkeep.manifest
        key = (manifest.generation, tuple(named.names(self._folder, manifest)), snapshot.lsn)
        if self._kept[0] != key:
            kept = _kept_only(named.kept_labels(self._folder, manifest), snapshot) if key[1] else 0
            self._kept = (key, kept)
        return self._kept[1]

    def _patience(self) -> float | None:
        """Seconds until the next look."""
        if self._due():
            return _LOOK_S
        return _TIDY_S if self._old else None

    def _look(self) -> None:
        """A chore: compact if that is due, and remove what reads have let go of."""
        if self._old and self._lock.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                self._lock.release()
        if not self._due():
            self._due_since = None
            return
        self._due_since = self._due_since or time.monotonic()
        if not self._upkeep.idle(_PAUSE_S) and time.monotonic() - self._due_since < _MAX_WAIT_S:
            return
        snapshot = self._writes.snapshot
        retired = max(snapshot.retired_label_count, snapshot.retired_row_count)
        del snapshot
        try:
            self.run()
            self._failed_at = 0
        except ClosedError:
            raise Stopped from None
        except (OSError, NoPokeError, MemoryError) as error:
            # Reported, and the old generation is as good as before. (What put durability in doubt has ended the
            # writing of the handle by itself.)
            self._failed_at = retired
            self._note(f"no compaction: {error}")
            _log.warning("%s: no compaction: %s", self._folder, error, extra={"event": "compaction_failed"})

    # --- making it -------------------------------------------------------------------------------------------

    def _fill(self, new: NewGeneration) -> None:
        """Everything that needs no writer to wait."""
        new.catch_up(self._writes.snapshot)
        new.seal()
        self._texts.prepare(new.snapshot)
        changes = None
        while changes is None or FINAL_CHANGES < new.changes(self._writes.snapshot) < changes // 2:
            source = self._writes.snapshot
            changes = new.changes(source)
            new.catch_up(source)
        new.make_durable(self._upkeep.manifest)

    def _switch_when_small(self, new: NewGeneration) -> None:
        limit = FINAL_CHANGES
        while not self._switch(new, limit):
            new.catch_up(self._writes.snapshot)
            limit *= 2

    def _switch(self, new: NewGeneration, limit: int) -> bool:
        """Hold the writers and go on in the new generation. False: too much was written since the last look."""
        failure: BaseException | None = None
        with self._upkeep.manifest_lock:
            old = self._upkeep.manifest
            with self._writes.quiesced() as source:
                if new.changes(source) > limit:
                    return False
                try:
                    if self._upkeep.stopping:
                        raise Stopped
                    new.catch_up(source)
                    number = self._writes.log.number + 1
                    manifest = replace(new.make_durable(old), first_log=number)
                    new.carry_snapshots(old)
                    prepare_manifest(self._folder, manifest)
                except BaseException as error:  # noqa: BLE001  # raised below, where it does not end the writing
                    failure = error
                else:
                    self._writes.log.rotate()
                    new.named = True
                    adopt_manifest(self._folder)  # THE SWITCH
                    self._writes.switch(new.snapshot)
                    self._upkeep.switched(manifest)
        if failure is not None:
            raise failure
        self._drop_superfluous(old, number)
        return True

    # --- removing what is superfluous: a failure is told, and the next open tries again -------------------------

    def _drop_superfluous(self, old: Manifest, first_log: int) -> None:
        """The log, the live set, the indexes and the snapshots of the old generation: reads have them in memory."""
        names = [*(f"index/{name}" for segment in old.segments for name, _, _ in segment.parts), old.live_file]
        try:
            for path in named.leftovers(self._folder, self._upkeep.manifest):
                path.unlink(missing_ok=True)
            drop_logs(self._folder / "oplog", first_log)
            for name in filter(None, names):
                (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            _log.warning(
                "%s: superfluous files stay until the next open: %s",
                self._folder,
                error,
                extra={"event": "leftover_stays"},
            )

    def _tidy(self) -> None:
        """Remove the generations that no read of this handle uses."""
        self._old = [
            (generation, store)
            for generation, store in self._old
            if store() is not None or not self._remove(generation)
        ]

    def _remove(self, generation: int) -> bool:
        """Remove the files of an old generation. False: another handle reads them, and somebody should look again."""
        try:
            return remove_generation(self._folder, generation)
        except OSError as error:
            _log.warning(
                "%s: files of generation %d stay until the next open: %s",
                self._folder,
                generation,
                error,
                extra={"event": "leftover_stays"},
            )
            return True


# --- sizes ----------------------------------------------------------------------------------------------------


def reclaimable_bytes(snapshot: Snapshot) -> int:
    """What a compaction of this state would give back on disk, estimated: metadata and texts as if all versions were of
    one size."""
    row_bytes = snapshot.vectors[:0].strides[0] + ROW_TYPE.itemsize
    per_label = _metadata_bytes(snapshot) / max(1, snapshot.label_count) + LABEL_TYPE.itemsize
    return snapshot.retired_row_count * row_bytes + int(snapshot.retired_label_count * per_label)


def _metadata_bytes(snapshot: Snapshot) -> int:
    return sum(
        path.stat().st_size
        for path in _present(snapshot.store.reader.path.parent, snapshot.store.generation, "metadata")
    )


def _kept_only(kept: Bitmap, snapshot: Snapshot) -> int:
    """How many versions are retired and kept all the same."""
    return len(kept.missing_from(snapshot.live))


def check_room(folder: Path, snapshot: Snapshot, vector_bytes: int, what: str) -> None:
    """Raise before anything is written if the disk has no room for the new generation: a full disk would also stop
    the writers."""
    row_bytes = vector_bytes + ROW_TYPE.itemsize + LABEL_TYPE.itemsize
    share = snapshot.live.count / max(1, snapshot.label_count)
    needed = int(snapshot.live.count * row_bytes + share * _metadata_bytes(snapshot))
    needed += needed // 10 + _ROOM_BYTES
    if not has_room(folder, needed):
        raise OSError(errno.ENOSPC, f"expected {needed} free bytes for {what} of {folder}, found fewer")


def _present(folder: Path, generation: int, start: str) -> Iterator[Path]:
    """The files of a generation whose names start so."""
    for name in store_files(generation):
        if name.startswith(start):
            for path in (folder / name, folder / f"{name}-wal"):
                if path.exists():
                    yield path


def _size_of(folder: Path, generation: int) -> int:
    """Bytes on disk that a generation holds: sparse files by what they occupy."""
    index = (folder / "index").glob(f"segment-{generation}-*")
    total = 0
    for path in (*_present(folder, generation, ""), *index):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        total += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
    return total
