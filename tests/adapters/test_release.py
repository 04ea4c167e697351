"""What a release is made with: the bill of materials names all that is needed to run, with licences of the list."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("license_expression", reason="make test-adapters runs it, with the extra release")

from release.licences import LIST, Component, Judge, components_of, main

SBOM = ROOT / "build" / "sbom.json"
NOT_TO_RUN = {"bench", "test", "test-adapters", "docs", "release", "sentence-transformers"}
"""Extras of people who work on the package; and one whose dependency, torch, takes gigabytes."""


def needed() -> dict[str, set[str]]:
    """Names of what each extra that users install needs on this system; "" is the package without any."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = {"": project["dependencies"], **{name: extras[name] for name in set(extras) - NOT_TO_RUN}}
    found = {}
    for name, lines in listed.items():
        requirements = [Requirement(line) for line in lines]
        found[name] = {canonicalize_name(r.name) for r in requirements if r.marker is None or r.marker.evaluate()}
    return found


@pytest.fixture(scope="module")
def sbom() -> dict[str, Any]:
    if not SBOM.exists():
        pytest.skip("build/sbom.json is missing: make sbom writes it")
    document: dict[str, Any] = json.loads(SBOM.read_text())
    return document


def test_every_dependency_is_named_with_version_and_licence(sbom: dict[str, Any]) -> None:
    """What pyproject.toml names, and what that needs in turn; nothing without a version or a licence."""
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "nopokedb")
    judge = Judge(tomllib.loads(LIST.read_text()))
    components = {item.name: item for item in components_of(sbom)}
    assert len(components) == len(sbom["components"])
    for extra, names in needed().items():
        assert names <= set(components), f"not in build/sbom.json: {names - set(components)} of the extra {extra!r}"
    for item in components.values():
        assert item.version and judge.licences_of(item), item
    known = {entry["ref"] for entry in sbom["dependencies"]}
    assert all(set(entry.get("dependsOn", ())) <= known for entry in sbom["dependencies"])
    assert not {"pip", "pytest", "mypy", "sphinx", "ruff"} & set(components)  # what only developers need


def test_the_list_of_extras_is_complete() -> None:
    """`make sbom` installs every extra that users may install, by name or as a part of another."""
    installed = re.search(r"^RUNTIME_EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert installed
    extras = needed()
    assert set().union(*extras.values()) == extras[""].union(*(extras[name] for name in installed[1].split(",")))


def test_every_licence_is_on_the_list(capsys: pytest.CaptureFixture[str], sbom: dict[str, Any]) -> None:
    assert main([str(SBOM)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("licences", "problem"),
    [
        (("MIT",), None),
        (("GPL-3.0-only OR MIT",), None),
        (("MPL-2.0 AND (Apache-2.0 OR GPL-2.0-only)",), None),
        (("License :: OSI Approved :: BSD License", "MIT"), None),
        (("GPL-3.0-only",), "not on the list"),
        (("MIT AND GPL-3.0-only",), "not on the list"),
        (("MIT", "AGPL-3.0-or-later"), "not on the list"),
        (("Apache-2.0 WITH LLVM-exception",), "not on the list"),
        (("Some licence of our own",), "SPDX"),
        ((), "state it"),
    ],
)
def test_other_licences_are_refused(licences: tuple[str, ...], problem: str | None) -> None:
    """All parts of an AND, one of an OR, and every licence that a package names."""
    found = Judge(tomllib.loads(LIST.read_text())).problem_with(Component("some-package", "1.0", licences))
    assert found is None if problem is None else found is not None and problem in found


def test_a_refused_licence_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So does a list of nothing."""
    strange = {"name": "Strange_Package", "version": "2", "licenses": [{"license": {"id": "SSPL-1.0"}}]}
    for components in ([strange], []):
        (tmp_path / "sbom.json").write_text(json.dumps({"components": components}))
        assert main([str(tmp_path / "sbom.json")]) == 1
    assert "strange-package 2: SSPL-1.0 is not on the list" in capsys.readouterr().err


def test_statements_are_of_packages_that_need_them(sbom: dict[str, Any]) -> None:
    """A statement goes when the package's metadata say it."""
    unnamed = {item.name for item in components_of(sbom) if not item.licences}
    stated = set(tomllib.loads(LIST.read_text())["stated"])
    optional = {"rabitqlib"} if sys.version_info >= (3, 15) else set()
    assert stated - optional == unnamed - optional
