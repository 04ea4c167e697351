"""What a server tells as JSON documents -> the library's types. A field that this version does not know is left out."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from nopokedb.backups import Backup, StoredBackup
from nopokedb.engine import NamedSnapshot, SegmentStats, Stats
from nopokedb.jobs import Job
from nopokedb.plan import FilterPlan, Plan, Search, Stage, TestPlan
from nopokedb.problems import Problem
from nopokedb.recall import Recall
from nopokedb.server.results import Collection

T = TypeVar("T")


def _built(kind: type[T], document: dict[str, Any], **parts: Any) -> T:
    """A dataclass of a document, lists as tuples; `parts` are built already."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
    return kind(**{name: value for name, value in (values | parts).items() if name in known})


def plan_of(document: dict[str, Any]) -> Plan:
    """See `Plan.to_dict`."""
    found = document["filter"]
    if found is not None:
        found = _built(FilterPlan, found, tests=tuple(_built(TestPlan, test) for test in found["tests"]))
    return _built(
        Plan,
        document,
        filter=found,
        searches=tuple(_built(Search, item) for item in document["searches"]),
        stages=tuple(_built(Stage, item) for item in document["stages"]),
    )


def stats_of(document: dict[str, Any]) -> Stats:
    """See `NoPokeDB.stats`."""
    return _built(Stats, document, segments=tuple(_built(SegmentStats, item) for item in document["segments"]))


def recall_of(document: dict[str, Any]) -> Recall:
    """See `NoPokeDB.measure_recall`."""
    return _built(Recall, document)


def snapshot_of(document: dict[str, Any]) -> NamedSnapshot:
    """See `NoPokeDB.snapshot`."""
    return _built(NamedSnapshot, document, created_at=datetime.fromisoformat(document["created_at"]))


def snapshots_of(document: list[dict[str, Any]]) -> list[NamedSnapshot]:
    """See `NoPokeDB.snapshots`."""
    return list(map(snapshot_of, document))


def problems_of(document: list[dict[str, Any]]) -> list[Problem]:
    """See `NoPokeDB.check`."""
    return [_built(Problem, item) for item in document]


def backup_of(document: dict[str, Any]) -> Backup:
    """See `NoPokeDB.backup`."""
    return _built(Backup, document)


def stored_backups_of(document: list[dict[str, Any]]) -> list[StoredBackup]:
    """See `nopokedb.list_backups`."""
    return [_built(StoredBackup, item) for item in document]


def jobs_of(document: list[dict[str, Any]]) -> list[Job]:
    """See `nopokedb.list_jobs`."""
    return [
        _built(
            Job,
            item,
            result=item["result"],
            created_at=datetime.fromisoformat(item["created_at"]),
            ended_at=None if item["ended_at"] is None else datetime.fromisoformat(item["ended_at"]),
            error=None if item["error"] is None else f"{item['error']['type']}: {item['error']['message']}",
        )
        for item in document
    ]


def collection_of(document: dict[str, Any]) -> Collection:
    """What a collection is."""
    return Collection(**{item.name: document[item.name] for item in fields(Collection)})
