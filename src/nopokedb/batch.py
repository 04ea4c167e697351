"""`Batch`: writes collected in a `with` block, for one atomic frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nopokedb.engine import Write
from nopokedb.errors import InvalidInputError
from nopokedb.intake import Intake
from nopokedb.records import Id, check_id


class Batch:
    """Writes collected by `NoPokeDB.batch`. Later writes of the block see its earlier ones."""

    def __init__(self, intake: Intake) -> None:
        self._engine = intake.engine
        self._intake = intake
        self._writes: list[Write] = []
        self._open = True
        self._highest = -1
        """Largest int id collected so far."""

    def _finish(self) -> None:
        """Write what was collected."""
        self._open = False
        if self._writes:
            self._engine.write(self._writes)

    def _cancel(self) -> None:
        self._open = False

    def add(
        self,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        id: Id | None = None,
        text: str | None = None,
    ) -> Id:
        """As `NoPokeDB.add`; an automatic id is reserved at once. That an id exists is found when the block ends."""
        self._check_open()
        write = _own_vector(self._intake.add(vector, metadata, id, text))
        # An automatic id must not meet an id that this batch was given and that is not written yet.
        key = self._engine.reserve_ids(1, self._highest)[0] if write.ids is None else write.ids[0]
        self._collect(replace(write, ids=[key]), key)
        return key

    def upsert(
        self,
        id: Id,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
        merge: bool = False,
    ) -> None:
        """As `NoPokeDB.upsert`."""
        self._check_open()
        write = self._intake.upsert(id, vector, metadata, text, merge)
        self._collect(_own_vector(write), check_id(id))

    def delete(self, id: Id) -> None:
        """As `NoPokeDB.delete`; an absent id is no error."""
        self._check_open()
        self._writes.append(Write("delete", [check_id(id)], 1))

    def _collect(self, write: Write, key: Id) -> None:
        self._writes.append(write)
        if isinstance(key, int):
            self._highest = max(self._highest, key)

    def _check_open(self) -> None:
        if not self._open:
            raise InvalidInputError("expected an open batch, but its `with` block has ended")


def _own_vector(write: Write) -> Write:
    """The write with a copy of the caller's array, which may change before the block ends."""
    return write if write.vectors is None else replace(write, vectors=write.vectors.copy())
