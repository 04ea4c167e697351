"""Full text and hybrid search of this project: loading, freshness, and the times of the kinds of query in turn.

Documents are the long descriptions of Debian's packages, filled up with other texts of the corpus; queries are
packages' one-line descriptions.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import debian
from bench.datasets import Floats
from bench.filters import records
from bench.filters.conversation import serve
from bench.filters.scale import BATCH_SIZE, K, Scale
from bench.filters.timing import stretch, timed_us
from bench.measure import say
from bench.peers.nopokedb_ours_filters import settle
from nopokedb import NoPokeDB

QUERY_COUNT = 200
MARKER = "zyqxwv"
"""With a number behind it, a word that no document has."""
SEARCHABLE_LIMIT_S = 60
TENTH = {"group": 3}


@dataclass(frozen=True)
class Documents:
    """What is stored, what is asked, and the vectors of both."""

    texts: list[str]
    vectors: Floats
    queries: list[str]
    query_vectors: Floats

    def metadatas(self) -> list[dict[str, object]]:
        """Each record's title and one of ten groups."""
        return [{"title": text[: records.TITLE_LENGTH], "group": row % 10} for row, text in enumerate(self.texts)]


def load(folder: Path, count: int) -> Documents:
    """The documents and their vectors, cached below `folder`."""
    corpus = records.load_corpus(folder)
    packages = debian.packages(folder / "debian")
    if not packages:
        raise RuntimeError("no package descriptions: this part needs Debian's apt")
    chosen = list(dict.fromkeys([*(package.long for package in packages if package.long), *corpus.texts]))
    rng = random.Random(2)
    texts = chosen[:count]
    rng.shuffle(texts)
    queries = rng.sample(sorted({package.short for package in packages}), QUERY_COUNT)
    vectors = records.embed_cached(folder, "documents", texts)
    return Documents(texts, vectors, queries, records.embed_cached(folder, "shorts", queries))


def _until_found_us(db: Any, word: str) -> float:
    """Microseconds until a text query for the word finds something."""
    deadline = time.monotonic() + SEARCHABLE_LIMIT_S
    started = time.perf_counter()
    while not db.query(text=word, k=1):
        if time.monotonic() > deadline:
            raise RuntimeError(f"a stored word was not found within {SEARCHABLE_LIMIT_S} s")
    return (time.perf_counter() - started) * 1e6


def _load(folder: Path, documents: Documents) -> tuple[Any, float, float]:
    """Stores everything in durable batches: the database, records a second, and the time until text is searchable."""
    shutil.rmtree(folder, ignore_errors=True)
    metadatas = documents.metadatas()
    texts = [*documents.texts[:-1], f"{documents.texts[-1]} {MARKER}0"]
    db: Any = NoPokeDB(documents.vectors.shape[1], path=folder, space="cosine")
    started = time.perf_counter()
    for start in range(0, len(texts), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        db.add_many(documents.vectors[part], metadatas[part], texts=texts[part])
    rate = len(texts) / (time.perf_counter() - started)
    return db, rate, _until_found_us(db, f"{MARKER}0")


def _freshness(db: Any, documents: Documents, count: int) -> dict[str, float]:
    """Adds single records and looks for each at once."""
    added, found = [], []
    for number in range(1, count + 1):
        word = f"{MARKER}{number}"
        vector = documents.query_vectors[number % QUERY_COUNT]
        added.append(timed_us(partial(db.add, vector, {"title": word, "group": 0}, text=f"a new record {word}")))
        found.append(_until_found_us(db, word))
    return {"add_us": statistics.median(added), "found_after_add_us": statistics.median(found)}


def _kinds(db: Any, documents: Documents) -> dict[str, Callable[[int], Callable[[], object]]]:
    """The kinds of query that are timed in turn."""

    def pick(number: int) -> tuple[Floats, str]:
        return documents.query_vectors[number % QUERY_COUNT], documents.queries[number % QUERY_COUNT]

    return {
        "vector": lambda number: partial(db.query, pick(number)[0], k=K),
        "text": lambda number: partial(db.query, text=pick(number)[1], k=K),
        "hybrid": lambda number: partial(db.query, pick(number)[0], text=pick(number)[1], k=K),
        "text, a tenth passes": lambda number: partial(db.query, text=pick(number)[1], k=K, where=TENTH),
        "hybrid, a tenth passes": lambda number: partial(
            db.query, pick(number)[0], text=pick(number)[1], k=K, where=TENTH
        ),
    }


def measure(corpus: Path, folder: Path, scale: Scale) -> dict[str, Any]:
    """Everything measured with texts; medians over the rounds."""
    documents = load(corpus, scale.document_count)
    rates, searchable = [], []
    for number in range(scale.load_round_count):
        db, rate, until = _load(folder, documents)
        rates.append(rate)
        searchable.append(until)
        say(f"  loaded at {rate:,.0f} records/s; searchable after {until / 1e3:,.1f} ms")
        if number + 1 < scale.load_round_count:
            db.close()
    db.create_index("group")
    settle(db)
    kinds = _kinds(db, documents)
    for question in kinds.values():
        for number in range(QUERY_COUNT):
            question(number)()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(scale.round_count):
        for name, question in kinds.items():
            rounds[name].append(stretch(question, scale.round_s))
    fresh = _freshness(db, documents, scale.added_count)
    db.close()
    timed = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in rounds.items()
    }
    return {
        "count": len(documents.texts),
        "mean_characters": sum(map(len, documents.texts)) / len(documents.texts),
        "add_per_s": statistics.median(rates),
        "searchable_after_load_us": statistics.median(searchable),
        **fresh,
        "timed": timed,
        "rounds": rounds,
    }


if __name__ == "__main__":
    CORPUS, FOLDER, SCALE = sys.argv[1:]
    serve({"measure": lambda: measure(Path(CORPUS), Path(FOLDER), Scale(**json.loads(SCALE)))})
