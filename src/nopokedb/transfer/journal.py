"""How far an import came: a small file in the collection's folder, so that a killed import can go on.

`import-<hash of the source's path>.json`, replaced as a whole and durable before the step that it announces:

    source, size_bytes, mtime_ns   the file, and how to see that it is still the same
    options                        what decides which records its rows become
    done, imported, bad            rows that are behind, and what became of them
    finished                       all rows are behind
    pending                        the batch that may be in the collection or not: rows [done, stop), of which those
                                   in `rows` are written, with automatic ids from `first_id` on (null: their own)

A batch of the collection is atomic, so a pending batch is there whole or not at all. Which of both, the collection
says: its records are under their ids, or not. The file stays when the import has ended: who was killed just then, or
calls it again by mistake, does not get everything twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nopokedb.embedded.storage.files import sync_folder, write_durably
from nopokedb.errors import ArchiveError, InvalidInputError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pending:
    """The batch that is being written."""

    stop: int
    bad: int
    """What `State.bad` is behind it."""
    rows: list[int]
    first_id: int | None


@dataclass(slots=True)
class State:
    """What the file holds."""

    source: str
    size_bytes: int
    mtime_ns: int
    options: dict[str, Any]
    done: int = 0
    imported: int = 0
    bad: int = 0
    finished: bool = False
    pending: Pending | None = None
    version: int = field(default=_VERSION)


class Journal:
    """The file of one source in one collection."""

    def __init__(self, folder: Path, source: Path) -> None:
        name = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]
        self._folder, self._source = folder, source
        self.path = folder / f"import-{name}.json"

    def begin(self, options: dict[str, Any]) -> State:
        """The state of an import that has not begun."""
        stat = self._source.stat()
        return State(str(self._source.resolve()), stat.st_size, stat.st_mtime_ns, options)

    def load(self, options: dict[str, Any], *, changed: bool) -> State | None:
        """The state of an earlier import of this file, None if there is none. One that has finished counts only for the
        same file with the same options: another is a new import.

        Raises `InvalidInputError` if the file is not the one that it was (unless `changed` says that its rows up to
        there are), or the options would make other records of it.
        """
        try:
            data = orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise ArchiveError(f"{self.path}: cannot be read ({error}); remove it to begin anew") from None
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            raise ArchiveError(f"{self.path}: expected version {_VERSION}, got another; remove it to begin anew")
        pending = data.pop("pending")
        state = State(**data, pending=None if pending is None else Pending(**pending))
        now = self.begin(options)
        same = (now.size_bytes, now.mtime_ns) == (state.size_bytes, state.mtime_ns)
        if state.finished:
            return state if same and state.options == options else None
        place = f"an import of {state.source} that stopped behind row {state.done}"
        if state.options != options:
            raise InvalidInputError(f"expected the options of {place}, {state.options}, got {options}; or begin anew")
        if not same and not changed:
            raise InvalidInputError(
                f"expected the file as it was in {place}, but it has changed; go on behind that row (--continue), or "
                "begin anew (--restart)"
            )
        state.size_bytes, state.mtime_ns = now.size_bytes, now.mtime_ns
        return state

    def save(self, state: State) -> None:
        """Durable when this returns."""
        write_durably(self.path, orjson.dumps(asdict(state)))
        sync_folder(self._folder)
