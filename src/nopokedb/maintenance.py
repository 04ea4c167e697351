"""What is done to a folder that no handle of this process has open: `check` it, `restore` it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nopokedb.errors import InvalidInputError, NotSupportedError
from nopokedb.opening import check_name, refuse_key, resolve_folder
from nopokedb.postgres.address import is_postgres
from nopokedb.problems import Problem
from nopokedb.remote.address import is_address, parse_address


def check(path: str | Path, repair: bool = False, deep: bool = True) -> list[Problem]:
    """Compare everything that is stored in the collection at `path`; the problems found, none if all is sound.

    Writers are kept out while it runs. A folder that has a writer raises `DatabaseLockedError`: call `check` on a
    handle instead.

    With the address of a collection in PostgreSQL (`postgresql://...#collection`) or on a server
    (`http://host:port/collection`) it is what `check` on a handle does, without repair.

    Args:
        repair: rebuild what is derived, restore what the log, a checksum or another file still proves, retire records
            that are damaged beyond that, and move what cannot be saved into `quarantine-<n>/` inside the folder.
            Implies `deep`. Where the folder cannot be opened at all, what is sound of it becomes a new generation.
            A problem that is gone afterwards has `repaired` set.
        deep: read every record, text, vector and index, not only tables, sizes and SQLite's quick check.

    Raises: `CollectionNotFoundError`, `NotADatabaseError`, `DatabaseLockedError`; never for damage, which is reported.
    """
    if is_postgres(path) or is_address(path):
        from nopokedb.database import NoPokeDB

        if repair:
            instead = "use PostgreSQL's own tools" if is_postgres(path) else "stop the server and check the folder"
            raise NotSupportedError(f"repair=True is supported for folders only: {instead}")
        with NoPokeDB(path=path, read_only=True) as db:
            return db.check(deep=bool(deep))
    from nopokedb.embedded.repair import check_folder_alone

    return check_folder_alone(resolve_folder(path, None), repair=bool(repair), deep=bool(deep))


def restore(
    source: str | Path | Sequence[str | Path],
    path: str | Path,
    *,
    backup_of: str | None = None,
    api_key: str | None = None,
) -> int:
    """Make a collection in the empty or absent folder `path` from a backup file, or from a full one and incremental
    ones in order. Everything in the files is checked before anything is written, and the folder appears whole or not
    at all.

    It is a new collection with the records, settings and counter of automatic ids of the last file's moment. Search
    indexes are built again in the background of the first handle.

    With the address of a collection on a server (`http://host:port/collection`), which must not exist, the files are
    those that the server keeps, and `source` has their names.

    Args:
        backup_of: at a server, the collection that was backed up, if it has another name.
        api_key: a key of the server, with the role admin for both collections.

    Returns: how many records it has. Raises `ArchiveError` for files that are damaged, foreign or do not continue each
    other, `InvalidInputError` if the folder has something in it, OSError if the disk has not the room.
    """
    if isinstance(source, bytes) or not isinstance(source, str | Path | Sequence):
        raise InvalidInputError(f"expected a backup file or a list of them, got {type(source).__name__} {source!r:.80}")
    sources = [source] if isinstance(source, str | Path) else list(source)
    if is_address(path):
        from nopokedb.remote.opening import connected
        from nopokedb.server.requests import Restore

        address = parse_address(str(path))
        check_name(address.collection)
        with connected(address, api_key) as connection:
            request = Restore([str(name) for name in sources], backup_of)
            return int(connection.job("restore", request)["count"])
    refuse_key(api_key)
    if is_postgres(path):
        raise NotSupportedError(
            "restore is not supported by the engine PostgreSQL: restore into a folder, then use `nopokedb copy`"
        )
    if backup_of is not None:
        raise NotSupportedError("expected backup_of only with the address of a server: here sources are files")
    from nopokedb.embedded.restore import restore_backups

    return restore_backups([resolve_folder(item, None) for item in sources], resolve_folder(path, None))
