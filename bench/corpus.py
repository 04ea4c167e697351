"""Real English texts that Debian offers through apt, and which of them are kept back as queries.

A group holds the texts of one origin: a description, a synset, an entry of a dictionary, a paragraph. Groups are kept
back as a whole, so no part of a query's origin is stored.
"""

from __future__ import annotations

import gzip
import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import debian
from bench.measure import say

Group = list[str]

SHORTEST, LONGEST = 24, 2_000
SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z0-9\"'(*-])")

# Debian packages that `make bench-texts` installs for these sources; descriptions need none.
TEXT_PACKAGES = ("wordnet-base", "dict-gcide", "dict-foldoc", "dict-jargon", "fortunes", "linux-doc-6.1")


@dataclass(frozen=True)
class Corpus:
    """Distinct texts in the order of storing, queries that are not among them, and how many texts each source gave."""

    texts: list[str]
    queries: list[str]
    counts: dict[str, int]


def _sentences(paragraph: str) -> list[str]:
    return [part for part in SENTENCE_END.split(paragraph) if part]


def _windows(paragraph: str) -> Iterator[str]:
    """Each sentence, and each two that follow one another."""
    parts = _sentences(paragraph)
    yield from parts
    if len(parts) > 2:
        yield from (f"{first} {second}" for first, second in itertools.pairwise(parts))


def _descriptions(cache: Path) -> Iterator[Group]:
    if not debian.fetch_lists(cache):
        return
    for package in debian.packages(cache):
        yield [package.long, *(text for paragraph in package.paragraphs for text in _windows(paragraph))]


def _glosses(_: Path) -> Iterator[Group]:
    """WordNet: after the bar of a line of data.* stands the gloss, with examples in quotation marks."""
    for path in sorted(Path("/usr/share/wordnet").glob("data.*")):
        for line in path.read_text("latin-1").splitlines():
            if line.startswith("  ") or " | " not in line:
                continue  # the licence stands in front, in indented lines
            gloss = line.partition(" | ")[2].strip()
            yield [gloss.partition('; "')[0], *re.findall(r'"([^"]+)"', gloss)]


def _dictionary(name: str) -> Callable[[Path], Iterator[Group]]:
    """A dictd database: entries begin at the margin, their definitions are indented blocks below."""

    def read(_: Path) -> Iterator[Group]:
        path = Path("/usr/share/dictd") / f"{name}.dict.dz"
        if not path.exists():
            return
        # A .dz file is a gzip file with an index.
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        for entry in re.split(r"\n(?=\S)", text):
            blocks = re.split(r"\n\s*(?:\[[^\]\n]*\]\s*)?\n|\n\s*\[1913 Webster\]", entry.partition("\n")[2])
            yield [re.sub(r"[{}\\]", "", " ".join(block.split())) for block in blocks]

    return read


def _fortunes(_: Path) -> Iterator[Group]:
    for path in sorted(Path("/usr/share/games/fortunes").glob("*")):
        if path.suffix or path.is_symlink():
            continue
        for fortune in path.read_text("utf-8", "replace").split("\n%\n"):
            yield [" ".join(fortune.split())]


def _kernel_documents(_: Path) -> Iterator[Group]:
    """Prose paragraphs of the kernel's documents: lines at the margin that begin with a letter."""
    for path in sorted(Path("/usr/share/doc").glob("linux-doc-*/Documentation/**/*.rst.gz")):
        if "translations" in path.parts:
            continue
        for paragraph in gzip.decompress(path.read_bytes()).decode("utf-8", "replace").split("\n\n"):
            if paragraph[:1].isalpha() and "::" not in paragraph and "====" not in paragraph:
                yield list(_windows(" ".join(paragraph.split())))


SOURCES: dict[str, Callable[[Path], Iterable[Group]]] = {
    "Debian package descriptions and their sentences": _descriptions,
    "WordNet glosses and examples": _glosses,
    "GCIDE definitions": _dictionary("gcide"),
    "FOLDOC definitions": _dictionary("foldoc"),
    "Jargon File definitions": _dictionary("jargon"),
    "fortunes": _fortunes,
    "Linux kernel documents": _kernel_documents,
}


def _usable(text: str) -> bool:
    return SHORTEST <= len(text) <= LONGEST and " " in text


def collect(cache: Path, query_count: int, seed: int = 11) -> Corpus:
    """All sources that are there, deduplicated exactly, in a random order that the seed fixes."""
    rng = random.Random(seed)
    groups: list[Group] = []
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for name, read in SOURCES.items():
        before = len(seen)
        for group in read(cache):
            fresh = [text for text in dict.fromkeys(group) if _usable(text) and text not in seen]
            seen.update(fresh)
            if fresh:
                groups.append(fresh)
        counts[name] = len(seen) - before
        say(f"  {name}: {counts[name]:,} distinct texts")
    if len(groups) < 2 * query_count:
        return Corpus([], [], counts)
    rng.shuffle(groups)
    kept_back, stored = groups[:query_count], groups[query_count:]
    texts = [text for group in stored for text in group]
    rng.shuffle(texts)
    return Corpus(texts, [rng.choice(group) for group in kept_back], counts)
