"""`nopokedb demo`: a collection of this Python's own documentation, and some questions to it."""

from __future__ import annotations

import ast
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.cli.showing import hit_columns, hit_rows
from nopokedb.errors import InvalidInputError

_MODULES = (
    "argparse", "bisect", "calendar", "colorsys", "copy", "csv", "datetime", "difflib", "fractions", "functools",
    "glob", "gzip", "hashlib", "heapq", "inspect", "ipaddress", "locale", "mimetypes", "pathlib", "pprint", "queue",
    "random", "sched", "secrets", "shelve", "shlex", "shutil", "socket", "statistics", "string", "subprocess",
    "tempfile", "textwrap", "threading", "timeit", "tokenize", "uuid", "warnings", "wave", "webbrowser", "zipfile",
)  # fmt: skip
_QUESTIONS: tuple[tuple[str, dict[str, Any] | None], ...] = (
    ("the middle value of a list of numbers", None),
    ("shuffle a deck of cards", None),
    ("open a page in the browser", None),
    ("wait until another thread has finished", {"kind": "method"}),
)

_PARAGRAPH = "\n\n"


@click.command()
@click.option("--path", help="Keep the collection in this folder, which must be empty or absent.")
@json_option
def demo(path: str | None, json: bool) -> None:
    """Collect docstrings of Python's standard library, store them, and ask some questions.

    By meaning with the extra "embed", by words with the extra "text", by both with both.
    """
    output = Output(json=json)
    with ExitStack() as stack:
        folder = Path(path) if path is not None else Path(stack.enter_context(tempfile.TemporaryDirectory())) / "demo"
        if folder.exists() and any(folder.iterdir()):
            raise InvalidInputError(f"expected an empty or absent folder, got {folder}, which has files")
        docs = list(_docstrings(Path(sysconfig.get_path("stdlib"))))
        texts = [text for _, text in docs]
        by_meaning, by_words = _has("wordllama"), _has("tantivy")
        if not (by_meaning or by_words):
            from nopokedb.distribution import install_hint

            raise ImportError(f"the demo needs a model or full-text search: {install_hint('demo')}")
        dim, model = (None, "wordllama") if by_meaning else (1, None)
        db = stack.enter_context(NoPokeDB(dim, path=folder, embed=model))
        began = time.perf_counter()
        with output.progress("reading the standard library"):
            vectors = None if by_meaning else np.ones((len(texts), 1))
            db.add_many(vectors, [metadata for metadata, _ in docs], texts=texts)
        seconds = time.perf_counter() - began
        output.line(f"{len(docs)} docstrings stored in {seconds:.2f} s, {'embedded and ' if by_meaning else ''}durable")
        # The index of the words is made with the first question; this one pays for it.
        db.query("one" if by_meaning else None, 1, text="one" if by_words else None)
        answers = []
        for words, where in _QUESTIONS:
            vector, text = words if by_meaning else None, words if by_words else None
            start = time.perf_counter()
            hits = db.query(vector, 3, text=text, where=where)
            ms = (time.perf_counter() - start) * 1000
            answers.append({"question": words, "where": where, "ms": ms, "hits": hits})
            under = f" where {where}" if where else ""
            output.table(f"{words}{under} ({ms:.1f} ms)", hit_columns(("metadata",)), hit_rows(hits, ("metadata",)))
        output.document({"count": len(docs), "path": path, "answers": answers})
        if path is not None:
            output.line(f'go on with: nopokedb query {path} --text "..."   or: nopokedb info {path}')


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _docstrings(root: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Metadata and text of each docstring of the modules, which are read and not imported."""
    for name in _MODULES:
        file = root / f"{name}.py"
        if file.exists():
            yield from _of(ast.parse(file.read_bytes()), name, "module")


def _of(node: ast.AST, name: str, kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    # The first paragraph: the whole of a long one averages out to no clear meaning.
    text = ast.get_docstring(node) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else None
    if text:
        yield {"name": name, "kind": kind, "module": name.partition(".")[0]}, f"{name}: {text.partition(_PARAGRAPH)[0]}"
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            inner = "class" if isinstance(child, ast.ClassDef) else "method" if kind == "class" else "function"
            yield from _of(child, f"{name}.{child.name}", inner)
