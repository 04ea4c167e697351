"""The one table of operations: what each is called, who may use it, what it is asked, and the function that does it.

REST routes and gRPC methods name operations from here, so a new one is a line here, its function, and one line in each
transport.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nopokedb.server import reading, requests, writing
from nopokedb.server.access import Role


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one collection."""

    name: str
    role: Role
    request: type[Any]
    run: Callable[[Any, Any], Any]
    """(open collection, request) -> result; runs in a thread."""
    pool: Literal["read", "write", "slow"]
    """Whose threads do it: reads are bound by the processor, writes wait for the disk, slow ones are kept apart."""

    @property
    def writing(self) -> bool:
        """It needs a handle that can write."""
        return self.role != "read"


_ALL = (
    Operation("query", "read", requests.Query, reading.query, "read"),
    Operation("explain", "read", requests.Query, reading.explain, "read"),
    Operation("get", "read", requests.GetRecords, reading.get, "read"),
    Operation("scan", "read", requests.Scan, reading.scan, "read"),
    Operation("sample", "read", requests.Sample, reading.sample, "read"),
    Operation("count", "read", requests.Count, reading.count, "read"),
    Operation("facet", "read", requests.Facet, reading.facet, "read"),
    Operation("measure_recall", "read", requests.MeasureRecall, reading.measure_recall, "slow"),
    Operation("embed", "read", requests.Texts, reading.embed, "read"),
    Operation("stats", "read", requests.Nothing, reading.stats, "read"),
    Operation("snapshots", "read", requests.Nothing, reading.snapshots, "read"),
    Operation("snapshot", "read", requests.Name, reading.snapshot, "read"),
    Operation("write", "write", requests.WriteRecords, writing.write, "write"),
    Operation("batch", "write", requests.WriteBatch, writing.batch, "write"),
    Operation("update", "write", requests.UpdateRecords, writing.update, "write"),
    Operation("delete", "write", requests.DeleteRecords, writing.delete, "write"),
    Operation("reserve_ids", "write", requests.ReserveIds, writing.reserve_ids, "write"),
    Operation("undo", "write", requests.Nothing, writing.undo, "write"),
    Operation("create_index", "admin", requests.Field, writing.create_index, "slow"),
    Operation("drop_index", "admin", requests.Field, writing.drop_index, "slow"),
    Operation("create_snapshot", "admin", requests.Name, writing.create_snapshot, "slow"),
    Operation("drop_snapshot", "admin", requests.Name, writing.drop_snapshot, "slow"),
    Operation("rollback", "admin", requests.Name, writing.rollback, "slow"),
    Operation("save", "admin", requests.Nothing, writing.save, "slow"),
)
OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _ALL}
