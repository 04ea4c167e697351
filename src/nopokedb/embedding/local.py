"""Where a model's files are on this machine. Nothing is fetched: a name is only looked up in the cache."""

from __future__ import annotations

import os
from pathlib import Path

from nopokedb.errors import InvalidInputError


def is_name(value: object) -> bool:
    """Whether this is a path or a name, rather than a loaded model."""
    return isinstance(value, str | os.PathLike)


def local_folder(place: str | os.PathLike[str]) -> Path | None:
    """The folder of this path, None where there is none."""
    path = Path(place).expanduser()
    return path if path.is_dir() else None


def base_name(place: str | os.PathLike[str]) -> str:
    """The last part of a path or name: that a folder was moved makes no other model of it; the fingerprint tells."""
    return Path(os.path.normpath(place)).name or str(place)


def refusal(kind: str, place: object, how: str, reason: object = None) -> InvalidInputError:
    """The error for a model whose files are not here."""
    told = f" ({reason})" if reason else ""
    return InvalidInputError(
        f"expected the folder of a {kind} model, or the name of one that is in its cache, got "
        f"{str(place)!r:.200}{told}; nothing is downloaded here: {how}"
    )
