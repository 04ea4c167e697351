"""Durable writes: batches, single adds, and single adds from several threads.

The first two run unchanged on this project and on the original release, whose constructor, `add`, `add_many`
and `close` take the same arguments; which of the two it is depends on the process.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

import nopokedb
from bench.datasets import Dataset, Floats, metadata_for
from bench.measure import say
from bench.scale import BATCH_SIZE, Scale
from bench.timing import together


def _open(folder: Path, vectors: Floats) -> nopokedb.NoPokeDB:
    shutil.rmtree(folder, ignore_errors=True)
    return nopokedb.NoPokeDB(vectors.shape[1], len(vectors), str(folder), "cosine")


def _batch_rate(folder: Path, vectors: Floats, batch_size: int) -> float:
    """Vectors a second until the last `add_many` has returned."""
    metadatas = metadata_for(len(vectors))
    db = _open(folder, vectors)
    started = time.perf_counter()
    for start in range(0, len(vectors), batch_size):
        db.add_many(vectors[start : start + batch_size], metadatas[start : start + batch_size])
    rate = len(vectors) / (time.perf_counter() - started)
    db.close()
    return rate


def _single_rate(folder: Path, vectors: Floats) -> float:
    """Calls of `add` a second from one thread, each acknowledged before the next."""
    metadatas = metadata_for(len(vectors))
    db = _open(folder, vectors)
    started = time.perf_counter()
    for vector, metadata in zip(vectors, metadatas, strict=True):
        db.add(vector, metadata)
    rate = len(vectors) / (time.perf_counter() - started)
    db.close()
    return rate


def _threaded_rate(folder: Path, vectors: Floats, thread_count: int) -> float:
    """Calls of `add` a second, all threads together, each thread waiting for its own acknowledgements."""
    db = _open(folder, vectors)
    shares = [vectors[number::thread_count] for number in range(thread_count)]
    metadatas = [metadata_for(len(share)) for share in shares]

    def work(number: int) -> None:
        for vector, metadata in zip(shares[number], metadatas[number], strict=True):
            db.add(vector, metadata)

    rate = len(vectors) / together(work, thread_count)
    stored = len(db)
    db.close()
    if stored != len(vectors):
        raise RuntimeError(f"expected {len(vectors)} records after the adds, found {stored}")
    return rate


def measure_writes(dataset: Dataset, folder: Path, scale: Scale) -> dict[str, object]:
    """Medians over the rounds of: batches of 1,000, everything in one call, and single adds."""
    batched: list[float] = []
    at_once: list[float] = []
    single: list[float] = []
    for number in range(scale.write_round_count):
        batched.append(_batch_rate(folder, dataset.vectors, BATCH_SIZE))
        at_once.append(_batch_rate(folder, dataset.vectors, len(dataset.vectors)))
        single.append(_single_rate(folder, dataset.vectors[: scale.single_add_count]))
        say(
            f"  round {number + 1}: {batched[-1]:,.0f} v/s in batches, {at_once[-1]:,.0f} v/s at once, "
            f"{single[-1]:,.0f} single adds/s"
        )
    return {
        "version": nopokedb.__version__,
        "batched_per_s": statistics.median(batched),
        "at_once_per_s": statistics.median(at_once),
        "single_per_s": statistics.median(single),
        "rounds": {"batched": batched, "at_once": at_once, "single": single},
    }


def measure_threads(dataset: Dataset, folder: Path, scale: Scale) -> dict[str, object]:
    """The same single adds from one thread and from several, in turn; medians over the rounds."""
    vectors = dataset.vectors[: scale.single_add_count]
    one: list[float] = []
    many: list[float] = []
    for _ in range(scale.write_round_count):
        one.append(_threaded_rate(folder, vectors, 1))
        many.append(_threaded_rate(folder, vectors, scale.thread_count))
        say(f"  1 thread {one[-1]:,.0f} adds/s, {scale.thread_count} threads {many[-1]:,.0f} adds/s")
    return {
        "thread_count": scale.thread_count,
        "one_thread_per_s": statistics.median(one),
        "many_threads_per_s": statistics.median(many),
    }
