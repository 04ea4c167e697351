"""Batches: one transaction each, which is written once whatever happens to the connection.

A batch carries a random key, which its transaction inserts into `batches`. Where the connection is lost in the middle
of a commit, nobody knows whether it was done: the key is looked up on the server that is the primary then, and the
batch is written again only if it is not there. An old primary that still commits the first attempt holds the key, so
the second one waits for it and finds the batch done.

Under READ COMMITTED, each part of a batch sees the earlier ones. Records that a part changes are locked in the order
of their ids. A record that appears between the look and the write makes the transaction start again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg import errors as pg
from psycopg import sql

from nopokedb.engine import Write
from nopokedb.errors import DuplicateIdError, InvalidInputError, NoPokeError, OutcomeUnknownError, UnavailableError
from nopokedb.metadata_json import decode_metadata, encode_metadata, merge_metadata
from nopokedb.postgres.codec import escape, fields_of, id_of, key_of, vector_bytes
from nopokedb.postgres.connections import Connection, Connections, Raw, TryAgain, lost
from nopokedb.postgres.filter_sql import Condition, condition_of
from nopokedb.postgres.schema import Collection
from nopokedb.postgres.text import Indexer
from nopokedb.postgres.write_sql import BINARY_TYPES, statements
from nopokedb.records import Id, check_batch_bytes

Results: TypeAlias = list[list[Id] | int]

_FEW = 16
"""So many records go by INSERT; more go by COPY."""
_FOLD_EVERY = 1_000
_FOLD_AGE = "1 hour"
"""Keys of batches are kept so long: nobody asks for an older one."""


@dataclass(slots=True)
class _Row:
    """What is to be stored of one record; None keeps what is there."""

    key: bytes
    vector: bytes | None = None
    metadata: bytes | None = None
    text: str | None = None
    computed: bool | None = None


@dataclass(slots=True)
class _Old:
    """What is there of a record that is to be changed."""

    metadata: bytes
    length: int | None
    computed: bool


@dataclass(slots=True)
class _Tally:
    """By how much a batch changes the statistics of texts."""

    documents: int = 0
    length: int = 0
    size: int = 0
    """Bytes of all that the batch writes."""
    changed: int = 0
    """Records written or deleted."""
    highest: int = -1
    """The largest int id that was given."""

    def text(self, new: int | None, old: int | None) -> None:
        self.documents += (new is not None) - (old is not None)
        self.length += (new or 0) - (old or 0)


class Writer:
    """Writes the batches of one handle."""

    def __init__(self, connections: Connections, collection: Collection, indexer: Callable[[], Indexer]) -> None:
        self._connections = connections
        self._collection = collection
        self._indexer = indexer
        self._written = 0
        self._counter_seen = -1
        """A lower bound of the counter of automatic ids."""
        self._sql = statements(collection)

    # --- batches -------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> Results:
        """See `nopokedb.engine.Engine.write`."""
        key = uuid.uuid4()
        single = _single(writes)
        results: Results | None = None
        maybe_done = False

        def attempt() -> Results:
            nonlocal results, maybe_done
            with self._connections.connection() as connection:
                if maybe_done:
                    row = connection.execute(self._sql["done"], (key,)).fetchone()
                    if row is not None:
                        return [[id_of(row[0])]] if results is None else results
                try:
                    maybe_done = True  # whatever is not an answer of the server leaves it open
                    if single is not None and not self._collection.settings.distributed:
                        return self._add_one(connection, single, key)
                    with connection.transaction():
                        results = self._transaction(connection, writes, key)
                    return results
                except TryAgain:
                    maybe_done = False
                    raise
                except psycopg.Error as error:
                    if lost(error):
                        self._counter_seen = -1  # another server may not have come as far
                    elif error.sqlstate is not None:
                        maybe_done = False
                    if isinstance(error, pg.UniqueViolation):
                        if not self._is_done(connection, key):  # an attempt that was given up for lost has come through
                            self._explain(error, writes)
                        maybe_done = True
                        raise TryAgain from error
                    raise

        try:
            found = self._connections.persist(attempt)
        except UnavailableError as error:
            if maybe_done:
                raise OutcomeUnknownError(
                    f"{error}; the batch is there whole or not at all: look for its records once the server is back"
                ) from error
            raise
        self._written += 1
        if self._written % _FOLD_EVERY == 0:
            self.fold()
        return found

    def _is_done(self, connection: Connection, key: uuid.UUID) -> bool:
        return connection.execute(self._sql["done"], (key,)).fetchone() is not None

    def reserve_ids(self, count: int, above: int) -> list[int]:
        """Automatic ids above `above`, which nobody else gets."""

        def reserve(connection: Connection) -> list[int]:
            with connection.transaction():
                self._raise_counter(connection, above)
                return self._take_ids(connection, count)

        return self._connections.run(reserve)

    def fold(self) -> None:
        """Make one line of the old lines of `batches`."""

        def fold(connection: Connection) -> None:
            connection.execute(self._sql["fold"], (_FOLD_AGE,))

        self._connections.run(fold)

    def _explain(self, error: pg.UniqueViolation, writes: Sequence[Write]) -> None:
        """Raise what the caller is to know of an id that exists."""
        detail = error.diag.message_detail or ""
        id_ = id_of(bytes.fromhex(detail.partition("(id)=(\\x")[2].partition(")")[0]))
        if not any(id_ in (write.ids or ()) for write in writes):
            raise TryAgain from error  # an automatic id that another writer gave by hand: it moves the counter
        raise DuplicateIdError(f"expected a new id, got {id_!r}, which exists; use upsert to replace it") from error

    # --- one record ----------------------------------------------------------------------------------------

    def _add_one(self, connection: Connection, write: Write, key: uuid.UUID) -> Results:
        """One new record with an automatic id, in one statement and one round trip."""
        assert write.vectors is not None and write.metadatas and write.texts
        row = _Row(b"", vector_bytes(write.vectors)[0], write.metadatas[0], write.texts[0], bool(write.computed))
        values, length = self._values(row, new=True)
        check_batch_bytes(_size(row))
        documents = int(length is not None)
        try:
            cursor = connection.execute(self._sql["add one"], (*values[1:], key, documents, length or 0), binary=True)
        except pg.SequenceGeneratorLimitExceeded as error:
            raise _no_room() from error
        found = cursor.fetchone()
        assert found is not None
        return [[id_of(found[0])]]

    # --- several -------------------------------------------------------------------------------------------

    def _transaction(self, connection: Connection, writes: Sequence[Write], key: uuid.UUID) -> Results:
        if self._collection.settings.distributed and any(write.kind in ("upsert", "update") for write in writes):
            # Rows of several shards cannot be locked.
            connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (self._collection.number,))
        tally = _Tally()
        results = [self._part(connection, write, tally) for write in writes]
        check_batch_bytes(tally.size)
        if tally.changed:  # doing nothing twice is harmless
            connection.execute(self._sql["note"], (key, tally.documents, tally.length))
        if tally.highest > self._counter_seen:
            self._raise_counter(connection, tally.highest)
        return results

    def _part(self, connection: Connection, write: Write, tally: _Tally) -> list[Id] | int:
        match write.kind:
            case "add":
                return self._add(connection, write, tally)
            case "upsert":
                return self._upsert(connection, write, tally)
            case "update":
                return self._update(connection, write, tally)
        return self._delete(connection, write, tally)

    def _add(self, connection: Connection, write: Write, tally: _Tally) -> list[Id]:
        ids: list[Id] = list(write.ids) if write.ids is not None else [*self._take_ids(connection, write.count)]
        if write.ids is not None:
            _note_highest(tally, ids)
        rows = self._rows(write, ids)
        for at, row in enumerate(rows):
            row.computed = bool(write.computed and write.computed[at])
        self._insert(connection, rows, tally)
        return ids

    def _insert(self, connection: Connection, rows: list[_Row], tally: _Tally) -> None:
        """Store new records."""
        stored = []
        for row in rows:
            values, length = self._values(row, new=True)
            stored.append(values)
            tally.changed += 1
            tally.text(length, None)
            tally.size += _size(row)
        check_batch_bytes(tally.size)
        with connection.cursor() as cursor:
            if len(stored) <= _FEW:
                cursor.executemany(self._sql["insert"], stored)
            else:
                self._copy(cursor, "copy", stored)

    def _upsert(self, connection: Connection, write: Write, tally: _Tally) -> list[Id]:
        ids = list(write.ids or ())
        rows = self._rows(write, ids)
        old = self._locked(connection, rows)
        patches = write.metadatas or [None] * write.count
        for at, row in enumerate(rows):
            before, patch = old.get(row.key), patches[at]
            computed = None if write.computed is None else write.computed[at]
            if computed is not None:
                # A vector that was computed never replaces one that was given by hand.
                keeps = not computed or (before is not None and not before.computed)
                row.vector, row.computed = (None, None) if keeps else (row.vector, True)
            elif row.vector is not None:
                row.computed = False
            if before is None and row.vector is None:
                raise InvalidInputError(f"expected a vector for the new id {ids[at]!r}, got none")
            if write.merge and patch is not None:
                row.metadata = _merged(b"{}" if before is None else before.metadata, patch)
        _note_highest(tally, ids)
        self._store(connection, rows, old, tally)
        return ids

    def _update(self, connection: Connection, write: Write, tally: _Tally) -> int:
        assert write.metadatas is not None
        patch = write.metadatas[0]
        assert patch is not None
        if write.where is not None:
            condition = condition_of(write.where)
            lock = sql.SQL("") if self._collection.settings.distributed else sql.SQL(" FOR UPDATE")
            found = connection.execute(
                sql.SQL("SELECT id, metadata, length, computed FROM {} WHERE {} ORDER BY id{}").format(
                    self._collection.records, condition.sql, lock
                ),
                condition.values,
                binary=True,
            ).fetchall()
            old = {key: _Old(metadata, length, bool(computed)) for key, metadata, length, computed in found}
        else:
            old = self._locked(connection, [_Row(key_of(id_)) for id_ in write.ids or ()])
        rows = [
            _Row(key, metadata=_merged(before.metadata, patch) if write.merge else patch) for key, before in old.items()
        ]
        self._store(connection, rows, old, tally)
        return len(rows)

    def _delete(self, connection: Connection, write: Write, tally: _Tally) -> int:
        if write.where is not None:
            condition = condition_of(write.where)
        else:
            condition = Condition(sql.SQL("id = ANY(%s)"), [[key_of(id_) for id_ in write.ids or ()]])
        row = connection.execute(
            sql.SQL(
                "WITH gone AS (DELETE FROM {} WHERE {} RETURNING length) "
                "SELECT count(*), count(length), coalesce(sum(length), 0)::bigint FROM gone"
            ).format(self._collection.records, condition.sql),
            condition.values,
        ).fetchone()
        assert row is not None
        count, documents, length = row
        tally.changed += count
        tally.documents -= documents
        tally.length -= length
        return int(count)

    def _locked(self, connection: Connection, rows: list[_Row]) -> dict[bytes, _Old]:
        """What is there of these records, locked until the end of the transaction."""
        name = "look" if self._collection.settings.distributed else "lock"
        found = connection.execute(self._sql[name], ([row.key for row in rows],), binary=True).fetchall()
        return {key: _Old(metadata, length, bool(computed)) for key, metadata, length, computed in found}

    def _store(self, connection: Connection, rows: list[_Row], old: dict[bytes, _Old], tally: _Tally) -> None:
        """Store records of which some are there."""
        if not rows:
            return
        stored = []
        for row in rows:
            before = old.get(row.key)
            row.computed = bool(row.computed) if before is None else row.computed
            values, length = self._values(row, new=before is None)
            stored.append(values)
            tally.changed += 1
            if before is None or row.text is not None:
                tally.text(length, None if before is None else before.length)
            tally.size += _size(row)
        check_batch_bytes(tally.size)
        added = 0
        with connection.cursor() as cursor:
            if len(stored) <= _FEW:
                cursor.executemany(self._sql["upsert"], stored, returning=True)
                while True:
                    added += sum(new for (new,) in cursor.fetchall())
                    if not cursor.nextset():
                        break
            else:
                cursor.execute(self._sql["stage"])
                cursor.execute(self._sql["empty stage"])
                self._copy(cursor, "copy to stage", stored)
                cursor.execute(self._sql["upsert from stage"])
                added = cursor.fetchone()[0]  # type: ignore[index]
        if added != len(rows) - len(old):
            raise TryAgain  # a record came or went since it was looked at

    # --- rows ----------------------------------------------------------------------------------------------

    def _rows(self, write: Write, ids: Sequence[Id]) -> list[_Row]:
        vectors: Sequence[bytes | None] = [None] * write.count
        if write.vectors is not None:
            vectors = vector_bytes(write.vectors)
        metadatas: Sequence[bytes | None] = write.metadatas or [None] * write.count
        texts: Sequence[str | None] = write.texts or [None] * write.count
        return [
            _Row(key_of(id_), vector, metadata, text)
            for id_, vector, metadata, text in zip(ids, vectors, metadatas, texts, strict=True)
        ]

    def _values(self, row: _Row, *, new: bool) -> tuple[list[Any], int | None]:
        """The columns of a record, NULL for what is kept, and the length of its text."""
        metadata = row.metadata if row.metadata is not None else b"{}" if new else None
        values: list[Any] = [
            Raw(row.key),
            None if row.vector is None else Raw(row.vector),
            None if metadata is None else Raw(metadata),
            None if metadata is None else Raw(b"\1" + fields_of(metadata)),
        ]
        if row.text is None:
            return [*values, None, None, None, None, None, row.computed], None
        made = self._indexer().index(row.text)
        document = Raw(escape(row.text).encode())
        return [
            *values, document, made.terms, Raw(b"\1" + made.places), made.length, made.norm, row.computed,
        ], made.length  # fmt: skip

    def _copy(self, cursor: psycopg.Cursor[Any], name: str, rows: Sequence[Sequence[Any]]) -> None:
        """Send rows in the binary format; `bytea` goes as it is, so the server reads each as the column's type."""
        with cursor.copy(self._sql[name]) as copy:
            copy.set_types(BINARY_TYPES)
            for row in rows:
                copy.write_row([bytes(value) if type(value) is Raw else value for value in row])

    # --- automatic ids -------------------------------------------------------------------------------------

    def _take_ids(self, connection: Connection, count: int) -> list[int]:
        try:
            found = connection.execute(self._sql["take ids"], (count,)).fetchall()
        except pg.SequenceGeneratorLimitExceeded as error:
            raise _no_room() from error
        ids = sorted(number for (number,) in found)
        self._counter_seen = max(self._counter_seen, ids[-1])
        return ids

    def _raise_counter(self, connection: Connection, highest: int) -> None:
        """Let automatic ids go on above `highest`. Under a lock until the commit, so that it never goes back."""
        if highest <= self._counter_seen:
            return
        connection.execute("SELECT pg_advisory_xact_lock(%s, 1)", (self._collection.number,))
        connection.execute(self._sql["raise counter"], (highest, highest))
        self._counter_seen = max(self._counter_seen, highest)


def _single(writes: Sequence[Write]) -> Write | None:
    """The one write of one new record with an automatic id."""
    write = writes[0] if len(writes) == 1 else None
    return write if write is not None and write.kind == "add" and write.count == 1 and write.ids is None else None


def _merged(base: bytes, patch: bytes) -> bytes:
    return encode_metadata(merge_metadata(decode_metadata(base), decode_metadata(patch)))


def _note_highest(tally: _Tally, ids: Sequence[Id]) -> None:
    tally.highest = max(tally.highest, max((id_ for id_ in ids if isinstance(id_, int)), default=-1))


def _size(row: _Row) -> int:
    return len(row.vector or b"") + len(row.metadata or b"") + len((row.text or "").encode())


def _no_room() -> NoPokeError:
    return InvalidInputError("expected room for automatic ids, but the largest int id was used; give ids")
