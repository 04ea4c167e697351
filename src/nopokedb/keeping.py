"""What is done to a folder that no handle of this process has open: `check` it, `restore` it."""

from __future__ import annotations

from pathlib import Path

from nopokedb.database import resolve_folder
from nopokedb.problems import Problem


def check(path: str | Path, repair: bool = False, deep: bool = True) -> list[Problem]:
    """Compare everything that is stored in the collection at `path`; the problems found, none if all is sound.

    Writers are kept out while it runs. A folder that has a writer raises `DatabaseLockedError`: call `check` on a
    handle instead.

    Args:
        repair: rebuild what is derived, restore what the log, a checksum or another file still proves, retire records
            that are damaged beyond that, and move what cannot be saved into `quarantine-<n>/` inside the folder.
            Implies `deep`. Where the folder cannot be opened at all, what is sound of it becomes a new generation.
            A problem that is gone afterwards has `repaired` set.
        deep: read every record, text, vector and index, not only tables, sizes and SQLite's quick check.

    Raises: `CollectionNotFoundError`, `NotADatabaseError`, `DatabaseLockedError`; never for damage, which is reported.
    """
    from nopokedb.embedded.repair import check_folder_alone

    return check_folder_alone(resolve_folder(path, None), repair=bool(repair), deep=bool(deep))
