"""Whether what a handle was asked for agrees with what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nopokedb.embedded.storage.manifest import Settings
from nopokedb.embedded.store import Store
from nopokedb.errors import SettingsMismatchError
from nopokedb.filters import path_text


def check_settings(folder: Path, stored: Settings, given: Settings | None) -> None:
    """What was asked for is what is stored. M, ef_construction and index at their defaults ask for nothing."""
    if given is None:
        return
    defaults = Settings(given.dim, given.space, 16, 200, "auto")
    for name in ("dim", "space", "M", "ef_construction", "index", "text_language"):
        have, want = getattr(stored, name), getattr(given, name)
        asked = name in ("dim", "space") or want != getattr(defaults, name)
        if asked and have != want:
            raise SettingsMismatchError(
                f"expected {name}={have!r}, with which {folder} was created, got {name}={want!r}"
            )


def check_fields(folder: Path, store: Store, given: Sequence[tuple[str, ...]]) -> None:
    """The fields that were asked for have an index. Others may have one too: somebody made it later."""
    if given:
        have = {field.path for field in store.reader.fields()}
        for path in given:
            if path not in have:
                listed = ", ".join(map(path_text, sorted(have))) or "none"
                raise SettingsMismatchError(
                    f"expected indexed_fields to name fields that have an index in {folder} ({listed}), got "
                    f"{path_text(path)!r}; make one with create_index({path_text(path)!r})"
                )
