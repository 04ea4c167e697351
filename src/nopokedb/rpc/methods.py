"""The one table of gRPC methods: the operation that each does, its messages, and the way to and from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from nopokedb.remote import documents
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc import told
from nopokedb.server import requests

SERVICE = "nopokedb.v1.NoPokeDB"
ERROR_KEY = "nopokedb-error-bin"
"""Trailing metadata with the JSON document of an error."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method with one request and one reply."""

    name: str
    operation: str
    asked: type[Any]
    """Its message."""
    request: type[Any]
    """The request that the message is."""
    tell: Callable[[Any], Any] | None
    """Result -> message; None: a document of JSON."""
    read: Callable[[Any, Any], Any]
    """(message, request) -> result."""

    @property
    def path(self) -> str:
        return f"/{SERVICE}/{self.name}"

    @property
    def reply(self) -> type[Any]:
        """The message of its reply."""
        return getattr(pb, _REPLIES[self.name])  # type: ignore[no-any-return]


def _document(read: Callable[[Any], Any]) -> tuple[None, Callable[[Any, Any], Any]]:
    """Of a result that is told as JSON."""
    return None, lambda message, request: read(orjson.loads(message.json))


def _plain(read: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda message, request: read(message)


_REPLIES = {method.name: method.output_type.name for method in pb.DESCRIPTOR.services_by_name["NoPokeDB"].methods}
_COUNTED = (told.counted_message, _plain(told.counted_of))
_DONE = (told.done_message, _plain(told.done_of))
_IDS = (told.ids_message, _plain(told.ids_of))
_JOB = _document(lambda job: job)
_SNAPSHOT = _document(documents.snapshot_of)
_NOTHING = (pb.CollectionRequest, requests.Nothing)
_NAME = (pb.NameRequest, requests.Name)
_FIELD = (pb.FieldRequest, requests.Field)

METHODS: tuple[Method, ...] = (
    Method(
        "CreateCollection",
        "create",
        pb.CreateCollectionRequest,
        requests.CreateCollection,
        told.created_message,
        _plain(told.created_of),
    ),
    Method("DescribeCollection", "describe", *_NOTHING, told.collection_message, _plain(told.collection_of)),
    Method("DropCollection", "drop", *_NOTHING, *_DONE),
    Method(
        "ListCollections",
        "list",
        pb.ListCollectionsRequest,
        requests.Nothing,
        lambda names: pb.ListCollectionsReply(collections=names),
        _plain(lambda reply: list(reply.collections)),
    ),
    Method("Query", "query", pb.QueryRequest, requests.Query, told.answers_message, told.answers_of),
    Method("Explain", "explain", pb.QueryRequest, requests.Query, *_document(documents.plan_of)),
    Method("Get", "get", pb.GetRequest, requests.GetRecords, told.records_message, _plain(told.records_of)),
    Method("Count", "count", pb.CountRequest, requests.Count, *_COUNTED),
    Method("Facet", "facet", pb.FacetRequest, requests.Facet, told.facets_message, _plain(told.facets_of)),
    Method(
        "MeasureRecall",
        "measure_recall",
        pb.MeasureRecallRequest,
        requests.MeasureRecall,
        *_document(documents.recall_of),
    ),
    Method("Sample", "sample", pb.SampleRequest, requests.Sample, told.records_message, _plain(told.records_of)),
    Method("Embed", "embed", pb.EmbedRequest, requests.Texts, told.embedded_message, _plain(told.embedded_of)),
    Method("Stats", "stats", *_NOTHING, *_document(documents.stats_of)),
    Method("Write", "write", pb.WriteRequest, requests.WriteRecords, *_IDS),
    Method("Batch", "batch", pb.BatchRequest, requests.WriteBatch, *_IDS),
    Method("Update", "update", pb.UpdateRequest, requests.UpdateRecords, *_COUNTED),
    Method("Delete", "delete", pb.DeleteRequest, requests.DeleteRecords, *_COUNTED),
    Method("ReserveIds", "reserve_ids", pb.ReserveIdsRequest, requests.ReserveIds, *_IDS),
    Method("Undo", "undo", *_NOTHING, *_COUNTED),
    Method("CreateIndex", "create_index", *_FIELD, *_DONE),
    Method("DropIndex", "drop_index", *_FIELD, *_DONE),
    Method("Snapshots", "snapshots", *_NOTHING, *_document(documents.snapshots_of)),
    Method("Snapshot", "snapshot", *_NAME, *_SNAPSHOT),
    Method("CreateSnapshot", "create_snapshot", *_NAME, *_SNAPSHOT),
    Method("DropSnapshot", "drop_snapshot", *_NAME, *_DONE),
    Method("Rollback", "rollback", *_NAME, *_COUNTED),
    Method("Save", "save", *_NOTHING, *_DONE),
    Method("Backup", "backup", pb.BackupRequest, requests.Backup, *_JOB),
    Method("Restore", "restore", pb.RestoreRequest, requests.Restore, *_JOB),
    Method("Check", "check", pb.CheckRequest, requests.Check, *_JOB),
    Method("Compact", "compact", *_NOTHING, *_JOB),
    Method("Optimize", "optimize", *_NOTHING, *_JOB),
    Method("Job", "job", pb.JobRequest, requests.Name, *_JOB),
    Method("Jobs", "jobs", pb.JobsRequest, requests.Nothing, *_document(lambda document: document["jobs"])),
    Method("Backups", "backups", *_NOTHING, *_document(lambda document: document["backups"])),
    Method("DropBackup", "drop_backup", *_NAME, *_DONE),
)
SCAN = f"/{SERVICE}/Scan"
WRITE_STREAM = f"/{SERVICE}/WriteStream"
IMPORT = f"/{SERVICE}/Import"
