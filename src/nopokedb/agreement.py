"""Whether what a handle is opened with agrees with what its collection was created with. The same for every engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from nopokedb.errors import SettingsMismatchError
from nopokedb.filters import path_text

DEFAULTS: Final[dict[str, Any]] = {
    "dim": None,
    "space": "cosine",
    "M": 16,
    "ef_construction": 200,
    "index": "auto",
    "text_language": "en",
    "embed": None,
    "distributed": False,
}
"""Settings that ask for nothing. (Beside `dim`, which may create, a space always asks.)"""
_KEPT = ("dim", "space", "index", "M", "ef_construction", "text_language")
"""Those that every engine keeps."""


def settings_of(stored: Any) -> dict[str, Any]:
    """The settings that every engine keeps, by name, of what has them as attributes."""
    return {name: getattr(stored, name) for name in _KEPT}


def check_settings(place: object, stored: Any, given: Mapping[str, Any]) -> None:
    """Raise `SettingsMismatchError`, which names `place`, for a setting that is given and is not the stored one.

    `stored` has the settings as attributes; `given` is some of `DEFAULTS`, by name.
    """
    for name, want in given.items():
        have = getattr(stored, name)
        asked = want != DEFAULTS[name] or (name == "space" and given.get("dim") is not None)
        if asked and have != want:
            raise SettingsMismatchError(
                f"expected {name}={have!r}, with which {place} was created, got {name}={want!r:.80}"
            )


def check_fields(place: object, indexed: Collection[str], given: Sequence[tuple[str, ...]]) -> None:
    """Raise `SettingsMismatchError` for a field that is given and has no index. Others may have one too: somebody made
    it later."""
    for path in map(path_text, given):
        if path not in indexed:
            listed = ", ".join(sorted(indexed)) or "none"
            raise SettingsMismatchError(
                f"expected indexed_fields to name fields that have an index in {place} ({listed}), got {path!r}; "
                f"make one with create_index({path!r})"
            )
