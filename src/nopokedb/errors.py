"""Every error NoPokeDB raises on purpose.

NoPokeError
├── InvalidInputError (ValueError)      the call is wrong; nothing was changed
│   ├── InvalidIdError                  not an int64 or a non-empty str of at most 512 bytes
│   ├── InvalidVectorError              shape, dtype, NaN, Inf, norm out of range
│   ├── InvalidMetadataError            not a JSON object
│   ├── InvalidFilterError              an unknown operator, a wrong operand; names the place in the filter
│   ├── SettingsMismatchError           an open names other settings than the stored ones
│   └── BatchTooLargeError              over the limit of one atomic batch
├── DuplicateIdError (KeyError)         `add` of an id that exists, or an id twice in one call
├── RecordNotFoundError (KeyError)      `db[id]` of an absent id
├── NotADatabaseError (ValueError)      the folder holds something else
│   ├── LegacyFolderError               a folder of the original package, up to 0.5.1
│   └── NewerFormatError                written by a newer version
├── CollectionNotFoundError (FileNotFoundError)
├── DatabaseLockedError (BlockingIOError)   another writer holds the folder; names its pid
├── ReadOnlyError (PermissionError)     a read-only handle was asked to write
├── NothingToUndoError (LookupError)    the last batch is not in the log any more, or there is none
├── SnapshotNotFoundError (LookupError) no named snapshot has this name
├── ClosedError (RuntimeError)          the handle is closed
├── ForkedHandleError (RuntimeError)    the handle was opened before a fork and is used in the child
├── NeedsRecoveryError (RuntimeError)   a writer must recover the folder, or bring it to this format, first
├── NeedsReopenError (OSError)          a write failed earlier: the handle reads, but does not write
│   └── OutcomeUnknownError             the batch of this call is whole or absent after reopening
├── NotSupportedError (NotImplementedError)  the engine cannot do this
├── UnavailableError (ConnectionError)  the server of a collection cannot be reached
├── QueryTimeoutError (TimeoutError)    the server did not finish within `timeout_s`
├── ArchiveError (ValueError)           a backup or a folder to import is damaged, foreign or does not fit
└── CorruptionError (OSError)           stored bytes are damaged; names the file and the offset
"""

from __future__ import annotations

from collections.abc import Sequence


class NoPokeError(Exception):
    """Root of the tree. Two attributes tell how far a chunked write came before the error."""

    committed: Sequence[int | str] = ()
    """Ids of earlier chunks of the same call that are durable (`add_many`, `upsert_many`); else empty."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument; a sentence is meant here.
        return str(self.args[0]) if self.args else self.__class__.__name__


class InvalidInputError(NoPokeError, ValueError):
    """An argument is wrong. Raised before anything is changed."""


class InvalidIdError(InvalidInputError):
    """An id is not an int of 64 bits or a non-empty str of at most 512 UTF-8 bytes."""


class InvalidVectorError(InvalidInputError):
    """A vector has the wrong shape or dtype, or values that cannot be searched."""


class InvalidMetadataError(InvalidInputError):
    """Metadata or text is not what JSON and UTF-8 can hold."""


class InvalidFilterError(InvalidInputError):
    """A filter has an unknown operator, an operand of a wrong type, or is too deep or too large."""


class SettingsMismatchError(InvalidInputError):
    """The collection exists with other settings; the message names both."""


class BatchTooLargeError(InvalidInputError):
    """One atomic batch would exceed its size limit."""


class DuplicateIdError(NoPokeError, KeyError):
    """The id exists already, or appears twice in one call."""


class RecordNotFoundError(NoPokeError, KeyError):
    """No live record has this id."""


class NotADatabaseError(NoPokeError, ValueError):
    """The folder is not a NoPokeDB collection and is left untouched."""


class LegacyFolderError(NotADatabaseError):
    """The folder was written by the original package (0.5.1 or older) and is left untouched."""


class NewerFormatError(NotADatabaseError):
    """The folder was written by a newer version; both format versions are named."""


class CollectionNotFoundError(NoPokeError, FileNotFoundError):
    """There is no collection here and none was asked to be created (`dim` was not given)."""


class DatabaseLockedError(NoPokeError, BlockingIOError):
    """Another process (or another handle of this one) is the writer; its pid is named."""

    pid: int | None = None
    """Process id of the holder, None where it could not be read."""


class ReadOnlyError(NoPokeError, PermissionError):
    """The handle was opened with `read_only=True`."""


class NothingToUndoError(NoPokeError, LookupError):
    """There is no last batch to undo: nothing was written, or a checkpoint has dropped its frame from the log."""


class SnapshotNotFoundError(NoPokeError, LookupError):
    """No named snapshot has this name; the message lists those there are."""


class ClosedError(NoPokeError, RuntimeError):
    """The handle is closed."""


class ForkedHandleError(NoPokeError, RuntimeError):
    """The handle was opened by the parent process: open a new one in the child."""


class NeedsRecoveryError(NoPokeError, RuntimeError):
    """The last writer stopped without closing, or was of a version with an older format: open the folder for writing
    once, then read it."""


class NeedsReopenError(NoPokeError, OSError):
    """An earlier write failed, so this handle writes no more. Close it and open the folder again."""


class OutcomeUnknownError(NeedsReopenError):
    """The failure came while this batch was being made durable: reopening finds it whole or absent."""


class NotSupportedError(NoPokeError, NotImplementedError):
    """The engine behind this collection cannot do what was asked; the message names it. Nothing was changed."""


class UnavailableError(NoPokeError, ConnectionError):
    """The server of the collection could not be reached, however often it was tried. No batch of this call is
    written."""


class QueryTimeoutError(NoPokeError, TimeoutError):
    """The server did not finish within `timeout_s`. Nothing was changed."""


class ArchiveError(NoPokeError, ValueError):
    """A backup file, or a folder of the original package, is damaged, is something else, or does not fit. Nothing was
    written."""

    def __init__(self, message: str, *, file: str = "", offset: int | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.offset = offset


class CorruptionError(NoPokeError, OSError):
    """Stored bytes do not match their checksum."""

    def __init__(self, message: str, *, file: str = "", offset: int | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.offset = offset
