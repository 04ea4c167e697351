"""Whether everything that the package needs to run has a licence of the list. `python -m release.licences sbom.json`.

The list of what is needed is the software bill of materials that `make sbom` makes of an environment in which there
is nothing else: the package with all extras that users install.
"""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing

LIST = Path(__file__).with_name("licences.toml")


@dataclass(frozen=True, slots=True)
class Component:
    """One package of a bill of materials."""

    name: str
    version: str
    licences: tuple[str, ...]
    """SPDX identifiers or expressions, or classifiers, as its metadata have them."""


def components_of(document: dict[str, Any]) -> list[Component]:
    """The packages of a CycloneDX document."""
    found = []
    for item in document["components"]:
        licences = [entry.get("expression") or _name_of(entry["license"]) for entry in item.get("licenses", [])]
        found.append(Component(item["name"].lower().replace("_", "-"), item.get("version", ""), tuple(licences)))
    return found


def _name_of(licence: dict[str, Any]) -> str:
    return str(licence.get("id") or licence.get("name"))


class Judge:
    """The list, and what it allows."""

    def __init__(self, listed: dict[str, Any]) -> None:
        self._allowed = frozenset(listed["allowed"])
        self._classifiers: dict[str, str] = listed["classifiers"]
        self._stated: dict[str, str] = listed["stated"]
        self._spdx = get_spdx_licensing()

    def licences_of(self, component: Component) -> tuple[str, ...]:
        """Its licences as SPDX expressions; none where nobody says."""
        if not component.licences:
            return (self._stated[component.name],) if component.name in self._stated else ()
        return tuple(self._classifiers.get(licence, licence) for licence in component.licences)

    def problem_with(self, component: Component) -> str | None:
        """What is wrong with a package's licence."""
        licences = self.licences_of(component)
        if not licences:
            return "its metadata name no licence; read its files and state it in release/licences.toml"
        for licence in licences:
            try:
                tree = self._spdx.parse(licence, validate=True)
            except ExpressionError:
                return f"expected an SPDX expression or a classifier of release/licences.toml, got {licence!r}"
            if not self._allows(tree):
                return f"{licence} is not on the list of release/licences.toml"
        return None

    def _allows(self, tree: Any) -> bool:
        if getattr(tree, "args", ()):
            parts = [self._allows(part) for part in tree.args]
            return any(parts) if type(tree).__name__ == "OR" else all(parts)
        return str(tree) in self._allowed


def main(arguments: list[str]) -> int:
    document = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    judge = Judge(tomllib.loads(LIST.read_text(encoding="utf-8")))
    components = components_of(document)
    problems = [(item, problem) for item in components if (problem := judge.problem_with(item)) is not None]
    for item, problem in problems:
        print(f"{item.name} {item.version}: {problem}", file=sys.stderr)
    print(f"{len(components)} packages, {len(components) - len(problems)} with a licence of the list")
    return 1 if problems or not components else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
