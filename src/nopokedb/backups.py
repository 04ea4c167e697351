"""`Backup`: what a backup file says of itself. `StoredBackup`: one that a server keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup file."""

    path: str
    lsn: int
    """The moment: every batch up to this lsn is in it, none behind."""
    since_lsn: int | None
    """An incremental one continues the backup of this lsn; None: it is a full one."""
    count: int
    """Records in the file: all, or those that changed."""
    deleted_count: int
    """Ids in the file that an incremental one deletes."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """A backup that a server keeps."""

    name: str
    """As it was given to `backup`; `restore` and `drop_backup` take it."""
    size_bytes: int
