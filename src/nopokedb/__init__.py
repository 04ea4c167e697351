"""NoPokeDB: an embedded vector database. One folder, nothing acknowledged is ever lost, fast answers.

from nopokedb import NoPokeDB

db = NoPokeDB(dim=384, path="./data")
db.add(vector, {"title": "a record"})
hits = db.query(vector, k=5)
"""

import logging
from typing import TYPE_CHECKING, Any

from nopokedb.backups import Backup, StoredBackup
from nopokedb.batch import Batch
from nopokedb.catalog import drop_collection, list_collections
from nopokedb.database import NoPokeDB
from nopokedb.engine import NamedSnapshot, SegmentStats, Stats
from nopokedb.errors import (
    ArchiveError,
    BatchTooLargeError,
    ClosedError,
    CollectionNotFoundError,
    CorruptionError,
    DatabaseLockedError,
    DuplicateIdError,
    ForkedHandleError,
    InvalidFilterError,
    InvalidIdError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidVectorError,
    LegacyFolderError,
    NeedsRecoveryError,
    NeedsReopenError,
    NewerFormatError,
    NoPokeError,
    NotADatabaseError,
    NothingToUndoError,
    NotSupportedError,
    OutcomeUnknownError,
    QueryTimeoutError,
    ReadOnlyError,
    RecordNotFoundError,
    SettingsMismatchError,
    SnapshotNotFoundError,
    UnavailableError,
)
from nopokedb.insight.forecast import Estimate, Forecast, forecast
from nopokedb.insight.outliers import Outlier
from nopokedb.insight.projection import Projection
from nopokedb.jobs import Job
from nopokedb.maintenance import check, restore
from nopokedb.on_server import drop_backup, list_backups, list_jobs
from nopokedb.plan import Plan
from nopokedb.problems import Problem
from nopokedb.recall import Recall
from nopokedb.records import Group, Hit, Record
from nopokedb.tables.giving import to_arrow, to_pandas, to_polars
from nopokedb.views import View
from nopokedb.where import F

if TYPE_CHECKING:
    from nopokedb.asynchronous import AsyncNoPokeDB

# Silent unless the program configures logging: without a handler Python would print warnings to the error stream.
logging.getLogger("nopokedb").addHandler(logging.NullHandler())

__version__ = "1.0.0.dev0"

__all__ = [
    "ArchiveError",
    "AsyncNoPokeDB",
    "Backup",
    "Batch",
    "BatchTooLargeError",
    "ClosedError",
    "CollectionNotFoundError",
    "CorruptionError",
    "DatabaseLockedError",
    "DuplicateIdError",
    "Estimate",
    "F",
    "Forecast",
    "ForkedHandleError",
    "Group",
    "Hit",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidMetadataError",
    "InvalidVectorError",
    "Job",
    "LegacyFolderError",
    "NamedSnapshot",
    "NeedsRecoveryError",
    "NeedsReopenError",
    "NewerFormatError",
    "NoPokeDB",
    "NoPokeError",
    "NotADatabaseError",
    "NotSupportedError",
    "NothingToUndoError",
    "OutcomeUnknownError",
    "Outlier",
    "Plan",
    "Problem",
    "Projection",
    "QueryTimeoutError",
    "ReadOnlyError",
    "Recall",
    "Record",
    "RecordNotFoundError",
    "SegmentStats",
    "SettingsMismatchError",
    "SnapshotNotFoundError",
    "Stats",
    "StoredBackup",
    "UnavailableError",
    "View",
    "check",
    "drop_backup",
    "drop_collection",
    "forecast",
    "list_backups",
    "list_collections",
    "list_jobs",
    "restore",
    "to_arrow",
    "to_pandas",
    "to_polars",
]


def __getattr__(name: str) -> Any:
    """The class that needs asyncio, which takes an eighth of the time of an import, comes with its first use."""
    if name == "AsyncNoPokeDB":
        from nopokedb.asynchronous import AsyncNoPokeDB

        globals()[name] = AsyncNoPokeDB
        return AsyncNoPokeDB
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
