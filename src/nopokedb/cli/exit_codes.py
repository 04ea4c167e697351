"""The one table from what happened to the exit code. docs/command-line.md shows it, and a test compares both."""

from __future__ import annotations

from nopokedb import errors
from nopokedb.server import refusals

OK = 0
PROBLEMS = 1
USAGE = 2
LOCKED = 3
CORRUPTION = 4
NOT_FOUND = 5
ARCHIVE = 6
RECOVERY = 7
SYSTEM = 8
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "done; a check found nothing but notes",
    PROBLEMS: "done, and there is something to look at: a check found problems, an import stopped or left rows out",
    USAGE: "wrong arguments, or an extra is not installed; nothing was changed",
    LOCKED: "another process has the collection open for writing",
    CORRUPTION: "stored bytes are damaged: run `nopokedb check`",
    NOT_FOUND: "no collection, no such record or snapshot, nothing to undo, or the folder holds something else",
    ARCHIVE: "a backup file or a folder to import is damaged, foreign or does not fit",
    RECOVERY: "the collection must be opened for writing once, or again",
    SYSTEM: "the system refused: a full disk, missing rights, an I/O error",
    INTERRUPTED: "interrupted by the user",
}

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    # The first class that fits counts, so the more particular ones stand first.
    (errors.ArchiveError, ARCHIVE),
    (errors.CorruptionError, CORRUPTION),
    (errors.DatabaseLockedError, LOCKED),
    (errors.InvalidInputError, USAGE),
    (errors.DuplicateIdError, USAGE),
    (errors.ReadOnlyError, USAGE),
    (errors.NotSupportedError, USAGE),
    (errors.NotADatabaseError, NOT_FOUND),
    (errors.CollectionNotFoundError, NOT_FOUND),
    (errors.RecordNotFoundError, NOT_FOUND),
    (errors.SnapshotNotFoundError, NOT_FOUND),
    (errors.NothingToUndoError, NOT_FOUND),
    (errors.NeedsRecoveryError, RECOVERY),
    (errors.NeedsReopenError, RECOVERY),
    (errors.ClosedError, RECOVERY),
    (errors.ForkedHandleError, RECOVERY),
    (refusals.NoSuchThingError, NOT_FOUND),
    (refusals.Refusal, USAGE),
    (ImportError, USAGE),  # an extra is missing; the message names it
    (KeyboardInterrupt, INTERRUPTED),
    (OSError, SYSTEM),
    (MemoryError, SYSTEM),
)


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error, None for one that is a defect of the program."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)
