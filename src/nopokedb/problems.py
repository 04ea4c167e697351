"""`Problem`: one thing that `check` found. The kinds are a closed set, so programs may rely on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["note", "warning", "error"]
"""note: the next open deals with it, nothing is lost. warning: something derived is damaged, answers may be slow or,
for a lookup by id, wrong until it is rebuilt. error: stored truth is damaged."""

ProblemKind: TypeAlias = Literal[
    "manifest",  # unreadable, or its checksum differs
    "missing",  # a file that the manifest or the format asks for is not there
    "log",  # a batch that was durable is damaged or missing
    "log_tail",  # an unfinished end, as a crash leaves it
    "unapplied",  # sound batches wait in the log for the next open
    "live_set",  # the set of current versions is damaged, or is no set of one newest version per id
    "labels",  # the table of labels is damaged or names rows that are not there
    "rows",  # the table of rows (norms and checksums) is damaged
    "vector",  # a vector differs from its checksum
    "record",  # an id with its metadata is damaged or missing
    "text",  # a text is damaged or missing
    "id_index",  # SQLite's index on ids hides or invents records
    "field_index",  # an index on a field says otherwise than the records
    "sqlite",  # SQLite reports damage, or stands before the checkpoint
    "index",  # a search index is damaged, missing or does not fit
    "snapshot",  # a named snapshot is damaged
    "lock",  # LOCK is unreadable
    "leftover",  # a file that a crash left behind
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of a check."""

    kind: ProblemKind
    severity: Severity
    message: str
    file: str
    """Path of the file."""
    offset: int | None = None
    """Byte in the file, where it is known."""
    repaired: bool = False
    """It was there, and `repair=True` dealt with it: see the message for what is lost, if anything is."""
