"""Operations that write: (collection, request) -> results. Durable when they return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from nopokedb import NoPokeDB
from nopokedb.database import engine_of
from nopokedb.engine import NamedSnapshot
from nopokedb.errors import InvalidIdError, InvalidInputError
from nopokedb.records import check_choice, check_id, check_int
from nopokedb.server import requests
from nopokedb.server.requests import Change, RecordInput, build, flag
from nopokedb.server.results import Counted, Done, Written
from nopokedb.server.vectors import unpack

_MODES = Literal["insert", "upsert"]
_OPS = Literal["add", "upsert", "delete"]
_MAX_RESERVED = 1_000_000


def write(db: NoPokeDB, request: requests.WriteRecords) -> Written:
    """Insert or upsert records, in one atomic batch."""
    check_choice("mode", request.mode, _MODES)
    if not isinstance(request.records, list):
        raise InvalidInputError(f"expected records to be an array, got {type(request.records).__name__}")
    records = [
        item if isinstance(item, RecordInput) else build(RecordInput, item, f"records[{at}]")
        for at, item in enumerate(request.records)
    ]
    return Written(write_records(db, records, request.mode, merge=flag("merge", request.merge)))


def write_records(db: NoPokeDB, records: list[RecordInput], mode: str, *, merge: bool) -> list[Any]:
    """The same for records that are built already; their ids, in order."""
    if not records:
        raise InvalidInputError("expected at least one record, got none")
    if merge and mode != "upsert":
        raise InvalidInputError('expected mode="upsert" beside merge, got "insert"')
    if not _is_uniform(records, mode):
        return _write_mixed(db, records, mode, merge=merge)
    first = records[0]
    ids: Any = None if first.id is None else [record.id for record in records]
    vectors = None if first.vector is None else [unpack(record.vector) for record in records]
    metadatas = [record.metadata for record in records] if any(r.metadata is not None for r in records) else None
    texts = [record.text for record in records] if any(r.text is not None for r in records) else None
    if mode == "insert":
        return db.add_many(vectors, metadatas, ids=ids, texts=texts)
    if ids is None:
        raise InvalidIdError("expected an id in each record to upsert, got none")
    db.upsert_many(ids, vectors, metadatas, texts=texts, merge=merge)
    return list(ids)


def batch(db: NoPokeDB, request: requests.WriteBatch) -> Written:
    """Changes of several kinds, in one atomic batch; the id of each."""
    if not isinstance(request.changes, list):
        raise InvalidInputError(f"expected changes to be an array, got {type(request.changes).__name__}")
    changes = [
        item if isinstance(item, Change) else build(Change, item, f"changes[{at}]")
        for at, item in enumerate(request.changes)
    ]
    ids: list[Any] = []
    with db.batch() as writing:
        for change in changes:
            check_choice("op", change.op, _OPS)
            if change.op == "add":
                ids.append(writing.add(unpack(change.vector), change.metadata, id=change.id, text=change.text))
            elif change.op == "upsert":
                key = check_id(change.id)
                writing.upsert(
                    key, unpack(change.vector), change.metadata, text=change.text, merge=flag("merge", change.merge)
                )
                ids.append(key)
            else:
                writing.delete(check_id(change.id))
                ids.append(check_id(change.id))
    return Written(ids)


def update(db: NoPokeDB, request: requests.UpdateRecords) -> Counted:
    """See `NoPokeDB.update_many`."""
    return Counted(
        db.update_many(request.ids, request.metadata, where=request.where, merge=flag("merge", request.merge))
    )


def delete(db: NoPokeDB, request: requests.DeleteRecords) -> Counted:
    """See `NoPokeDB.delete_many`."""
    return Counted(db.delete_many(request.ids, where=request.where))


def reserve_ids(db: NoPokeDB, request: requests.ReserveIds) -> Written:
    """Automatic ids that nobody else gets."""
    count = check_int("count", request.count, 1, _MAX_RESERVED)
    above = check_int("above", request.above, -(2**63), 2**63 - 1)
    return Written(list(engine_of(db).reserve_ids(count, above)))


def create_index(db: NoPokeDB, request: requests.Field) -> Done:
    """See `NoPokeDB.create_index`."""
    db.create_index(request.field)
    return Done(True)


def drop_index(db: NoPokeDB, request: requests.Field) -> Done:
    """See `NoPokeDB.drop_index`."""
    return Done(db.drop_index(request.field))


def create_snapshot(db: NoPokeDB, request: requests.Name) -> NamedSnapshot:
    """See `NoPokeDB.snapshot`."""
    return db.snapshot(request.name)


def drop_snapshot(db: NoPokeDB, request: requests.Name) -> Done:
    """See `NoPokeDB.drop_snapshot`."""
    db.drop_snapshot(request.name)
    return Done(True)


def rollback(db: NoPokeDB, request: requests.Name) -> Counted:
    """See `NoPokeDB.rollback`."""
    return Counted(db.rollback(request.name))


def undo(db: NoPokeDB, request: requests.Nothing) -> Counted:
    """See `NoPokeDB.undo`."""
    return Counted(db.undo())


def save(db: NoPokeDB, request: requests.Nothing) -> Done:
    """See `NoPokeDB.save`."""
    db.save()
    return Done(True)


def _is_uniform(records: Iterable[RecordInput], mode: str) -> bool:
    """Whether all records have the same parts, as columns ask for."""
    shapes = {
        (record.id is None, record.vector is None, mode == "upsert" and record.metadata is None) for record in records
    }
    return len({shape[:2] for shape in shapes}) == 1


def _write_mixed(db: NoPokeDB, records: list[RecordInput], mode: str, *, merge: bool) -> list[Any]:
    """Records with different parts, one by one into one batch."""
    ids: list[Any] = []
    with db.batch() as writing:
        for record in records:
            if mode == "insert":
                key = writing.add(unpack(record.vector), record.metadata, id=record.id, text=record.text)
            else:
                key = check_id(record.id)
                writing.upsert(
                    key,
                    unpack(record.vector),
                    record.metadata,
                    text=record.text,
                    merge=merge and record.metadata is not None,
                )
            ids.append(key)
    return ids
