"""The open collections of one folder: opened when first asked for, closed when they have to make room.

Any number of threads may use a collection at once. A handle whose write has failed goes on reading; the next write
finds it replaced by a new one, as soon as nobody uses the old one and the disk has room.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nopokedb import NoPokeDB, drop_collection, list_collections
from nopokedb.agreement import check_settings, settings_of
from nopokedb.embedding.embedder import Embedder
from nopokedb.embedding.names import MODELS, make_embedder, model_name
from nopokedb.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    NeedsRecoveryError,
    NeedsReopenError,
    NoPokeError,
    SettingsMismatchError,
)
from nopokedb.opening import resolve_folder
from nopokedb.server.refusals import ConflictError, DiskFullError, StoppingError
from nopokedb.server.requests import CreateCollection
from nopokedb.server.statuses import is_disk_full

_log = logging.getLogger("nopokedb.server")

_REOPEN_WAIT_S = 30.0


class _Slot:
    """One collection, open or not."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.db: NoPokeDB | None = None
        self.users = 0
        self.used_at = 0.0
        self.memory_bytes = 0
        self.failure: BaseException | None = None
        """What ended the writing of the handle."""
        self.reopening = False


class Collections:
    """A folder of collections."""

    def __init__(self, root: Path, *, max_memory: int, max_open: int, models: tuple[str, ...], min_free: int) -> None:
        self.root = root
        self._max_memory = max_memory
        self._max_open = max_open
        self._models = {model_name(spec): spec for spec in models}
        self._embedders = {name: make_embedder(spec) for name, spec in self._models.items() if name not in MODELS}
        """Models that are not found by their names alone, loaded at the start: a wrong path is no surprise later."""
        self._min_free = min_free
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        self._reserved: set[str] = set()
        """Names of collections that are being made."""
        self._closed = False
        self.disk_full = False
        """A write met a full disk, and none has succeeded since."""

    # --- which there are -------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of all collections, sorted."""
        return list_collections(self.root)

    def create(self, name: str, wanted: CreateCollection) -> bool:
        """Make the collection. False if it is there already, with these settings."""
        folder = resolve_folder(self.root, name)
        if wanted.durability != "full":
            raise InvalidInputError(
                "expected durability='full', since a server syncs each batch before it answers, got "
                f"{wanted.durability!r:.80}"
            )
        slot = self._slot(name)
        with slot.changed:
            if _is_there(folder):
                self._agree(folder, wanted)
                return False
            if wanted.embed is not None and wanted.embed not in self._models:
                known = ", ".join(map(repr, self._models)) or "none"
                raise InvalidInputError(
                    f"expected embed to be a model of this server ({known}), got {wanted.embed!r:.80}"
                )
            if wanted.dim is None and wanted.embed is None:
                raise InvalidInputError("expected dim, or embed, which knows it, for a new collection, got neither")
            with self.reserved(name):
                slot.db = NoPokeDB(
                    dim=wanted.dim,
                    max_elements=wanted.max_elements,
                    path=self.root,
                    collection=name,
                    space=wanted.space,
                    M=wanted.M,
                    ef_construction=wanted.ef_construction,
                    index=wanted.index,
                    indexed_fields=wanted.indexed_fields,
                    text_language=wanted.text_language,
                    embed=None if wanted.embed is None else self._embedders.get(wanted.embed, wanted.embed),
                    max_memory=self._max_memory,
                )
            slot.used_at = time.monotonic()
        self.make_room()
        return True

    @contextmanager
    def reserved(self, name: str) -> Iterator[Path]:
        """The folder of a collection that is not there, for the block to make: nobody else makes one meanwhile."""
        folder = resolve_folder(self.root, name)
        with self._lock:
            if name in self._reserved or _is_there(folder):
                raise ConflictError(
                    f"expected the name of a new collection, got {name!r}, which exists or is being made"
                )
            self._reserved.add(name)
        try:
            yield folder
        finally:
            with self._lock:
                self._reserved.discard(name)

    def _agree(self, folder: Path, wanted: CreateCollection) -> None:
        """Raise `SettingsMismatchError` unless the collection has these settings."""
        from nopokedb.embedded.recovery import require_collection

        stored = require_collection(folder).settings
        check_settings(folder, stored, settings_of(wanted))
        if wanted.embed is not None and wanted.embed != stored.embed_name:
            raise SettingsMismatchError(
                f"expected embed={stored.embed_name!r}, with which {folder} was created, got {wanted.embed!r:.80}"
            )

    def drop(self, name: str) -> None:
        """Delete the collection with all its records, once its running requests are through."""
        folder = resolve_folder(self.root, name)
        if not _is_there(folder):
            raise CollectionNotFoundError(f"expected a collection {name!r}, found none")
        slot = self._slot(name)
        with slot.changed:
            slot.reopening = True
            try:
                self._wait_for_users(slot)
                self._close(slot)
                drop_collection(self.root, name)
            finally:
                slot.reopening = False
                slot.changed.notify_all()

    # --- using them ------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, name: str, *, writing: bool = False) -> Iterator[NoPokeDB]:
        """The open collection, for as long as the block runs. Opens it if it is not; a writer gets a handle that
        writes."""
        slot, db = self._enter(name, writing=writing)
        try:
            yield db
            if writing:
                self.disk_full = False
        except (NeedsReopenError, OSError) as error:
            self._note_failure(slot, db, error)
            raise
        finally:
            self.leave(slot)

    def try_enter(self, name: str) -> tuple[_Slot, NoPokeDB] | None:
        """The collection for reading, if that takes no waiting; `leave` it afterwards."""
        slot = self._slots.get(name)
        if slot is None or slot.db is None or slot.reopening or not slot.changed.acquire(blocking=False):
            return None
        try:
            if slot.db is None or slot.reopening:
                return None
            slot.users += 1
            return slot, slot.db
        finally:
            slot.changed.release()

    def leave(self, slot: _Slot) -> None:
        with slot.changed:
            slot.users -= 1
            slot.used_at = time.monotonic()
            if not slot.users:
                slot.changed.notify_all()

    def _enter(self, name: str, *, writing: bool) -> tuple[_Slot, NoPokeDB]:
        folder = resolve_folder(self.root, name)
        opened = False
        slot = self._slots.get(name)
        if slot is None or slot.db is None:
            if not _is_there(folder):
                raise CollectionNotFoundError(
                    f"expected a collection {name!r}, found none; make it with PUT, or NoPokeDB(dim=...)"
                )
            slot = self._slot(name)
        with slot.changed:
            if not slot.changed.wait_for(lambda: not slot.reopening, _REOPEN_WAIT_S):
                raise StoppingError(f"expected {name!r} to be open, but it is being closed; come back later")
            if self._closed:
                raise StoppingError("expected a running server, but it is being stopped")
            failure = slot.failure
            if writing and failure is not None:
                self._replace(slot)
            if slot.db is None:
                try:
                    slot.db = NoPokeDB(
                        path=self.root,
                        collection=name,
                        embed=self._model_of(folder),
                        max_memory=self._max_memory,
                    )
                except (NoPokeError, OSError):
                    slot.failure = failure  # as before: still not writable
                    raise
                slot.failure = None
                opened = True
            slot.users += 1
            db = slot.db
        if opened:
            self.make_room()
        return slot, db

    def _model_of(self, folder: Path) -> Embedder | None:
        """The model of this server that the collection was made with, if it needs to be handed in."""
        from nopokedb.embedded.recovery import require_collection

        try:
            return self._embedders.get(require_collection(folder).settings.embed_name) if self._embedders else None
        except NeedsRecoveryError:  # of an older format, which opening it changes
            return None

    def _note_failure(self, slot: _Slot, db: NoPokeDB, error: BaseException) -> None:
        """Remember that the handle writes no more, or that the disk is full."""
        full = is_disk_full(error)
        if full:
            self.disk_full = True
        if isinstance(error, NeedsReopenError):
            with slot.changed:
                if slot.db is db:
                    slot.failure = error
            _log.error("a write failed: %s", error, extra={"event": "write_failed"})

    def _replace(self, slot: _Slot) -> None:
        """Close the handle that writes no more; the caller opens a new one."""
        failure = slot.failure
        if failure is not None and is_disk_full(failure) and not self.has_room:
            raise DiskFullError(
                f"expected {self._min_free} bytes of free disk space to open the collection for writing again, found "
                f"{free_bytes(self.root)}; reads go on"
            ) from failure
        slot.reopening = True
        try:
            self._wait_for_users(slot)
            self._close(slot)
        finally:
            slot.reopening = False
            slot.changed.notify_all()

    def _wait_for_users(self, slot: _Slot) -> None:
        if not slot.changed.wait_for(lambda: not slot.users, _REOPEN_WAIT_S):
            raise StoppingError("expected the running requests of this collection to end; come back later")

    def _close(self, slot: _Slot) -> None:
        """Close what is open, with `slot.changed` held. A handle that cannot write a checkpoint is given up: the log
        has what it acknowledged."""
        db, slot.db, slot.failure = slot.db, None, None
        if db is not None:
            try:
                db.close()
            except (NeedsReopenError, OSError) as error:
                _log.error("closing failed: %s", error, extra={"event": "close_failed"})

    def _slot(self, name: str) -> _Slot:
        with self._lock:
            return self._slots.setdefault(name, _Slot())

    # --- keeping within the limits ---------------------------------------------------------------------------

    def open_handles(self) -> list[tuple[str, NoPokeDB]]:
        """The collections that are open now, for looking at."""
        with self._lock:
            return sorted((name, slot.db) for name, slot in self._slots.items() if slot.db is not None)

    def make_room(self) -> None:
        """Measure the memory of open collections, and close idle ones, the least recently used first, until all are
        within the limits."""
        with self._lock:
            slots = sorted(self._slots.values(), key=lambda slot: slot.used_at)
        for slot in slots:
            db = slot.db
            slot.memory_bytes = 0 if db is None else memory_of(db)
        count = sum(slot.db is not None for slot in slots)
        total = sum(slot.memory_bytes for slot in slots)
        for slot in slots:
            if count <= self._max_open and total <= self._max_memory:
                return
            if slot.db is None or not slot.changed.acquire(blocking=False):
                continue
            try:
                if slot.db is not None and not slot.users and not slot.reopening and count > 1:
                    self._close(slot)
                    count -= 1
                    total -= slot.memory_bytes
            finally:
                slot.changed.release()

    @property
    def has_room(self) -> bool:
        """Whether the disk has the free space that the server wants."""
        return free_bytes(self.root) >= self._min_free

    def mend(self) -> None:
        """Once there is room again, open for writing what a failed write has closed to it."""
        if not self.has_room:
            return
        self.disk_full = False
        for name in self.failures():
            try:
                with self.using(name, writing=True):
                    pass
            except (NoPokeError, OSError) as error:
                _log.error("%s cannot be written: %s", name, error, extra={"event": "not_mended"})

    def failures(self) -> list[str]:
        """Names of collections whose handle writes no more."""
        with self._lock:
            return sorted(name for name, slot in self._slots.items() if slot.failure is not None)

    def close(self) -> None:
        """Close everything, each with a checkpoint. Nothing is opened afterwards."""
        self._closed = True
        with self._lock:
            slots = list(self._slots.values())
        for slot in slots:
            with slot.changed:
                self._close(slot)


def memory_of(db: NoPokeDB) -> int:
    """Bytes that indexes and caches of an open collection hold."""
    try:
        stats = db.stats()
    except (RuntimeError, OSError):  # closed or damaged meanwhile: whoever uses it will be told
        return 0
    return stats.cache_bytes + stats.index_memory_bytes + stats.tables_memory_bytes


def free_bytes(folder: Path) -> int:
    """Free space of the disk."""
    return shutil.disk_usage(folder).free


def _is_there(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()
