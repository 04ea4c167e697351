"""The notes of a release: its part of CHANGELOG.md. `python -m release.notes 1.0.0`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def notes_of(text: str, version: str) -> str:
    """What stands between the heading of the version and the next. Raises `ValueError` if there is none, or nothing in
    it."""
    parts = re.split(r"^## ", text, flags=re.M)[1:]
    found = {part.split(None, 1)[0].strip("[]"): part.partition("\n")[2].strip() for part in parts}
    if version not in found:
        raise ValueError(f"expected one of {', '.join(found)} in CHANGELOG.md, got {version!r}")
    if not found[version]:
        raise ValueError(f"expected changes under {version} in CHANGELOG.md, found none")
    return found[version]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("expected one version: make release-notes VERSION=1.0.0", file=sys.stderr)
        return 2
    try:
        print(notes_of(CHANGELOG.read_text(encoding="utf-8"), arguments[0]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
