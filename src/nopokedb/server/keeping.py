"""Operations that take longer than a request: backup, check, optimize, compact. Each is the work of one job."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from nopokedb import NoPokeDB
from nopokedb.backups import Backup
from nopokedb.database import engine_of
from nopokedb.errors import InvalidInputError
from nopokedb.opening import resolve_folder
from nopokedb.problems import Problem
from nopokedb.records import shown
from nopokedb.server import requests
from nopokedb.server.jobs import Job
from nopokedb.server.refusals import ConflictError, NoSuchThingError
from nopokedb.server.results import Done

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SUFFIX = ".npkb"


def backup_file(folder: Path, collection: str, name: object) -> Path:
    """The file of a backup: each collection has a folder of its own, and a name is never a path."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(
            "expected the name of a backup of 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-', "
            f"got {name!r:.150}"
        )
    return resolve_folder(folder, collection) / (name + _SUFFIX)


def backup(db: NoPokeDB, folder: Path, collection: str, request: requests.Backup) -> Backup:
    """See `NoPokeDB.backup`; the path is told as the name."""
    target = backup_file(folder, collection, request.name)
    since = None if request.since is None else backup_file(folder, collection, request.since)
    made = db.backup(target, since=since)
    return replace(made, path=str(request.name))


def check_backup(folder: Path, collection: str, request: requests.Backup) -> None:
    """Refuse what can be refused before the job begins."""
    target = backup_file(folder, collection, request.name)
    if target.exists():
        raise ConflictError(f"expected the name of a new backup, got {request.name!r}, which exists")
    if request.since is not None and not backup_file(folder, collection, request.since).exists():
        raise NoSuchThingError(f"expected the name of an earlier backup, got {request.since!r}, which does not exist")
    target.parent.mkdir(parents=True, exist_ok=True)


def backup_files(folder: Path, collection: str, names: object) -> list[Path]:
    """The files of these backups, all of which are there."""
    if not isinstance(names, list) or not names:
        raise InvalidInputError(f"expected backups to be an array of names, got {shown(names)}")
    files = [backup_file(folder, collection, name) for name in names]
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            raise NoSuchThingError(
                f"expected the name of a backup of {collection!r}, got {name!r}, which does not exist"
            )
    return files


def backups(folder: Path, collection: str) -> list[dict[str, Any]]:
    """Names and sizes of the backups of a collection."""
    place = resolve_folder(folder, collection)
    files = sorted(place.glob(f"*{_SUFFIX}")) if place.is_dir() else []
    return [{"name": file.name.removesuffix(_SUFFIX), "size_bytes": file.stat().st_size} for file in files]


def drop_backup(folder: Path, collection: str, request: requests.Name) -> Done:
    """Delete the file of a backup."""
    try:
        backup_file(folder, collection, request.name).unlink()
    except FileNotFoundError:
        raise NoSuchThingError(
            f"expected the name of a backup of {collection!r}, got {request.name!r}, which does not exist"
        ) from None
    return Done(True)


def check(db: NoPokeDB, request: requests.Check) -> list[Problem]:
    """See `NoPokeDB.check`; files are told by their names."""
    return [
        replace(problem, file=Path(problem.file).name) for problem in db.check(deep=requests.flag("deep", request.deep))
    ]


def compact(db: NoPokeDB) -> dict[str, int]:
    """See `NoPokeDB.compact`."""
    return {"bytes_given_back": db.compact()}


def optimize(db: NoPokeDB, job: Job) -> None:
    """See `NoPokeDB.optimize`; the job is told how far it is."""

    def report(done: int, total: int) -> None:
        job.progress = done / total if total else None

    engine_of(db).optimize(report)
