"""What the classes of other frameworks have in common: a collection that is opened or handed in, ids that are strs
there, answers that vary, relevance from 0 to 1."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.database import NoPokeDB
from nopokedb.errors import CollectionNotFoundError, InvalidInputError
from nopokedb.fusion import varied
from nopokedb.records import Hit, Id, check_id

_INT = re.compile(r"0|-?[1-9][0-9]{0,18}")


class Handle:
    """One collection: handed in open and left so, or opened where it is first needed and closed by `close`.

    `options` are the arguments of `NoPokeDB`, None for those that were not given. `late` has those that are only to be
    looked up when it opens, such as keys.
    """

    def __init__(
        self,
        database: NoPokeDB | None,
        path: str | Path | None,
        options: dict[str, Any],
        late: dict[str, Callable[[], Any]] | None = None,
    ) -> None:
        given = path is not None or bool(late) or any(value is not None for value in options.values())
        if database is not None and given:
            raise InvalidInputError("expected an open database, or arguments to open one, got both")
        self._owned = database is None
        self._database = database
        self._options = {"path": "./data" if path is None else path, **options}
        self._late = late or {}
        self._users = 1
        self._lock = threading.Lock()

    def open(self, dim: Callable[[], int] | None = None) -> NoPokeDB:
        """The collection; a missing one is created, with `dim()` components where the options name none.

        Raises what `NoPokeDB` raises; `CollectionNotFoundError` where nothing says how many components.
        """
        with self._lock:
            if self._database is None:
                options = self._options | {name: look_up() for name, look_up in self._late.items()}
                try:
                    self._database = NoPokeDB(**options)
                except CollectionNotFoundError:
                    if dim is None or options.get("dim") is not None or options.get("read_only"):
                        raise
                    self._database = NoPokeDB(**options | {"dim": dim()})
            return self._database

    def existing(self) -> NoPokeDB | None:
        """The collection, or None if the first write is still to create it."""
        try:
            return self.open()
        except CollectionNotFoundError:
            if self._options.get("read_only"):
                raise
            return None

    def join(self) -> bool:
        """Use this handle too, until `close`. False if it is closed."""
        with self._lock:
            self._users += bool(self._users)
            return bool(self._users)

    def close(self) -> None:
        """Close the collection with its last user, unless it was handed in."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if not self._users and self._owned and self._database is not None:
                self._database.close()


_shared: dict[bytes, Handle] = {}
_sharing = threading.Lock()


def shared_handle(key: bytes, make: Callable[[], Handle]) -> Handle:
    """The handle that others in this process use under this key, or a new one: a folder has one writer. Users that are
    forgotten leave it open for those that come."""
    with _sharing:
        handle = _shared.get(key)
        if handle is None or not handle.join():
            handle = _shared[key] = make()
        return handle


def checked_ids(ids: Sequence[str]) -> list[Id]:
    """The ids that were given, each valid."""
    if isinstance(ids, str):
        raise InvalidInputError(f"expected a list of ids, got the str {ids!r:.80}")
    return [check_id(id_) for id_ in ids]


def stored_ids(db: NoPokeDB, ids: Iterable[Id]) -> list[Id]:
    """The ids as the collection has them: digits name the record with that int as id, where there is one and none with
    the str itself."""
    ids = list(ids)
    digits = [id_ for id_ in ids if isinstance(id_, str) and _INT.fullmatch(id_) and -(2**63) <= int(id_) < 2**63]
    if not digits:
        return ids
    records = db.get_many([*digits, *map(int, digits)], include=())
    as_str, as_int = records[: len(digits)], records[len(digits) :]
    renamed = {
        id_: int(id_)
        for id_, text, number in zip(digits, as_str, as_int, strict=True)
        if text is None and number is not None
    }
    return [renamed.get(id_, id_) if isinstance(id_, str) else id_ for id_ in ids]


def varied_hits(space: str, hits: list[Hit], k: int, diversity: float) -> list[Hit]:
    """k of the hits by maximal marginal relevance, in the order of being chosen. The hits have their vectors."""
    if not hits:
        return []
    cosine = space == "cosine" and hits[0].vector_rank is hits[0].text_rank is None
    vectors = np.array([hit.vector for hit in hits])
    return [hits[at] for at in varied([hit.score for hit in hits], vectors, k, diversity, cosine=cosine)]


RELEVANCE: dict[str, Callable[[float], float]] = {
    "cosine": lambda distance: min(max(0.0, 1.0 - distance), 1.0),
    "l2": lambda distance: 1.0 / (1.0 + distance**0.5),  # stored distances are squared
}
"""Distance -> relevance from 0 to 1. Dot products have no bounds that would say what 1 is."""
