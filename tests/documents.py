"""The code in the documents, and how it is run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pages() -> list[Path]:
    """All pages of docs/."""
    return sorted((ROOT / "docs").glob("*.md"))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def needs_adapter(page: Path) -> bool:
    """Whether the page's code needs a library that only the environment of the adapters has."""
    return any("nopokedb.adapters" in block for block in python_blocks(page))


def run_page(page: Path, folder: Path) -> str:
    """Run the Python blocks of the page, one after the other, in an empty folder, where `examples/` are beside; what
    they printed."""
    script = folder / "page.py"
    script.write_text("\n".join(python_blocks(page)))
    shutil.copytree(ROOT / "examples", folder / "examples")
    run = subprocess.run([sys.executable, script.name], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout
