"""`Keeping`: the methods of `NoPokeDB` that look after a collection: backup, check, snapshots, undo.

A part of that class in a file of its own: each checks its arguments and then calls the engine, as the others do.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nopokedb.backups import Backup
from nopokedb.binding import Binding
from nopokedb.embedding.names import stored_embedder
from nopokedb.engine import NamedSnapshot
from nopokedb.errors import InvalidInputError
from nopokedb.problems import Problem
from nopokedb.question import Asker
from nopokedb.records import check_int
from nopokedb.views import View

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Keeping:
    """Backup, check, named snapshots and undo of an open collection."""

    path: str
    _binding: Binding

    def backup(self, target: str | Path, *, since: int | str | Path | None = None) -> Backup:
        """Write one backup file of this moment, while reading and writing go on; a read-only handle can do it too.

        The file is read back and compared with its checksums, and is durable, when this returns. `nopokedb.restore`
        makes a collection of it. Search indexes are not in it.

        Args:
            target: a new file in an existing folder.
            since: an earlier backup file: only what changed since its moment is written. Or an lsn that the log still
                reaches (`stats().checkpoint_lsn` or later). None: everything.

        Raises: `CorruptionError` if a record or vector to be written is damaged, `ArchiveError` if `since` is no
        earlier backup of this collection.
        """
        if since is not None and not isinstance(since, str | os.PathLike):
            since = check_int("since", since, 0, 2**62)
        elif since is not None:
            since = _checked_file(since)
        return self._binding.engine.backup(_checked_file(target), since)

    def snapshot(self, name: str) -> NamedSnapshot:
        """Give the state of now a name (letters, digits, `.`, `_`, `-`, up to 128); kept durably when this returns.

        It costs one bit per record version: records that are changed or deleted later stay in the files anyway.
        """
        return self._binding.engine.snapshot_create(checked_name(name))

    def snapshots(self) -> list[NamedSnapshot]:
        """The snapshots that are kept, by name. One that is damaged is left out and logged; `stats().snapshots` has its
        name, and `check` what is wrong."""
        return self._binding.engine.snapshots()

    def at(self, name: str) -> View:
        """The collection as it was at the snapshot, for reading, as long as this handle is open."""
        bound = self._binding
        moment, named = bound.engine.at(checked_name(name))
        asker = bound.asker
        if (moment.embed_name, tuple(moment.embed_fingerprint)) != (
            asker.engine.embed_name,
            tuple(asker.engine.embed_fingerprint),
        ):  # from before another model came
            asker = Asker(moment, stored_embedder(moment.embed_name, moment.embed_fingerprint))
        else:
            asker = asker.of(moment)
        return View(moment, asker, named)

    def rollback(self, name: str) -> int:
        """Bring back exactly the records of the snapshot, in one atomic batch; how many records that changes. Not for
        one of before a `reembed`.

        Nothing is lost by it: the batch can be undone, and snapshots made since are kept. Metadata and texts of the
        records that come back are written again, up to 256 MiB; beyond that `BatchTooLargeError` is raised and nothing
        is changed. (Vectors are not written again.)
        """
        return self._binding.engine.rollback(checked_name(name))

    def drop_snapshot(self, name: str) -> None:
        """Forget the snapshot. `SnapshotNotFoundError` if there is none of that name."""
        self._binding.engine.drop_snapshot(checked_name(name))

    def check(self, repair: bool = False, deep: bool = True) -> list[Problem]:
        """Compare everything that is stored with its checksums and with everything else; the problems found, none
        if all is sound. Writing and reading go on meanwhile; checkpoints wait.

        Args:
            repair: only False here. To repair, close the handle and call `nopokedb.check(path, repair=True)`.
            deep: read every record, text, vector and index. Without: the log, the live set, the tables of labels and
                rows, the sizes of files, SQLite's quick check.
        """
        if repair:
            raise InvalidInputError(
                "expected repair=False on an open handle, got repair=True; close it and call "
                f"nopokedb.check({self.path!r}, repair=True)"
            )
        return self._binding.engine.check(bool(deep))

    def undo(self) -> int:
        """Take the last batch back, in one new atomic batch; durable and visible when this returns.

        Ids that the batch added are deleted, ids that it changed or deleted come back with the vector, metadata and
        text that they had. Undoing an undo brings the batch back. Automatic ids are not used again. Only the very last
        batch can be undone, and only while its frame is in the log: `save`, `close` and background checkpoints (after
        30 s without a write, or 64 MiB of log) drop it.

        Returns: how many records were changed. Raises `NothingToUndoError` if the batch is not in the log any more, or
        nothing was written.
        """
        return self._binding.engine.undo()


def checked_name(name: object) -> str:
    """The name of a snapshot: it becomes the name of a file."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(
            "expected the name of a snapshot of 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or "
            f"'-', got {name!r:.150}"
        )
    return name


def _checked_file(path: object) -> Path:
    """A path to a file."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InvalidInputError(f"expected the path of a file, got {type(path).__name__} {path!r:.80}")
    text = os.fspath(path)
    if not text or "\0" in text or "://" in text:
        raise InvalidInputError(f"expected the path of a file, got {text!r:.80}")
    return Path(text)
