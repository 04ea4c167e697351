"""`RemoteEngine`: the engine of a collection that a server keeps. The same for every transport.

The server checks every request again, and answers with the library's own errors: results and errors are those of an
open folder.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nopokedb.agreement import settings_of
from nopokedb.backups import Backup
from nopokedb.embedding.embedder import Embedder
from nopokedb.engine import Answer, Moment, NamedSnapshot, Order, Query, Stats, Write
from nopokedb.errors import (
    ClosedError,
    ForkedHandleError,
    InvalidInputError,
    NotSupportedError,
    ReadOnlyError,
    UnavailableError,
)
from nopokedb.filters import Filter, Scalar, path_text
from nopokedb.filters import Path as FieldPath
from nopokedb.plan import Plan
from nopokedb.problems import Problem
from nopokedb.recall import Recall
from nopokedb.records import Id, Part, Record, Vectors
from nopokedb.remote.address import Address
from nopokedb.remote.documents import backup_of, problems_of
from nopokedb.remote.failures import attempted, error_of
from nopokedb.remote.transport import Transport
from nopokedb.remote.wire import field_text, order_text, question_of, where_of
from nopokedb.server import requests
from nopokedb.server.requests import Change, RecordInput
from nopokedb.server.results import Collection

_NOTHING = requests.Nothing()
_POLL_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between two looks at a job; the last one repeats."""


class Connection:
    """One open handle on a collection: asks, tries again, and says when it is closed."""

    def __init__(self, transport: Transport, address: Address, timeout_s: float) -> None:
        self.address = address
        self._transport = transport
        self._timeout_s = timeout_s
        self._closed = False
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._calls = 0
        """Calls that wait for their answer."""

    def ask(self, operation: str, request: Any = _NOTHING) -> Any:
        """What the operation answers."""
        with self._calling():
            return attempted(
                operation,
                self._timeout_s,
                lambda left: self._transport.call(operation, self.address.collection, request, left),
            )

    def scan(self, request: requests.ScanAll) -> Iterator[Record]:
        """The records of one state, which the server has taken when this returns."""
        with self._calling():
            records = attempted(
                "scan", self._timeout_s, lambda left: self._transport.scan(self.address.collection, request, left)
            )
        return self._until_closed(records)

    def _until_closed(self, records: Iterator[Record]) -> Iterator[Record]:
        """These records; a scan that a close cuts off says so."""
        try:
            yield from records
        except UnavailableError as error:
            if self._closed:
                raise self._closed_error() from error
            raise

    def job(self, operation: str, request: Any, told: Callable[[float], object] = lambda share: None) -> Any:
        """What a job comes to; however long that takes. `told` hears which share of it is done, where that is known."""
        job = self.ask(operation, request)
        pauses = itertools.chain(_POLL_S, itertools.repeat(_POLL_S[-1]))
        while job["ended_at"] is None:
            if job["progress"] is not None:
                told(job["progress"])
            time.sleep(next(pauses))
            job = self.ask("job", requests.Name(job["id"]))
        if job["error"] is not None:
            raise error_of(job["error"])
        return job["result"]

    def check_open(self) -> None:
        if self._pid != os.getpid():
            raise ForkedHandleError(
                f"this handle of {self.address} was opened before a fork and cannot be used in the child; open a new "
                "one there"
            )
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the database {self.address} is closed; open it again")

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """The handle is open, and stays so until the block ends."""
        self.check_open()
        with self._changed:
            self.check_open()  # again: it may have been closed since, and then the transport is gone
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                if not self._calls:
                    self._changed.notify_all()

    def close(self) -> None:
        """Refuse new calls, wait for those that were sent, and close the connection under none of them: a write that
        was cut off would not know its outcome."""
        if self._pid != os.getpid():
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: not self._calls, self._timeout_s)
        self._transport.close()


class RemoteMoment:
    """Reads of one state: the current one, or that of a named snapshot."""

    def __init__(
        self,
        connection: Connection,
        dim: int,
        space: str,
        at: str | None,
        model: tuple[str, tuple[float, ...]] = ("", ()),
    ) -> None:
        self._connection = connection
        self.dim = dim
        self.space = space
        self.embed_name, self.embed_fingerprint = model
        self._at = at

    def get(self, ids: Sequence[Id], include: Sequence[Part]) -> list[Record | None]:
        self._connection.check_open()
        if not ids:
            return []
        request = requests.GetRecords(list(ids), tuple(include), "base64", self._at)
        return self._connection.ask("get", request).records  # type: ignore[no-any-return]

    def exists(self, id_: Id) -> bool:
        return self.get([id_], ())[0] is not None

    def count(self, where: Filter | None) -> int:
        return self._connection.ask("count", requests.Count(where_of(where), self._at)).count  # type: ignore[no-any-return]

    def scan(
        self,
        where: Filter | None,
        order_by: Order | None,
        after: Id | str | None,
        limit: int | None,
        include: Sequence[Part],
    ) -> Iterator[Record]:
        return self._connection.scan(
            requests.ScanAll(where_of(where), order_text(order_by), after, limit, tuple(include), "base64", self._at)
        )

    def facet(self, path: FieldPath, where: Filter | None, limit: int) -> list[tuple[Scalar, int]]:
        request = requests.Facet(field_text(path), where_of(where), limit, self._at)
        return self._connection.ask("facet", request).values  # type: ignore[no-any-return]

    def query(self, query: Query) -> list[Answer]:
        return self._connection.ask("query", question_of(query, self._at)).answers  # type: ignore[no-any-return]


class RemoteEngine(RemoteMoment):
    """One collection of a server."""

    embed_fingerprint: tuple[float, ...] = ()

    def __init__(self, connection: Connection, found: Collection, *, read_only: bool) -> None:
        super().__init__(connection, found.dim, found.space, None)
        self.embed_name = found.embed
        self._read_only = read_only

    def settings_given(self) -> dict[str, Any]:
        """See `nopokedb.engine.Engine.settings_given`."""
        found: Collection = self._connection.ask("describe")
        return settings_of(found) | {"indexed_fields": found.indexed_fields}

    # --- writing ---------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[list[Id] | int]:
        """See `nopokedb.engine.Engine.write`. Of deletes inside a batch of several parts, the number is of those that
        were asked for."""
        if len(writes) == 1:
            return [self._write_one(writes[0])]
        changes = [change for write in writes for change in _changes(write)]
        self._change("batch", requests.WriteBatch(changes))
        return [write.count if write.kind == "delete" else list(write.ids or ()) for write in writes]

    def _write_one(self, write: Write) -> list[Id] | int:
        if write.kind == "delete":
            request = requests.DeleteRecords(_ids(write), where_of(write.where))
            return self._change("delete", request).count  # type: ignore[no-any-return]
        if write.kind == "update":
            assert write.metadatas is not None
            patch: Any = write.metadatas[0]
            update = requests.UpdateRecords(patch, _ids(write), where_of(write.where), write.merge)
            return self._change("update", update).count  # type: ignore[no-any-return]
        mode: Any = "insert" if write.kind == "add" else "upsert"
        return self._change("write", requests.WriteRecords(_records(write), mode, write.merge)).ids  # type: ignore[no-any-return]

    def reserve_ids(self, count: int, above: int) -> list[int]:
        return self._change("reserve_ids", requests.ReserveIds(count, above)).ids  # type: ignore[no-any-return]

    def undo(self) -> int:
        return self._change("undo").count  # type: ignore[no-any-return]

    def rollback(self, name: str) -> int:
        return self._change("rollback", requests.Name(name)).count  # type: ignore[no-any-return]

    # --- how it answers --------------------------------------------------------------------------------------

    def explain(self, query: Query) -> Plan:
        return self._connection.ask("explain", question_of(query, None))  # type: ignore[no-any-return]

    def sample(self, count: int, where: Filter | None) -> tuple[list[Id], Vectors]:
        request = requests.Sample(count, where_of(where), ("vector",), "base64")
        records = self._connection.ask("sample", request).records
        vectors = [record.vector for record in records]
        return [record.id for record in records], np.array(vectors, np.float32).reshape(-1, self.dim)

    def measure_recall(self, query: Query, sample: int) -> Recall:
        request = requests.MeasureRecall(sample, query.k, where_of(query.where), query.vectors, query.ef)  # type: ignore[arg-type]
        return self._connection.ask("measure_recall", request)  # type: ignore[no-any-return]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """What the collection's model makes of these texts."""
        return self._connection.ask("embed", requests.Texts(list(texts)))  # type: ignore[no-any-return]

    # --- keeping ---------------------------------------------------------------------------------------------

    def create_index(self, path: tuple[str, ...]) -> None:
        self._change("create_index", requests.Field(path_text(path)))

    def drop_index(self, path: tuple[str, ...]) -> bool:
        return self._change("drop_index", requests.Field(path_text(path))).done  # type: ignore[no-any-return]

    def compact(self) -> int:
        self._check_writable()
        return int(self._connection.job("compact", _NOTHING)["bytes_given_back"])

    def optimize(self, report: Callable[[int, int], object]) -> None:
        """A job of the server, which tells how far it is."""
        self._check_writable()
        count = self.count(None)
        self._connection.job("optimize", _NOTHING, lambda share: report(int(share * count), count))
        report(count, count)

    def save(self) -> None:
        self._change("save")

    def check(self, deep: bool) -> list[Problem]:
        return problems_of(self._connection.job("check", requests.Check(deep)))

    def backup(self, target: Path, since: int | Path | None) -> Backup:
        """The server keeps the file: `target` and `since` are names."""
        if isinstance(since, int):
            raise InvalidInputError(f"expected since to be the name of an earlier backup of the server, got {since}")
        request = requests.Backup(str(target), None if since is None else str(since))
        return backup_of(self._connection.job("backup", request))

    def snapshot_create(self, name: str) -> NamedSnapshot:
        return self._change("create_snapshot", requests.Name(name))  # type: ignore[no-any-return]

    def snapshots(self) -> list[NamedSnapshot]:
        return self._connection.ask("snapshots")  # type: ignore[no-any-return]

    def at(self, name: str) -> tuple[Moment, NamedSnapshot]:
        named = self._connection.ask("snapshot", requests.Name(name))
        model = (self.embed_name, self.embed_fingerprint)
        return RemoteMoment(self._connection, self.dim, self.space, name, model), named

    def reembedding(self, model: Embedder, snapshot: str | None) -> NoReturn:
        self._check_writable()
        raise NotSupportedError(
            "reembed is supported for folders only: stop the server, run `nopokedb reembed` on the collection's "
            "folder, and start it again"
        )

    def drop_snapshot(self, name: str) -> None:
        self._change("drop_snapshot", requests.Name(name))

    def refresh(self) -> None:
        """The server's state is always the current one."""
        self._connection.check_open()

    def stats(self) -> Stats:
        found: Stats = self._connection.ask("stats")
        return replace(found, path=str(self._connection.address), read_only=self._read_only)

    def close(self) -> None:
        self._connection.close()

    def _change(self, operation: str, request: Any = _NOTHING) -> Any:
        self._check_writable()
        return self._connection.ask(operation, request)

    def _check_writable(self) -> None:
        self._connection.check_open()
        if self._read_only:
            raise ReadOnlyError(f"{self._connection.address} was opened with read_only=True; open it without to write")


def _ids(write: Write) -> list[Id] | None:
    return None if write.ids is None else list(write.ids)


def _part(column: Sequence[Any] | None, at: int) -> Any:
    return None if column is None else column[at]


def _vector(write: Write, at: int) -> Any:
    """A vector to send; one that was computed from the text is computed by the server, which remembers that."""
    return None if write.vectors is None or write.computed is not None else write.vectors[at]


def _records(write: Write) -> list[RecordInput]:
    """The records of a write of columns. Metadata go as the JSON that they are."""
    return [
        RecordInput(_part(write.ids, at), _vector(write, at), _part(write.metadatas, at), _part(write.texts, at))
        for at in range(write.count)
    ]


def _changes(write: Write) -> Iterator[Change]:
    """The same as parts of a batch."""
    kind: Any = write.kind
    for at in range(write.count):
        yield Change(
            kind,
            _part(write.ids, at),
            _vector(write, at),
            _part(write.metadatas, at),
            _part(write.texts, at),
            write.merge,
        )
