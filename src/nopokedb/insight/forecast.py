"""What a folder will need when it holds more records: disk, memory, time. From a trial on this machine.

Some thousand records of the collection are written to a trial collection beside it, with its settings, in two steps,
and indexed. Each figure is a range, with what it rests on; none is a promise: other work on the machine, other records
and other sizes of batches change them.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nopokedb.database import NoPokeDB, engine_of
from nopokedb.engine import Stats
from nopokedb.errors import InvalidInputError, NotSupportedError
from nopokedb.insight.blocks import places
from nopokedb.postgres.address import is_postgres
from nopokedb.records import Record, Vectors, check_int
from nopokedb.remote.address import is_address

TRIAL_PREFIX = ".forecast-"
"""How the folders of trials begin. No collection can have such a name."""
_TRIAL_RECORDS = 8_192
"""Two steps of 4,096 records: that many are indexed at once."""
_BATCHES = 8
"""Of about as many records as `add_many` takes of an iterator."""
_SEED = 20_260
_NOISE = 0.01
_ENTRY_BYTES = 16 + 8
"""Of each record beside its vector: norm, checksum and flags; row and version (embedded/storage/columns.py)."""
_GROWTH = 1 / 8
_GROWTH_BYTES = 3 * 64 * 1024, 3 * 64 * 2**20
"""Three files of vectors and tables run ahead of what they hold by an eighth, within these bounds."""
_LARGEST_INDEX = 1_000_000
"""Rows that one index covers at most."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure of a forecast."""

    low: float
    high: float
    basis: str
    """What it rests on, in words."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a folder will need; `print` shows lines."""

    path: str
    count: int
    """Records that are asked about."""
    trial_count: int
    """Records of the trial."""
    disk_bytes: Estimate
    memory_bytes: Estimate
    ingest_s: Estimate
    """Seconds to write the records."""
    sealing_s: Estimate
    """Seconds of the processor to index them, in the background while they are written."""
    graph_s: Estimate
    """Seconds to build graphs afterwards, in the background; searches do not wait for them."""

    def __str__(self) -> str:
        lines = [f"{self.path} with {self.count} records, from a trial with {self.trial_count}:"]
        for name, factor, unit in (
            ("disk_bytes", 2**20, "MiB"),
            ("memory_bytes", 2**20, "MiB"),
            ("ingest_s", 1, "s"),
            ("sealing_s", 1, "s"),
            ("graph_s", 1, "s"),
        ):
            item: Estimate = getattr(self, name)
            words = name.rpartition("_")[0]
            lines.append(f"  {words}: {item.low / factor:.1f} to {item.high / factor:.1f} {unit} ({item.basis})")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What was measured."""

    count: int
    half: Stats
    whole: Stats
    batch_s: npt.NDArray[np.float64]
    """Seconds per record of each batch."""
    half_s: float
    """To index the first half."""
    whole_s: float
    """To index all, in one index."""
    graph: Stats | None
    graph_s: float


def forecast(path: str | Path, count: int) -> Forecast:
    """What the folder at `path` will need with `count` records like those that it has. Takes a few seconds, some 100 MB
    of disk beside the folder for that time, and 100 KB of memory per dimension, more for long metadata and texts.

    Returns ranges: disk (files as they are long; holes in them included), memory (indexes and tables; the vectors are
    mapped, and the system keeps as many of them in memory as it has room), seconds to write, to index and to build
    graphs. The records of a folder with less than 8,192 are repeated, with a hundredth of noise on its vectors.

    Raises: `InvalidInputError` for a folder without records, `NotSupportedError` for other engines, `OSError` where the
    trial cannot be written beside the folder.
    """
    count = check_int("count", count, 1, 2**32 - 2)
    if is_postgres(path) or is_address(path):
        raise NotSupportedError("a forecast is supported for folders only: it measures the files of a trial")
    with NoPokeDB(path=path, read_only=True) as db:
        settings = engine_of(db).settings_given()
        records = _some_records(db)
        folder = Path(db.path)
    with tempfile.TemporaryDirectory(prefix=TRIAL_PREFIX, dir=folder.absolute().parent) as place:
        trial = _tried(Path(place), settings, records, wants_graph=_wants_graph(settings, count))
    return Forecast(
        str(folder),
        count,
        trial.count,
        _disk(trial, count),
        _memory(trial, count),
        _ingest(trial, count),
        _sealing(trial, count),
        _graph(trial, count),
    )


def _some_records(db: NoPokeDB) -> list[Record]:
    total = len(db)
    if not total:
        raise InvalidInputError(f"expected records in {db.path} to measure with, found none")
    chosen = places(total, _TRIAL_RECORDS, _SEED)
    wanted = None if chosen is None else set(chosen.tolist())
    scan = db.scan(include=("metadata", "vector", "text"))
    return [record for place, record in enumerate(scan) if wanted is None or place in wanted]


def _wants_graph(settings: dict[str, Any], count: int) -> bool:
    from nopokedb.embedded.sealing import GRAPH_ROWS

    if settings["index"] in ("exact", "scan"):
        return False
    chosen = (settings["M"], settings["ef_construction"]) != (16, 200)
    return settings["index"] in ("graph", "hnsw") or chosen or count >= GRAPH_ROWS


# --- the trial ----------------------------------------------------------------------------------------------


def _tried(place: Path, settings: dict[str, Any], records: list[Record], *, wants_graph: bool) -> _Trial:
    batches = list(_repeated(records))
    half = len(batches) // 2
    plain = settings | {"M": 16, "ef_construction": 200}
    if settings["index"] != "exact":
        plain["index"] = "scan"
    with NoPokeDB(path=place / "trial", **plain) as db:
        times = [_added(db, *batch) for batch in batches[:half]]
        half_s, first = _indexed(db)
        times += [_added(db, *batch) for batch in batches[half:]]
        whole_s, second = _indexed(db)
    graph, graph_s = None, 0.0
    if wants_graph:
        settings = settings if settings["index"] == "hnsw" else settings | {"index": "graph"}
        with NoPokeDB(path=place / "graph", **settings) as db:
            for vectors, _ in batches:
                db.add_many(vectors)
            graph_s, graph = _indexed(db)
        if all(segment.kind == "scan" for segment in graph.segments):
            graph = None  # refused, or impossible here
    return _Trial(second.count, first, second, np.array(times), half_s, whole_s, graph, graph_s)


def _repeated(records: list[Record]) -> Iterator[tuple[Vectors, list[Record]]]:
    """Batches that make up the trial: the records, again and again with noise where they are too few."""
    rng = np.random.default_rng(_SEED)
    size = _TRIAL_RECORDS // _BATCHES
    for start in range(0, _TRIAL_RECORDS, size):
        part = [records[at % len(records)] for at in range(start, start + size)]
        vectors = np.stack([record.vector for record in part if record.vector is not None])
        if start + size > len(records):
            noise = rng.standard_normal(vectors.shape) * (_NOISE * np.linalg.norm(vectors, axis=1).mean())
            vectors = (vectors + noise / math.sqrt(vectors.shape[1])).astype(np.float32)
        yield vectors, part


def _added(db: NoPokeDB, vectors: Vectors, records: list[Record]) -> float:
    """Seconds per record."""
    began = time.perf_counter()
    db.add_many(vectors, [record.metadata for record in records], texts=[record.text for record in records])
    return (time.perf_counter() - began) / len(records)


def _indexed(db: NoPokeDB) -> tuple[float, Stats]:
    """Seconds until everything is indexed, and what there is then."""
    began = time.perf_counter()
    db.optimize()
    spent = time.perf_counter() - began
    db.save()
    return spent, db.stats()


# --- from the trial to the figures --------------------------------------------------------------------------


def _disk(trial: _Trial, count: int) -> Estimate:
    fixed = count * (4 * trial.whole.dim + _ENTRY_BYTES)
    smallest, largest = _GROWTH_BYTES
    ahead = min(max(fixed * _GROWTH, smallest), largest)
    metadata = _line(trial, "metadata_bytes", count)
    index = trial.whole.index_bytes / trial.count * count
    graph = 0.0 if trial.graph is None else trial.graph.index_bytes / trial.count * count
    return Estimate(
        0.95 * (fixed + metadata + index),
        1.05 * (fixed + ahead + metadata + max(index, graph)) + 2**20,
        f"vectors and tables {4 * trial.whole.dim + _ENTRY_BYTES} bytes a record by their format, with room ahead; "
        "metadata and indexes as in the trial" + ("; with and without graphs" if trial.graph is not None else ""),
    )


def _memory(trial: _Trial, count: int) -> Estimate:
    def of(stats: Stats) -> float:
        return (stats.index_memory_bytes + stats.tables_memory_bytes) / trial.count * count

    graph = None if trial.graph is None else of(trial.graph)
    return Estimate(
        0.9 * of(trial.whole),
        1.1 * max(of(trial.whole), graph or 0.0),
        "indexes and tables as in the trial" + (", without and with graphs" if graph is not None else ""),
    )


def _line(trial: _Trial, name: str, count: int) -> float:
    """Bytes of a part that grows by what the second half of the trial added for each record."""
    first, second = getattr(trial.half, name), getattr(trial.whole, name)
    slope = max(0.0, (second - first) / (trial.count - trial.half.count))
    return float(second + slope * (count - trial.count)) if count > trial.count else float(second / trial.count * count)


def _ingest(trial: _Trial, count: int) -> Estimate:
    low, high = np.quantile(trial.batch_s, (0.1, 0.9)).tolist()
    return Estimate(
        low * count,
        high * count,
        f"{len(trial.batch_s)} batches of {trial.count // len(trial.batch_s)} records, each durable: a tenth was "
        "faster, a tenth slower",
    )


def _sealing(trial: _Trial, count: int) -> Estimate:
    if trial.whole.index == "exact":
        return Estimate(0.0, 0.0, "no index is built")
    rate = trial.whole_s / trial.count
    slope = min(rate, max(rate / 10, (trial.whole_s - trial.half_s) / (trial.count - trial.half.count)))
    # A row is encoded again whenever its index is merged into a larger one, about twice as large.
    passes = 1 + max(0.0, math.log2(min(count, _LARGEST_INDEX) / trial.count))
    return Estimate(
        slope * count,
        rate * count * passes,
        f"{trial.half_s:.2f} s for {trial.half.count} and {trial.whole_s:.2f} s for {trial.count} records; once, or "
        f"{passes:.0f} times as indexes are merged while records come",
    )


def _graph(trial: _Trial, count: int) -> Estimate:
    if trial.graph is None:
        return Estimate(0.0, 0.0, "no graph is expected: too few records, not asked for, or refused in the trial")
    rate = trial.graph_s / trial.count
    growth = max(1.0, math.log(min(count, _LARGEST_INDEX)) / math.log(trial.count))
    return Estimate(
        rate * count,
        2.0 * rate * count * growth,
        f"{trial.graph_s:.1f} s for {trial.count} records; twice that and a logarithm for merges and longer walks",
    )
