"""`migrate`: a foreign collection becomes one of ours, and is compared with what it came from.

Records go over in id order in atomic batches, so what a migration that was killed leaves is the beginning of the
origin, and `resume` goes on behind it: the beginning is read again, and must be what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from nopokedb.copying import Advance, Side, batches, between, last_record, side, write_batch
from nopokedb.database import NoPokeDB, engine_of
from nopokedb.errors import CollectionNotFoundError, InvalidInputError
from nopokedb.metadata_json import encode_metadata
from nopokedb.moving.beside import Beside
from nopokedb.moving.origin import Origin
from nopokedb.records import Id, Record, Space, check_choice, check_id, check_int, check_text, check_vector, id_order

Program: TypeAlias = Literal["chroma", "qdrant", "faiss", "hnswlib", "usearch", "sqlite-vec", "lancedb", "legacy"]
PROGRAMS: tuple[Program, ...] = get_args(Program)
BARE: tuple[Program, ...] = ("faiss", "hnswlib", "usearch")
"""Index files, which hold vectors and numbers only."""
_K = 10
_TIE = 1e-6
"""Relative difference of distances that float32 explains."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the origin does not say by itself."""

    collection: str | None = None
    """Of several collections or tables."""
    vector: str | None = None
    """Of several vectors of a record: its name or column."""
    space: Space | None = None
    """None: the origin's own."""
    metadata: Path | None = None
    """For index files: a file with ids and metadata, in any format that `nopokedb import` reads."""
    id: str | None = None
    """The column of the ids, where a table names none (LanceDB); None: "id"."""
    text: str | None = None
    """The key of the metadata that is the record's text."""


@dataclass(slots=True)
class MigrationReport:
    """What was found and done."""

    program: str
    source: str
    target: str
    dim: int
    space: str
    found: int
    """Ids in the origin."""
    migrated: int = 0
    """Records written now."""
    count: int = 0
    """Records in the target."""
    resumed_behind: Id | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """Records that cannot be stored here, by id, and why."""
    left_out: tuple[str, ...] = ()
    """What does not come along, in words."""
    source_side: Side | None = None
    target_side: Side | None = None
    overlap: float | None = None
    """Mean share of the ten nearest of sampled points, found in the origin's vectors by comparing all, that a default
    query of the target names too."""
    query_count: int = 0
    dry_run: bool = False

    @property
    def same(self) -> bool | None:
        """Whether both hold the same records; None in a dry run."""
        if self.source_side is None or self.target_side is None:
            return None
        return (self.source_side.count, self.source_side.checksum) == (
            self.target_side.count,
            self.target_side.checksum,
        )


def open_origin(program: Program, source: Path, choices: Choices) -> Origin:
    """The foreign collection, open for reading. Raises `ArchiveError` where it is damaged or something else."""
    if program == "chroma":
        from nopokedb.moving.chroma import ChromaOrigin

        return ChromaOrigin(source, choices.collection)
    if program == "qdrant":
        from nopokedb.moving.qdrant import QdrantOrigin

        return QdrantOrigin(source, choices.collection, choices.vector)
    if program == "legacy":
        from nopokedb.moving.original import OriginalOrigin

        return OriginalOrigin(source, choices.space)
    if program == "lancedb":
        from nopokedb.moving.lance import LanceOrigin

        return LanceOrigin(source, choices.collection, choices.id, choices.vector, choices.space)
    if program == "sqlite-vec":
        from nopokedb.moving.sqlite_vec import SqliteVecOrigin

        return SqliteVecOrigin(source, choices.collection, choices.vector)
    if program == "hnswlib":
        from nopokedb.moving.hnswlib_file import open_hnswlib

        return open_hnswlib(source, choices.space)
    if program == "usearch":
        from nopokedb.moving.usearch_file import open_usearch

        return open_usearch(source, choices.space)
    from nopokedb.moving.faiss_file import open_faiss

    return open_faiss(source, choices.space)


def migrate(
    program: Program,
    source: str | Path,
    target: str | Path,
    choices: Choices | None = None,
    *,
    queries: int = 100,
    resume: bool = False,
    dry_run: bool = False,
    advance: Advance = lambda count, share: None,
) -> MigrationReport:
    """Bring a collection of another program to `target`, a folder or any address, which must have no records unless
    `resume` is set; then compare both: counts, a checksum of all records, and the answers to `queries` sampled points.

    Args:
        dry_run: read and check every record, and write nothing.
        advance: told the number of records and the share of them, now and then.

    Raises: `ArchiveError` if the source is damaged or something else; `InvalidInputError` for wrong arguments.
    """
    choices = choices or Choices()
    check_choice("the program", program, Program)
    check_int("queries", queries, 1, 10_000)
    source = Path(source)
    if not source.exists():
        raise InvalidInputError(f"expected a file or folder, found none at {source}")
    if choices.metadata is not None and program not in BARE:
        raise InvalidInputError(f"expected no file of metadata for {program}, which has its own")
    origin = open_origin(program, source, choices)
    try:
        with Beside(choices.metadata) as beside:
            report = MigrationReport(
                program, str(source), str(target), origin.dim, choices.space or origin.space, len(origin.ids)
            )
            report.dry_run = dry_run
            run = _Migration(origin, beside, choices, report)
            if dry_run:
                report.count = sum(1 for _ in run.good())
                report.refused = {str(id_): reason for id_, reason in run.refused.items()}
            else:
                run.write(str(target), resume, queries, advance)
            report.left_out = (*origin.notes, *beside.notes)
            return report
    finally:
        origin.close()


class _Migration:
    """One run."""

    def __init__(self, origin: Origin, beside: Beside, choices: Choices, report: MigrationReport) -> None:
        self._origin, self._beside, self._choices, self._report = origin, beside, choices, report
        self.refused: dict[Id, str] = origin.refused

    def good(self) -> Iterator[Record]:
        """The records that can be stored here, as they will be, in id order."""
        report = self._report
        for record in self._origin.records():
            try:
                check_id(record.id)
                found = self._with_text(self._beside.joined(record))
                with np.errstate(invalid="ignore"):  # bytes of a damaged file may be a NaN that signals
                    vector = check_vector(found.vector, report.dim, report.space)
                encode_metadata(found.metadata)
                check_text(found.text)
            except InvalidInputError as error:
                self.refused[record.id] = str(error)
                continue
            yield Record(found.id, found.metadata, vector, found.text)

    def _with_text(self, record: Record) -> Record:
        key = self._choices.text
        if key is None or record.metadata is None or key not in record.metadata or record.text is not None:
            return record
        rest = {name: value for name, value in record.metadata.items() if name != key}
        return Record(record.id, rest, record.vector, record.metadata[key])

    def write(self, target: str, resume: bool, queries: int, advance: Advance) -> None:
        """All of it, then the comparison."""
        report = self._report
        with _opened(target, report) as goal:
            report.target = goal.path
            if not resume and len(goal):
                raise InvalidInputError(
                    f"expected no records in the target, got {len(goal)} in {goal.path}; --resume goes on with a "
                    "migration"
                )
            last = last_record(goal)
            report.resumed_behind = None if last is None else last.id
            for batch in batches(self._behind(goal, report.resumed_behind)):
                write_batch(goal, batch)
                report.migrated += len(batch)
                advance(report.migrated, None)
            report.count = len(goal)
            report.refused = {str(id_): reason for id_, reason in self.refused.items()}
            report.source_side = side(report.source, self.good())
            report.target_side = side(goal.path, goal.scan(include=("metadata", "vector", "text")))
            self._compare(goal, queries)

    def _behind(self, goal: NoPokeDB, last: Id | None) -> Iterator[Record]:
        """The records behind the last one that the target has. Raises if it is not a beginning of the origin."""
        before = 0
        for record in self.good():
            if last is not None and id_order(record.id) <= id_order(last):
                before += 1
                continue
            if before is not None:
                self._check_beginning(goal, before)
                before = None  # type: ignore[assignment]  # once
            yield record
        if before is not None:
            self._check_beginning(goal, before)

    def _check_beginning(self, goal: NoPokeDB, before: int) -> None:
        if before != len(goal):
            raise InvalidInputError(
                f"expected the beginning of {self._report.source} in the target, got {len(goal)} records where the "
                f"source has {before}; migrate into an empty collection"
            )

    def _compare(self, goal: NoPokeDB, queries: int) -> None:
        """The nearest of sampled points by comparing all vectors of the origin, and by a query of the target."""
        ids, vectors = engine_of(goal).sample(queries, None)
        if not ids:
            return
        points = between(vectors)
        nearest = Nearest(points.astype(np.float64), goal.space)
        for record in self.good():
            assert record.vector is not None
            nearest.see(record.id, record.vector)
        found = [{hit.id: hit.distance or 0.0 for hit in goal.query(point, k=_K)} for point in points]
        self._report.overlap = nearest.overlap(found)
        self._report.query_count = len(points)


def _opened(target: str, report: MigrationReport) -> NoPokeDB:
    """The target, created where it is missing."""
    try:
        db = NoPokeDB(path=target)
    except CollectionNotFoundError:
        return NoPokeDB(report.dim, path=target, space=report.space)  # type: ignore[arg-type]  # a Space
    if (db.dim, db.space) != (report.dim, report.space):
        settings = f"{db.dim} dimensions, {db.space}"
        db.close()
        raise InvalidInputError(
            f"expected a target of {report.dim} dimensions under {report.space}, got one of {settings} in {target}"
        )
    return db


class Nearest:
    """The nearest vectors to some points, in float64, by plain definitions and no code of the search."""

    def __init__(self, points: npt.NDArray[np.float64], space: str) -> None:
        self._points, self._space = points, space
        self._best: list[dict[Id, float]] = [{} for _ in points]
        self._ids: list[Id] = []
        self._vectors: list[npt.NDArray[np.float32]] = []

    def see(self, id_: Id, vector: npt.NDArray[np.float32]) -> None:
        """One more vector."""
        self._ids.append(id_)
        self._vectors.append(vector)
        if len(self._ids) == 1000:
            self._merge()

    def _distances(self, vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        dots = self._points @ vectors.T
        squares = (vectors**2).sum(axis=1)[None, :], (self._points**2).sum(axis=1)[:, None]
        distances: npt.NDArray[np.float64] = 1 - dots
        if self._space == "l2":
            distances = squares[0] + squares[1] - 2 * dots
        elif self._space == "cosine":
            distances = 1 - dots / np.sqrt(squares[0] * squares[1])
        return distances

    def _merge(self) -> None:
        if not self._ids:
            return
        distances = self._distances(np.stack(self._vectors).astype(np.float64))
        for best, row in zip(self._best, distances, strict=True):
            for at in np.argpartition(row, min(_K, len(row)) - 1)[:_K]:
                best[self._ids[at]] = float(row[at])
            for id_ in sorted(best, key=best.__getitem__)[_K:]:
                del best[id_]
        self._ids, self._vectors = [], []

    def overlap(self, found: list[dict[Id, float]]) -> float:
        """Mean share of the nearest that were found; one that is as near as the last of them counts."""
        self._merge()
        shares = []
        for best, hits in zip(self._best, found, strict=True):
            last = max(best.values())
            missing = [d for id_, d in hits.items() if id_ not in best]
            ties = sum(abs(d - last) <= _TIE * max(1.0, abs(last)) for d in missing)
            shares.append(min(1.0, (len(best.keys() & hits.keys()) + ties) / len(best)))
        return float(np.mean(shares))
