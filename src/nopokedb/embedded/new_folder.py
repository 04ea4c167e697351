"""Making a whole collection where there is none, all or nothing: it gets its name as the last step."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nopokedb.embedded.storage.files import sync_folder
from nopokedb.errors import InvalidInputError


def require_empty(target: Path, verb: str) -> None:
    """Raise `InvalidInputError` unless the folder is empty or absent; `verb` is what would be done into it."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise InvalidInputError(f"expected an empty or absent folder to {verb} into, but {target} has something in it")


@contextmanager
def built_beside(target: Path, doing: str) -> Iterator[Path]:
    """A hidden folder beside the target, to be made and filled; renamed to the target at the end, removed after an
    error. Its name begins with what is being done."""
    target = target.absolute()
    building = target.with_name(f".{doing}-{target.name}-{secrets.token_hex(4)}")
    try:
        yield building
        if target.exists():
            target.rmdir()
        building.rename(target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sync_folder(target.parent)
