"""Descriptions of Debian's packages, read from apt's own lists.

Many installations keep no long descriptions (`Acquire::Languages "none"`), so apt fetches its lists once more into a
folder of the benchmark, which needs no rights and leaves the system's lists alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT_HELPER = Path("/usr/lib/apt/apt-helper")
FETCH_LIMIT_S = 300


@dataclass(frozen=True)
class Package:
    """One package: its name, the one-line description, and the paragraphs of the long one."""

    name: str
    short: str
    paragraphs: tuple[str, ...]

    @property
    def long(self) -> str:
        """The long description in one line."""
        return " ".join(self.paragraphs)


def fetch_lists(folder: Path) -> bool:
    """Fetches apt's lists with English long descriptions into `folder`; False where that cannot be done."""
    if shutil.which("apt-get") is None or not APT_HELPER.exists():
        return False
    if any(folder.glob("lists/*_Translation-en*")):
        return True
    # apt's download helper runs as a user of its own, who may not write here, so it is told to stay who it is.
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::lists": folder.resolve() / "lists",
        "Dir::Cache": folder.resolve() / "cache",
        "Acquire::Languages": "en",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
        "APT::Update::Post-Invoke-Success::": "",
    }
    command = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items()), "update"]
    try:
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=FETCH_LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    return any(folder.glob("lists/*_Translation-en*"))


def parse_translations(text: str) -> Iterator[Package]:
    """The packages in the text of one Translation-en file: stanzas of `Field: value`, parted by blank lines.

    A long description continues its field on lines that begin with a space; " ." stands for an empty one.
    """
    for stanza in text.split("\n\n"):
        name = re.search(r"^Package: (\S+)", stanza, re.MULTILINE)
        description = re.search(r"^Description-en: (.*)\n((?: .*\n?)*)", stanza, re.MULTILINE)
        if not name or not description:
            continue
        paragraphs: list[list[str]] = [[]]
        for line in description[2].splitlines():
            if line.strip() in ("", "."):
                paragraphs.append([])
            else:
                paragraphs[-1].extend(line.split())
        yield Package(name[1], description[1].strip(), tuple(" ".join(words) for words in paragraphs if words))


def packages(folder: Path) -> list[Package]:
    """Every package in the lists below `folder`, each name once, ordered by name."""
    found: dict[str, Package] = {}
    for path in sorted(folder.glob("lists/*_Translation-en*")):
        # apt keeps its lists compressed in ways that Python cannot read; its helper can.
        unpacked = subprocess.run([str(APT_HELPER), "cat-file", str(path)], check=True, stdout=subprocess.PIPE)
        for package in parse_translations(unpacked.stdout.decode("utf-8", "replace")):
            found.setdefault(package.name, package)
    return [found[name] for name in sorted(found)]
