"""From a checked batch to a frame: id rules, automatic ids, kept parts, merges, labels, rows.

Runs under the writer mutex, against the applied state plus the frames that are appended but not applied yet.
Nothing is changed here: the caller adopts the returned position only after the frame is in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage.columns import MAX_ENTRIES, NONE
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.metadata import MetadataReader
from nopokedb.engine import Write
from nopokedb.errors import DuplicateIdError, InvalidInputError
from nopokedb.metadata_json import decode_metadata, encode_metadata, merge_metadata
from nopokedb.records import Id, Vectors, check_batch_bytes

_MAX_AUTO_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Version:
    """The newest version of an id. Of one that is in the stores only the label is known until `_complete`."""

    label: int
    row: int = -1
    metadata: bytes | None = None
    text: str | None = None


Pending: TypeAlias = dict[Id, tuple[int, Version | None]]
"""Ids written by frames that are not applied yet: the frame's lsn, and the version (None: deleted)."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next frame continues."""

    next_label: int
    next_row: int
    next_auto_id: int


@dataclass(slots=True)
class _Draft:
    """The frame under construction."""

    first_label: int
    first_row: int
    next_auto_id: int
    ids: list[Id] = field(default_factory=list)
    metadatas: list[bytes] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    previous: list[int] = field(default_factory=list)
    retired: list[int] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    computed: list[bool] = field(default_factory=list)
    """Per new row whether its vector was computed from the text."""
    several: bool = False
    """The batch has more than one part, so that later ones must see earlier ones."""
    seen: dict[Id, Version | None] = field(default_factory=dict)
    """Ids that earlier parts wrote (None: deleted)."""
    deleted: list[Id] = field(default_factory=list)
    """Ids that the only part deletes."""


class Resolver:
    """Looks up what is there and drafts the frame."""

    def __init__(self, generation: int, dim: int, reader: MetadataReader) -> None:
        self._generation = generation
        self._dim = dim
        self._reader = reader

    def resolve(
        self,
        writes: Sequence[Write],
        position: Position,
        pending: Pending,
        snapshot: Snapshot,
        computed_at: Callable[[int], bool],
    ) -> tuple[Frame | None, list[list[Id] | int], list[Id]]:
        """The frame (None if nothing would change), a result per write, and the ids that it leaves deleted.
        `computed_at` says of a row that is in the log whether its vector was computed from the text."""
        draft = _Draft(position.next_label, position.next_row, position.next_auto_id, several=len(writes) > 1)
        results = [self._resolve_one(write, draft, pending, snapshot, computed_at) for write in writes]
        if not draft.ids and not draft.retired:
            return None, results, []
        if draft.first_label + len(draft.ids) >= MAX_ENTRIES or draft.first_row + len(draft.computed) >= MAX_ENTRIES:
            raise InvalidInputError(
                f"expected at most {MAX_ENTRIES} record versions in a collection; compact() numbers them anew"
            )
        frame = Frame(
            self._generation,
            draft.first_label,
            draft.first_row,
            draft.next_auto_id,
            np.array(draft.rows, np.uint32),
            np.array(draft.previous, np.uint32),
            np.array(draft.retired, np.uint32),
            draft.ids,
            draft.metadatas,
            draft.texts,
            _joined(draft.vectors, self._dim),
            computed=np.array(draft.computed, np.uint8) if any(draft.computed) else None,
        )
        text_bytes = sum(len(text.encode()) for text in draft.texts if text is not None)
        check_batch_bytes(frame.vectors.nbytes + sum(map(len, draft.metadatas)) + text_bytes)
        # Of several parts the last word on an id counts; looked at once, not after every part.
        deleted = [id_ for id_, version in draft.seen.items() if version is None] if draft.several else draft.deleted
        return frame, results, deleted

    def _resolve_one(
        self,
        write: Write,
        draft: _Draft,
        pending: Pending,
        snapshot: Snapshot,
        computed_at: Callable[[int], bool],
    ) -> list[Id] | int:
        if write.kind == "add" and write.ids is None:
            auto_ids, draft.next_auto_id = take_auto_ids(draft.next_auto_id, write.count)
            ids: list[Id] = list(auto_ids)
            old: list[Version | None] = [None] * write.count
        else:
            ids = list(write.ids or ())
            old = self._lookup(ids, draft, pending, snapshot)
        if write.kind == "delete":
            gone = [(id_, found) for id_, found in zip(ids, old, strict=True) if found is not None]
            for id_, found in gone:
                draft.retired.append(found.label)
                draft.deleted.append(id_)
                if draft.several:
                    draft.seen[id_] = None
            return len(gone)
        if write.kind == "add":
            for id_, version in zip(ids, old, strict=True):
                if version is not None:
                    raise DuplicateIdError(f"expected a new id, got {id_!r}, which exists; use upsert to replace it")
        elif write.kind == "update":
            kept = [at for at, version in enumerate(old) if version is not None]
            ids, old = [ids[at] for at in kept], [old[at] for at in kept]
            write = replace(write, count=len(ids))
        self._put(write, ids, old, draft, computed_at)
        return len(ids) if write.kind == "update" else ids

    def _put(
        self,
        write: Write,
        ids: list[Id],
        old: list[Version | None],
        draft: _Draft,
        computed_at: Callable[[int], bool],
    ) -> None:
        """Add one new version per id to the draft."""
        count = len(ids)
        patches: Sequence[bytes | None] = write.metadatas or [None] * count
        if write.kind == "update":  # one patch for all
            patches = [patches[0]] * count
        given_texts: Sequence[str | None] = write.texts or [None] * count
        if write.vectors is None or write.computed or write.merge or None in patches or None in given_texts:
            old = self._complete(old)
        renewed = self._renewed(write, ids, old, draft, computed_at)
        metadatas = [_final_metadata(version, patch, write.merge) for version, patch in zip(old, patches, strict=True)]
        texts = [
            version.text if text is None and version is not None else text
            for version, text in zip(old, given_texts, strict=True)
        ]
        label = draft.first_label + len(draft.ids)
        labels = range(label, label + count)
        rows, previous = self._rows(write, renewed, old, draft)
        draft.ids += ids
        draft.metadatas += metadatas
        draft.texts += texts
        draft.rows += rows
        draft.previous += previous
        draft.retired += [version.label for version in old if version is not None]
        if draft.several:
            draft.seen.update(zip(ids, map(Version, labels, rows, metadatas, texts), strict=True))
        if write.ids is not None:
            highest = max((id_ for id_ in ids if isinstance(id_, int)), default=-1)
            draft.next_auto_id = max(draft.next_auto_id, highest + 1)

    def _renewed(
        self,
        write: Write,
        ids: list[Id],
        old: list[Version | None],
        draft: _Draft,
        computed_at: Callable[[int], bool],
    ) -> list[bool] | None:
        """Which records get a new vector; None: all. The others keep theirs, so they have to have one."""
        if write.vectors is not None and write.computed is None:
            return None
        renewed = []
        for at, (id_, version) in enumerate(zip(ids, old, strict=True)):
            new = write.computed is not None and write.computed[at]
            if version is None and not new:
                raise InvalidInputError(f"expected a vector for the new id {id_!r}, got none")
            if new and version is not None:  # a vector given by hand outlives a new text
                place = version.row - draft.first_row
                new = draft.computed[place] if place >= 0 else computed_at(version.row)
            renewed.append(new)
        return renewed

    def _rows(
        self, write: Write, renewed: list[bool] | None, old: list[Version | None], draft: _Draft
    ) -> tuple[list[int], list[int]]:
        """The row of each record and, where it shares one, the label that has it; new vectors go to the draft."""
        row = draft.first_row + len(draft.computed)
        if renewed is None:
            assert write.vectors is not None
            draft.vectors.append(write.vectors)
            draft.computed += [False] * len(old)
            return list(range(row, row + len(old))), [NONE] * len(old)
        rows, previous = [], []
        for new, version in zip(renewed, old, strict=True):
            if new:
                rows.append(row)
                previous.append(NONE)
                row += 1
            else:
                assert version is not None
                rows.append(version.row)
                previous.append(version.label)
        if any(renewed):
            assert write.vectors is not None
            draft.vectors.append(write.vectors[np.array(renewed)])
            draft.computed += [True] * sum(renewed)
        return rows, previous

    def _complete(self, old: list[Version | None]) -> list[Version | None]:
        """The versions with their row, metadata and text, read from the stores and verified."""
        labels = [version.label for version in old if version is not None and version.metadata is None]
        if not labels:
            return old
        stored = {item.label: item for item in self._reader.fetch_all(labels)}
        texts = self._reader.texts(stored.values())
        return [
            version
            if version is None or version.metadata is not None
            else Version(
                version.label, stored[version.label].row, stored[version.label].metadata, texts.get(version.label)
            )
            for version in old
        ]

    def _lookup(self, ids: list[Id], draft: _Draft, pending: Pending, snapshot: Snapshot) -> list[Version | None]:
        """The live version of each id, None where there is none."""
        found: list[Version | None] = []
        unknown: list[int] = []
        for at, id_ in enumerate(ids):
            if id_ in draft.seen:
                found.append(draft.seen[id_])
            elif id_ in pending:
                found.append(pending[id_][1])
            else:
                found.append(None)
                # The counter of automatic ids is above every int id that was ever used.
                if isinstance(id_, str) or id_ < draft.next_auto_id:
                    unknown.append(at)
        if unknown:
            labels = self._reader.newest([ids[at] for at in unknown], snapshot.label_count)
            for at, label in zip(unknown, labels, strict=True):
                if label is not None and label in snapshot.live:
                    found[at] = Version(label)
        return found


def versions_of(frame: Frame, deleted: list[Id]) -> dict[Id, tuple[int, Version | None]]:
    """What a frame that is not applied yet made of its ids."""
    versions = map(Version, frame.labels, frame.rows.tolist(), frame.metadatas, frame.texts)
    # An id that the batch wrote twice stands twice; its later version wins.
    found: Pending = {id_: (frame.lsn, version) for id_, version in zip(frame.ids, versions, strict=True)}
    found.update((id_, (frame.lsn, None)) for id_ in deleted)
    return found


def take_auto_ids(next_auto_id: int, count: int) -> tuple[range, int]:
    """The next automatic ids, and the counter behind them."""
    if next_auto_id + count - 1 > _MAX_AUTO_ID:
        raise InvalidInputError("expected room for automatic ids, but the largest int id was used; give ids")
    return range(next_auto_id, next_auto_id + count), next_auto_id + count


def _final_metadata(old: Version | None, patch: bytes | None, merge: bool) -> bytes:
    """The metadata of the new version: given, merged into the old, or kept."""
    base = b"{}" if old is None or old.metadata is None else old.metadata
    if patch is None:
        return base
    if not merge:
        return patch
    target: Any = decode_metadata(base)
    return encode_metadata(merge_metadata(target, decode_metadata(patch)))


def _joined(parts: list[Vectors], dim: int) -> Vectors:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)
