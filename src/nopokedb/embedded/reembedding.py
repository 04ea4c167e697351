"""A collection gets another model: a new generation with vectors of its own, and the switch to it.

    every record has a text?  is there room?                          else: refused, nothing has changed
    copy the live records of a snapshot, slice by slice,
        with what the new model makes of their texts                  writers and readers go on
    copy what was written meanwhile, until the rest is small
    make all of it durable
    end the writing of the engine, as its close does                  from here on writers wait
    let go of the folder of its text index (texts.py)
    copy the rest, make it durable
    keep the old generation as a collection of its own (earlier.py)
    rename the manifest                                               THE SWITCH
    a new engine opens the folder, whose lock it takes over           writers go on

As in a compaction nothing of the new generation matters before the switch: whatever fails until then, its files are
dropped, and an engine with the old model goes on. Dimension and model are what everything in an engine rests on, from
the sizes of records to the curves of indexes; so the engine is replaced, not changed. Reads that began in the old one
end in it, on the files of the old generation.

Vectors given by hand are replaced like computed ones: those of two models cannot be compared.
"""

from __future__ import annotations

import logging
import shutil
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nopokedb.embedded import earlier, named
from nopokedb.embedded.compaction import FINAL_CHANGES, check_room
from nopokedb.embedded.leftovers import store_files
from nopokedb.embedded.new_generation import SLICE_RECORDS, NewGeneration
from nopokedb.embedded.search.options import Stopped
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.lock import GenerationHold
from nopokedb.embedded.storage.manifest import adopt_manifest, prepare_manifest
from nopokedb.embedding.embedder import Embedder
from nopokedb.engine import NamedSnapshot
from nopokedb.errors import ClosedError, InvalidInputError, NeedsReopenError, NoPokeError, OutcomeUnknownError
from nopokedb.records import Id, Vectors, check_vectors

if TYPE_CHECKING:
    from nopokedb.embedded.engine import EmbeddedEngine

_log = logging.getLogger("nopokedb")

_SHOWN_IDS = 5


class Reembedding:
    """One such change, as a context: an error inside drops what was made."""

    def __init__(self, engine: EmbeddedEngine, model: Embedder, snapshot: str | None) -> None:
        manifest = engine._upkeep.manifest
        self._engine = engine
        self._folder: Path = engine.folder
        self._model = model
        self._space = engine.space
        self._name = snapshot or f"before-reembed-{manifest.generation}"
        self._barred = ExitStack()
        self._settings = replace(
            manifest.settings, dim=model.dim, embed_name=model.name, embed_fingerprint=tuple(model.fingerprint)
        )
        self._new: NewGeneration
        self._kept: NamedSnapshot | None = None
        """What is kept of the state before; set with the switch."""
        self._given_up = False
        self._late: BaseException | None = None
        """What came behind the switch, such as an interrupt."""

    def __enter__(self) -> Reembedding:
        engine = self._engine
        with ExitStack() as entered:
            entered.enter_context(engine._compaction.barred())
            engine._writes.check_usable()
            if engine._upkeep.stopping:  # whoever owns the folder next may make a generation of this number
                raise ClosedError(f"the database {self._folder} is being closed; open it again")
            now, manifest = engine._writes.snapshot, engine._upkeep.manifest
            if self._name in (*named.names(self._folder, manifest), *earlier.names(self._folder, manifest)):
                raise InvalidInputError(
                    f"expected snapshot= to name a new snapshot, but {self._name!r} exists; drop it first"
                )
            _require_texts(now)
            check_room(self._folder, now, 4 * self._model.dim, "another model")
            self._new = NewGeneration(
                self._folder,
                now.store,
                engine._upkeep,
                engine._fields,
                Bitmap(),
                settings=self._settings,
                vectors_of=self._vectors_of,
            )
            self._barred = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._new.named:
                self._give_up()
            elif self._kept is None:
                self._new.store.close()
        finally:
            self._barred.close()
        if error is None and self._late is not None:
            raise self._late
        if isinstance(error, Stopped):
            raise ClosedError("the database was closed while it got another model, which was given up") from None

    def _vectors_of(self, ids: Sequence[Id], texts: Sequence[str | None]) -> Vectors:
        there = [text for text in texts if text is not None]
        if len(there) < len(texts):
            missing = [id_ for id_, text in zip(ids, texts, strict=True) if text is None]
            raise _refusal(len(missing), missing, "written meanwhile")
        return check_vectors(self._model(there), self._model.dim, self._space)

    def fill(self, report: Callable[[int], object]) -> None:
        """Everything that needs no writer to wait; `report` is told of records that are done."""
        new, writes = self._new, self._engine._writes
        new.catch_up(writes.snapshot, report=report)
        limit = FINAL_CHANGES
        while new.changes(writes.snapshot) > limit:
            new.catch_up(writes.snapshot)
            limit *= 2  # comes to an end however fast they write
        new.make_durable(self._engine._upkeep.manifest)
        # The checkpoint of the switch, for which writers wait, is then short; and a deep check is over.
        self._engine._upkeep.checkpoint()

    def switch(self) -> tuple[EmbeddedEngine, NamedSnapshot | BaseException]:
        """The engine that goes on, and the snapshot of the old state; or, with the old model, what went wrong. Raises
        if no engine could be opened, or nobody can tell which state is on the medium."""
        failure = self._hand_over()
        if self._kept is not None:
            self._late = failure
            self._new.store.close()
        elif self._new.named:
            self._engine._take_lock().abandon()
            raise OutcomeUnknownError(
                f"the switch to another model could not be made durable ({failure}); close this handle and open the "
                "folder again: it has the old model or the new one, with all records"
            ) from failure
        else:
            self._give_up()  # before the successor may make a generation of this number
        try:
            successor = self._successor()
        except (OSError, NoPokeError) as error:
            has = "the new model" if self._kept is not None else "the old model, as nothing was changed"
            raise NeedsReopenError(
                f"the folder could not be opened again ({failure or error}); close this handle and open it anew: "
                f"it has {has}"
            ) from error
        outcome = self._kept or failure
        assert outcome is not None
        return successor, outcome

    def _hand_over(self) -> BaseException | None:
        """End the writing of the engine as its `close` does, complete the new generation and switch to it; what went
        wrong. The engine keeps the folder's lock for its successor. Reads in it go on from what there was, as long as
        anything refers to it."""
        failure: BaseException | None = None
        engine = self._engine
        with engine._closing:
            engine._check_writable()
            store = engine._writes.snapshot.store
            assert store.writer is not None
            engine._succeeded = True
            try:
                stop, shut, texts = engine._upkeep.stop, engine._writes.shut, engine._texts
                detach = partial(engine.detach_texts, texts)
                for end in (stop, engine._compaction.wait, engine._fields.wait, shut, detach):
                    failure = _ended(end) or failure
                # Reads that go on may open a further connection to SQLite, also those of before a compaction.
                for used in (store, *engine._compaction.old_stores()):
                    used.on_close(GenerationHold(used.rows.path).release)
                if failure is None:
                    engine._upkeep.finish()
                    self._complete()
            except BaseException as error:  # noqa: BLE001  # handed on, when a successor has opened the folder
                failure = error
            engine._writes.log.close()
            store.writer.close()
        return failure

    def _complete(self) -> None:
        """Nobody writes, and all that was written is durable in the old generation."""
        engine, new = self._engine, self._new
        source, old = engine._writes.snapshot, engine._upkeep.manifest
        if not engine._upkeep.finished or source.lsn != old.checkpoint_lsn:
            raise NeedsReopenError(f"an earlier write failed ({engine._writes.failure})") from engine._writes.failure
        new.catch_up(source, to_the_end=True)
        new.match_fields(engine._fields.fields())
        with engine._upkeep.steady():  # nor is a named snapshot made or dropped
            manifest = new.make_durable(old)
            new.shrink()
            kept = earlier.keep(self._folder, old, source, store_files(old.generation), self._name)
            prepare_manifest(self._folder, manifest)
            new.named = True
            adopt_manifest(self._folder)  # THE SWITCH
            self._kept = kept
        _log.info(
            "%s: vectors of %s in place of those of %s",
            self._folder,
            self._settings.embed_name,
            old.settings.embed_name or "no model",
            extra={"event": "reembedded"},
        )

    def _give_up(self) -> None:
        """Remove what was made for a switch that did not come. What stays goes at the next open."""
        if self._given_up:
            return
        self._given_up = True
        self._new.drop()
        try:
            for path in earlier.leftovers(self._folder, self._engine._upkeep.manifest):
                shutil.rmtree(path)
        except OSError as error:
            _log.warning(
                "%s: what was kept of the state before stays until the next open: %s",
                self._folder,
                error,
                extra={"event": "leftover_stays"},
            )

    def _successor(self) -> EmbeddedEngine:
        from nopokedb.embedded.engine import EmbeddedEngine

        engine = self._engine
        successor = EmbeddedEngine(
            self._folder,
            settings=None,
            durability="full" if engine._durable else "os",
            read_only=False,
            max_memory=engine.max_memory,
            before=engine,
        )
        engine._compaction.leave_to(successor._compaction)
        if self._kept is not None:
            store = engine._writes.snapshot.store
            successor._compaction.leave(store.generation, weakref.ref(store))
        return successor


def _require_texts(snapshot: Snapshot) -> None:
    """Raise unless every live record has a text."""
    reader = snapshot.store.reader
    labels = snapshot.live.members(0, snapshot.label_count)
    count, some = 0, []
    for at in range(0, len(labels), SLICE_RECORDS):
        for item in reader.fetch_all(labels[at : at + SLICE_RECORDS].tolist()):
            if not item.has_text:
                count += 1
                some.append(item.id)
        del some[_SHOWN_IDS:]
    if count:
        raise _refusal(count, some, "in the collection")


def _refusal(count: int, some: Sequence[Id], where: str) -> InvalidInputError:
    shown = ", ".join(map(repr, some[:_SHOWN_IDS])) + (", ..." if count > len(some[:_SHOWN_IDS]) else "")
    return InvalidInputError(
        f"expected every record to have a text for the new model, got {count} without one {where} ({shown}); give them "
        "texts or delete them first. Nothing was changed"
    )


def _ended(end: Callable[[], object]) -> BaseException | None:
    """End what works in a folder that another engine is going to own, interrupted or not: with two at work in it, it
    would be lost. The interruption, if there was one."""
    interruption: BaseException | None = None
    while True:
        try:
            end()
        except (KeyboardInterrupt, SystemExit) as error:
            interruption = error
        else:
            return interruption
