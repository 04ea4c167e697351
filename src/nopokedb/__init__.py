"""NoPokeDB: an embedded vector database. One folder, nothing acknowledged is ever lost, fast answers.

from nopokedb import NoPokeDB

db = NoPokeDB(dim=384, path="./data")
db.add(vector, {"title": "a record"})
hits = db.query(vector, k=5)
"""

from nopokedb.asynchronous import AsyncNoPokeDB
from nopokedb.batch import Batch
from nopokedb.catalog import drop_collection, list_collections
from nopokedb.database import NoPokeDB
from nopokedb.engine import SegmentStats, Stats
from nopokedb.errors import (
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
    OutcomeUnknownError,
    ReadOnlyError,
    RecordNotFoundError,
    SettingsMismatchError,
)
from nopokedb.plan import Plan
from nopokedb.recall import Recall
from nopokedb.records import Group, Hit, Record
from nopokedb.where import F

__version__ = "1.0.0.dev0"

__all__ = [
    "AsyncNoPokeDB",
    "Batch",
    "BatchTooLargeError",
    "ClosedError",
    "CollectionNotFoundError",
    "CorruptionError",
    "DatabaseLockedError",
    "DuplicateIdError",
    "F",
    "ForkedHandleError",
    "Group",
    "Hit",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidMetadataError",
    "InvalidVectorError",
    "LegacyFolderError",
    "NeedsRecoveryError",
    "NeedsReopenError",
    "NewerFormatError",
    "NoPokeDB",
    "NoPokeError",
    "NotADatabaseError",
    "OutcomeUnknownError",
    "Plan",
    "ReadOnlyError",
    "Recall",
    "Record",
    "RecordNotFoundError",
    "SegmentStats",
    "SettingsMismatchError",
    "Stats",
    "drop_collection",
    "list_collections",
]
