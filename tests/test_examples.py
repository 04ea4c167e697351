"""The programs in examples/ beside the demo, on the real files that they are for, and on a few that are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LICENCES = Path("/usr/share/common-licenses")
STATUS = Path("/var/lib/dpkg/status")
needs_debian = pytest.mark.skipif(
    not (LICENCES.is_dir() and STATUS.is_file()), reason="its input is what every Debian has, and this is none"
)


def run(name: str, *arguments: object, code: int = 0) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def answers(output: str, title: str) -> list[str]:
    """The lines below a title."""
    return output.split(f"\n{title}\n")[1].split("\n\n")[0].splitlines()


@needs_debian
def test_the_licences_of_this_machine_answer() -> None:
    """The right licence comes first or second, and the place that is named is where the words stand."""
    output = run("ask_licences.py")
    charge = answers(output, "may I charge money for a copy")
    assert any(line.split(",")[0].strip().startswith(("GPL", "LGPL")) for line in charge[:2])
    for line in charge:
        name, number, words = re.match(r"\s*(\S+), line (\d+)\s+(.*)", line).groups()  # type: ignore[union-attr]
        stands = " ".join((LICENCES / name).read_text().split("\n")[int(number) - 1].split())
        assert stands and stands.startswith(words[:40]), line


def test_other_texts_are_asked_too(tmp_path: Path) -> None:
    """`--folder` takes any texts; links are not read twice; a missing folder is an error that names it."""
    (tmp_path / "bread").write_text(
        "Heading\n\n" + "Knead the dough until it is smooth, then let it rest for an hour. " * 2
    )
    (tmp_path / "bike").write_text(
        "Turn the bicycle upside down and take the wheel out of the frame before you mend it.\n"
    )
    (tmp_path / "link").symlink_to("bike")
    output = run("ask_licences.py", "--folder", tmp_path, "bake the dough")
    assert output.startswith("2 paragraphs of 2 files")
    assert answers(output, "bake the dough")[0].split()[:3] == ["bread,", "line", "3"]
    assert "nowhere" in run("ask_licences.py", "--folder", tmp_path / "nowhere", code=2)


@needs_debian
def test_the_packages_of_this_machine_are_found() -> None:
    """dpkg itself says how many there are; gzip is on every Debian."""
    output = run("similar_packages.py")
    listed = subprocess.run(
        ["dpkg-query", "-f", "${Package} ${Status}\n", "-W"], capture_output=True, text=True, check=True
    )
    installed = {line.split()[0] for line in listed.stdout.splitlines() if line.endswith(" installed")}
    assert output.startswith(f"{len(installed)} packages: ")
    assert any(line.split()[0] in ("gzip", "bzip2") for line in answers(output, "compress files"))
    assert all(line.split()[0] != "gzip" for line in answers(output, "like gzip"))


def test_packages_are_read_field_by_field(tmp_path: Path) -> None:
    """Removed packages are left out, and one of two architectures comes once."""
    status = tmp_path / "status"
    one = "Package: {0}\nStatus: {1}\nSection: non-free/utils\nInstalled-Size: 12\nDepends: libc6 (>= 2), a | b:any\n"
    text = "Description: packs files\n and unpacks them\n"
    status.write_text("\n".join(one.format(*pair) + text for pair in (("zip", "install ok installed"),) * 2))
    status.write_text(status.read_text() + "\n" + one.format("old", "deinstall ok config-files") + text)
    output = run("similar_packages.py", "--status", status, "pack files")
    assert output.startswith("1 packages: utils 1")
    assert answers(output, "pack files")[0].split() == ["zip", "utils", "12", "kB", "packs", "files"]
    assert "nothing-here" in run("similar_packages.py", "--status", tmp_path / "nothing-here", code=2)


def test_every_example_is_shown() -> None:
    """docs/examples.md shows each program with what it prints."""
    text = (ROOT / "docs" / "examples.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"python examples/{path.name}" in text, path.name
    assert text.count("```text") == len(list((ROOT / "examples").glob("*.py")))
