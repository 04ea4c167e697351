"""A format after the present one, for tests alone: the package as a later version of it would be, with one migration.

In it the file of the live set has another name. That is enough to show what a migration has to get right: a new file,
a new manifest, an old file that goes, and a copy of the folder as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nopokedb.embedded import migration
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.files import sync, sync_folder

PRESENT = 1
NEXT = PRESENT + 1
_LATER = 10**9
"""Added to the number in the name of a live set."""


def move_live_set(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """The step: a copy of the live set under its new name."""
    if not fields["live_file"]:
        return fields
    start, number = fields["live_file"].removesuffix(".bits").rsplit("-", 1)
    name = f"{start}-{int(number) + _LATER}.bits"
    shutil.copyfile(folder / fields["live_file"], folder / name)
    with (folder / name).open("rb+") as file:
        sync(file.fileno())
    sync_folder(folder)
    return {**fields, "live_file": name}


@contextmanager
def format_is(version: int) -> Iterator[None]:
    """Within the block the package is one whose format is this."""
    usual, steps = manifests.FORMAT_VERSION, dict(migration.STEPS)
    manifests.FORMAT_VERSION = version
    migration.STEPS[PRESENT] = move_live_set
    try:
        yield
    finally:
        manifests.FORMAT_VERSION = usual
        migration.STEPS.clear()
        migration.STEPS.update(steps)
