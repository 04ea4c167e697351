"""The demo `examples/ask_stdlib.py`: what it collects, how right its answers are, that it runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nopokedb
from nopokedb.distribution import install_hint

SCRIPT = Path(__file__).parents[1] / "examples" / "ask_stdlib.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ask_stdlib", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo: Any = load_script()
NAMED = [(question, right) for question, right in demo.QUESTIONS if right is not None]

needs_wordllama = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None,
    reason=f"the model of the demo is not installed: {install_hint('demo')}",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The whole standard library, embedded by the model, stored, and opened again."""
    path, embed = tmp_path_factory.mktemp("demo") / "docs", demo.WordLlamaEmbedder()
    with nopokedb.NoPokeDB(dim=embed.dim, path=path) as db:
        docs, vectors = demo.build(db, embed, None, demo.Terminal())
    with nopokedb.NoPokeDB(path=path) as db:
        yield SimpleNamespace(db=db, embed=embed, docs=docs, vectors=vectors)


@pytest.fixture
def without_wordllama(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the wheel: None in `sys.modules` makes the import fail."""
    monkeypatch.setitem(sys.modules, "wordllama", None)


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


def test_collecting_reads_source_and_runs_none_of_it(tmp_path: Path) -> None:
    """Every public docstring once, with its kind and line, from modules that would fail if imported."""
    write(
        tmp_path / "this.py",
        '"""A module."""\n'
        "raise RuntimeError('imported')\n"
        "try:\n"
        '    def run():\n        """Run fast."""\n'
        "except ImportError:\n"
        '    def run():\n        """Run slowly."""\n'
        'class Zen:\n    """A class."""\n'
        '    async def say(self):\n        """A method."""\n'
        '    def _secret(self):\n        """Private."""\n',
    )
    write(tmp_path / "json" / "__init__.py", '"""A package."""')
    write(tmp_path / "_pydecimal.py", 'def add():\n    """In Python what decimal has in C."""')
    for ignored in (
        "json/_inner.py",
        "json/test/inner.py",
        "site-packages/json.py",
        "_weakrefset.py",
        "my.py",
    ):
        write(tmp_path / ignored, '"""Not public, or not of the library."""')
    write(tmp_path / "antigravity.py", "not Python at all")

    found = {(doc.qualified_name, doc.kind, doc.line, doc.text) for doc in demo.collect_docstrings(tmp_path)}
    assert found == {
        ("this", "module", 1, "A module."),
        ("this.run", "function", 4, "Run fast."),
        ("this.Zen", "class", 9, "A class."),
        ("this.Zen.say", "method", 11, "A method."),
        ("json", "module", 1, "A package."),
        ("decimal.add", "function", 1, "In Python what decimal has in C."),
    }


def test_the_whole_library_is_collected_without_importing_it() -> None:
    """Several thousand texts, no name twice, and no module imported for it."""
    imported_before = set(sys.modules)
    docs = demo.collect_docstrings(Path(os.__file__).parent)
    names = [doc.qualified_name for doc in docs]
    assert len(names) >= 3000
    assert len(set(names)) == len(names)
    assert all(doc.text for doc in docs)
    assert not {doc.module for doc in docs} & (set(sys.modules) - imported_before)


def test_names_split_into_words() -> None:
    assert demo.split_words("tempfile.TemporaryDirectory") == "tempfile temporary directory"
    assert demo.split_words("http.HTTPServer.do_GET2") == "http http server do get 2"


@needs_wordllama
def test_model_is_read_from_its_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No download and no write: neither the network nor the cache folder is touched."""
    import requests
    from wordllama import WordLlama

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(WordLlama, "DEFAULT_CACHE_DIR", tmp_path)
    vectors = demo.WordLlamaEmbedder()(["a folder", "a directory", "a banana", ""])
    assert vectors.shape == (4, 256) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert not list(tmp_path.iterdir())


@needs_wordllama
@pytest.mark.parametrize(("question", "right"), NAMED, ids=[question for question, _ in NAMED])
def test_answer_is_among_the_first_three(library: SimpleNamespace, question: str, right: frozenset[str]) -> None:
    """The demo's own questions get the answers it promises, through the reopened database."""
    hits = library.db.query(library.embed([question])[0], k=3, include=("metadata", "text"))
    assert right & {hit.id for hit in hits}, [hit.id for hit in hits]


def test_enough_questions_have_a_named_answer() -> None:
    assert len(demo.QUESTIONS) >= 8
    assert len(NAMED) >= 6


@needs_wordllama
def test_measured_recall_is_high_and_notices_wrong_answers(library: SimpleNamespace) -> None:
    """The printed recall reaches 0.99, and falls when the answers are held against other vectors."""
    names = [doc.qualified_name for doc in library.docs]
    queries = library.embed(demo.held_out_queries(library.docs))
    assert len(queries) == 200
    assert demo.measure(library.db, names, library.vectors, queries).recall >= 0.99
    assert demo.measure(library.db, names, library.vectors[::-1], queries).recall < 0.1


def test_held_out_queries_are_not_what_was_embedded(tmp_path: Path) -> None:
    doc = demo.Doc("m", "module", "", 1, "The first sentence of it. A second one of five.\n\nShort.")
    assert demo.text_to_embed(doc) == "m. The first sentence of it."
    assert demo.held_out_queries([doc]) == ["A second one of five."]


def test_fallback_finds_shared_words(without_wordllama: None) -> None:
    """Without the wheel hashed words take over: unit vectors, near for texts that share words."""
    embed = demo.load_embedder()
    assert isinstance(embed, demo.HashedWordsEmbedder)
    texts = ["Merge sorted inputs into one.", "Return the median of the data.", "Copy a directory tree.", ""]
    vectors = embed(texts)
    assert vectors.shape == (4, embed.dim) == (4, 256) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    questions = ["merging two sorted inputs", "the medians", "copying whole directories"]
    assert np.argmax(embed(questions) @ vectors.T, axis=1).tolist() == [0, 1, 2]


def test_fallback_is_the_same_in_every_process() -> None:
    """A kept collection stays searchable by a later process, whatever its hash seed."""
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('ask_stdlib', sys.argv[1])\n"
        "demo = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(demo)\n"
        "print(demo.HashedWordsEmbedder()(['copy a whole tree of files, files and files']).tobytes().hex())\n"
    )
    printed = set()
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, "-c", code, str(SCRIPT)]
        printed.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(printed) == 1
    assert np.frombuffer(bytes.fromhex(printed.pop()), dtype=np.float32).any()


def test_runs_to_the_end_and_leaves_nothing(
    without_wordllama: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fallback is announced with the install hint; the temporary folder is gone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert demo.main(["--limit", "60"]) == 0
    printed = capsys.readouterr().out
    assert "not installed" in printed and install_hint("demo") in printed
    assert "recall@10" in printed
    assert all(question in printed for question, _ in demo.QUESTIONS)
    assert demo.TOGETHER in printed and "docstrings by kind" in printed
    assert "What to try next" in printed and "--ask" in printed and "--path" in printed
    assert "\x1b" not in printed
    assert not list(tmp_path.iterdir())


def test_kept_folder_is_asked_again_without_rebuilding(
    without_wordllama: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second run finds the collection, and the Python printed at the end runs as it stands."""
    arguments = ["--path", str(tmp_path), "--limit", "60", "--ask", "copy a file", "--ask", "sort a list"]
    assert demo.main(arguments) == 0
    first = capsys.readouterr().out
    assert "durable insert" in first and "copy a file" in first and "sort a list" in first

    monkeypatch.setattr(demo, "collect_docstrings", None)
    assert demo.main(arguments) == 0
    second = capsys.readouterr().out
    assert "kept from an earlier run" in second and "copy a file" in second

    lines = second[second.index("  from nopokedb") :].splitlines()
    variables: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in lines), variables)
    variables["db"].close()


@needs_wordllama
def test_model_is_used_where_it_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--limit", "60", "--ask", "copy a file"]) == 0
    printed = capsys.readouterr().out
    assert "wordllama" in printed and "not installed" not in printed
