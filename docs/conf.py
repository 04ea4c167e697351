"""How `make docs` makes a site out of these pages and the docstrings. Nothing on it is fetched from elsewhere."""

from __future__ import annotations

import os
import re

import nopokedb

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # the reference imports it

project = "NoPokeDB"
author = "the NoPokeDB authors"
version = release = nopokedb.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["assets", "search.md"]  # queries.md includes it: Sphinx has a page of its own at search.html
smartquotes = False

html_theme = "furo"
html_title = "NoPokeDB"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

_CODE = re.compile(r"(?:with |async |from |db\b|hits\b)")
_NAME = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)\)")


def _docstring(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are written for people who read the code: names in single backticks, and examples and trees that stand
    as they are. Both are given the marks that Sphinx wants."""
    done: list[str] = []
    inside = False
    for at, line in enumerate(lines):
        first = not inside and (at == 0 or not lines[at - 1].strip())
        tree = lines[at + 1 : at + 2] != [] and lines[at + 1].startswith("├")
        if first and (tree or _CODE.match(line)):
            done += [f".. code-block:: {'text' if tree else 'python'}", ""]
            inside = True
        inside = inside and bool(line.strip())
        done.append("   " + line if inside else _NAME.sub(r"``\1``", line))
    lines[:] = done


def _page(app: object, name: str, source: list[str]) -> None:
    """Files of the repository that are no pages are named, not linked; search.md is at queries.html."""
    source[0] = _OUTSIDE.sub(r"\1 (`\2`)", source[0]).replace("](search.md", "](queries.md")


def setup(app: object) -> None:
    app.connect("autodoc-process-docstring", _docstring)  # type: ignore[attr-defined]
    app.connect("source-read", _page)  # type: ignore[attr-defined]
