"""The site of `make docs`: it builds without a warning, links lead somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from documents import ROOT, needs_adapter, pages, run_page

import nopokedb
from nopokedb.distribution import install_hint

for module in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(module, reason=f"{module} is missing: {install_hint('docs')} (make docs)")

LOADED = {("img", "src"), ("script", "src"), ("source", "src"), ("iframe", "src"), ("link", "href"), ("object", "data")}
"""Attributes that make a browser fetch something by itself."""


class Page(HTMLParser):
    """What a page loads, links to, and can be linked at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif (tag, name) in LOADED and value:
                self.loads.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site, built by the command of `make docs`."""
    target = tmp_path_factory.mktemp("site") / "html"
    (recipe,) = re.findall(r"^\t\$\(ADAPTERS\)/bin/python (-m sphinx .*) docs build/site$", makefile(), re.M)
    command = [sys.executable, *recipe.split(), "docs", str(target)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return target


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_page_is_on_the_site(built: dict[Path, Page]) -> None:
    """Nothing is left out or overwritten. (The strict build sees to it that the navigation leads there.)"""
    assert "--fail-on-warning" in makefile()
    titles = {title for path in built for title in re.findall(r"<h1>(.*?)<a ", path.read_text(), re.S)}
    for page in pages():
        for heading in re.findall(r"\A# (.*)$", page.read_text(), re.M):
            assert heading in titles, page.name


def test_links_lead_somewhere(built: dict[Path, Page]) -> None:
    """Each link within the site names a page, and a place on it, that exist."""
    count = 0
    for path, page in built.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.name} links to {link}"
            if parts.fragment and target in built:
                assert unquote(parts.fragment) in built[target].anchors, f"{path.name} links to {link}"
            count += 1
    assert count > 500


def test_pages_load_nothing_from_elsewhere(site: Path, built: dict[Path, Page]) -> None:
    """No fonts, scripts, pictures or styles of other hosts, in pages or in style sheets."""
    for path, page in built.items():
        for loaded in page.loads:
            assert not urlsplit(loaded).netloc, f"{path.name} loads {loaded}"
    for path in site.rglob("*.css"):
        for loaded in re.findall(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", path.read_text()):
            assert not urlsplit("".join(loaded)).netloc, f"{path.name} loads {loaded}"


def test_the_reference_has_every_public_name(built: dict[Path, Page], site: Path) -> None:
    """Each name of the package, and each method of the class, has a place of its own."""
    anchors = built[site / "reference.html"].anchors
    for name in nopokedb.__all__:
        assert f"nopokedb.{name}" in anchors or f"nopokedb.errors.{name}" in anchors, name
    for name, member in vars(nopokedb.NoPokeDB).items():
        if not name.startswith("_") and callable(member):
            assert f"nopokedb.NoPokeDB.{name}" in anchors, name


@pytest.mark.parametrize("page", [page for page in pages() if needs_adapter(page)], ids=lambda page: page.name)
def test_the_code_about_adapters_runs(page: Path, tmp_path: Path) -> None:
    """The documents that the environment of the other tests cannot run."""
    run_page(page, tmp_path)
