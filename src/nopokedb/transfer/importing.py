"""From a file to records of a collection: in atomic batches, resumable, or as a dry run that writes nothing.

Before each batch the journal says which rows it has, and under which ids they will be found. So an import that was
killed knows of each row whether it is in the collection, and goes on with the next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import orjson

from nopokedb.database import NoPokeDB, engine_of
from nopokedb.embedded.storage.files import sync_folder
from nopokedb.errors import CollectionNotFoundError, InvalidInputError, NoPokeError
from nopokedb.metadata_json import encode_metadata
from nopokedb.records import MAX_DIM, Id, Record, Space, check_choice, check_int
from nopokedb.transfer.formats import format_of, open_source
from nopokedb.transfer.journal import Journal, Pending, State
from nopokedb.transfer.layout import Candidate, Layout, Reader, columns_of, vector_of
from nopokedb.transfer.report import BadRow, ImportReport
from nopokedb.transfer.rows import Row, Source

Mode: TypeAlias = Literal["insert", "upsert"]
Advance: TypeAlias = Callable[[int, float | None], object]

_BATCH_BYTES = 16 * 2**20
"""A batch is closed when its records have this much, whatever its number of rows: this bounds the memory."""
_SHOWN = 100
"""Bad rows that the report names; all are counted."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to import."""

    format: str | None = None
    layout: Layout = field(default_factory=Layout)
    mode: Mode = "insert"
    """"insert" takes an id that exists for a bad row; "upsert" replaces what the file has of it."""
    space: Space | None = None
    """Of a collection that is created; None: the one that the file names, or cosine."""
    embed: str | None = None
    strings: bool = False
    """Cells of a CSV file are texts, digits too."""
    skip_bad: bool = False
    """Leave bad rows out. Else the import stops before the first one, with all rows before it written."""
    batch_size: int = 10_000


_USUAL = Options()


def import_file(
    source: str | Path,
    path: str | Path,
    options: Options = _USUAL,
    *,
    dry_run: bool = False,
    restart: bool = False,
    changed: bool = False,
    advance: Advance = lambda count, share: None,
) -> ImportReport:
    """Bring the rows of the file into the collection at `path`, which is created if it is missing.

    Each batch is atomic and durable. An import that was stopped, killed or cut off goes on where it was when it is
    called again: no row is lost and none comes twice. Called again after it has finished it does nothing, until the
    file or the options are others. Others must not write the same rows meanwhile.

    Args:
        dry_run: check every row, the ids among each other and against the collection, and write nothing at all.
        restart: forget an earlier import of this file.
        changed: go on although the file has changed: its rows up to there have not.
        advance: told the number of records and the share of the file, now and then.

    Raises: `ArchiveError` if the file is damaged or something else; what opening and writing the collection raise.
    """
    source, path = Path(source), Path(path)
    check_choice("mode", options.mode, Mode)
    check_int("batch_size", options.batch_size, 1, 10_000_000)
    kind = format_of(source, options.format)
    opened = open_source(source, kind, options.layout, strings=options.strings)
    try:
        if opened.vector is not None:
            options = replace(options, layout=replace(options.layout, vector=opened.vector))
        if opened.columns is not None:
            columns_of(opened.columns, options.layout)
        db, created, dim, space = _collection(opened, path, options, dry_run)
        report = ImportReport(str(source), str(path), kind, dim, space, opened.unit, created=created, dry_run=dry_run)
        run = _Import(opened, db, Reader(options.layout, dim, space), options, report, advance)
        try:
            if dry_run:
                run.dry()
            else:
                assert db is not None
                run.wet(Journal(Path(db.path), source), restart, changed)
        finally:
            if db is not None:
                db.close()
        return report
    finally:
        opened.close()


def _collection(source: Source, path: Path, options: Options, dry: bool) -> tuple[NoPokeDB | None, bool, int, str]:
    """The collection to import into, whether it is new, and its settings. A dry run does not create one."""
    settings: dict[str, Any] = {} if options.space is None else {"space": options.space}
    try:
        db = NoPokeDB(path=path, read_only=dry, **settings)
        return db, False, db.dim, db.space
    except CollectionNotFoundError:
        pass
    space = options.space or source.space or "cosine"
    dim = _first_dim(source, options)
    if dry:
        return None, True, dim, space
    db = NoPokeDB(dim, path=path, space=space, embed=options.embed)
    sync_folder(Path(db.path))
    return db, True, dim, db.space


def _first_dim(source: Source, options: Options) -> int:
    """The dimension for a new collection: that of the model, or of the first row that has a vector."""
    if options.embed is not None:
        from nopokedb.embedding.names import make_embedder

        return make_embedder(options.embed).dim
    reasons = []
    for row in source.rows(0):
        try:
            vector = vector_of(row, options.layout)
            if vector is not None and np.ndim(vector) == 1 and 1 <= len(vector) <= MAX_DIM:
                return len(vector)
            reasons.append("it has no vector")
        except InvalidInputError as error:
            reasons.append(str(error))
        if len(reasons) == _SHOWN:
            break
    raise InvalidInputError(
        f"expected vectors, to create a collection of their dimension, got none in the first {len(reasons)} rows"
        + (f" (the first: {reasons[0]})" if reasons else "")
    )


class _Import:
    """One run."""

    def __init__(
        self,
        source: Source,
        db: NoPokeDB | None,
        reader: Reader,
        options: Options,
        report: ImportReport,
        advance: Advance,
    ) -> None:
        self._source, self._db, self._reader = source, db, reader
        self._options, self._report, self._advance = options, report, advance
        self._computes = options.embed is not None or (db is not None and bool(engine_of(db).embed_name))
        self._before = 0
        self._stop_at: int | None = None
        """The first bad row, where it is the end of the run."""

    # --- a dry run ------------------------------------------------------------------------------------------------

    def dry(self) -> None:
        """Check everything. The ids so far are kept in a temporary file of SQLite, not in memory."""
        seen = sqlite3.connect("")  # temporary, private, and on disk when it grows
        seen.execute("CREATE TABLE ids (id BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        try:
            for batch in self._batches(0):
                for candidate in batch.candidates:
                    line = None if candidate.id is None else _first_line(seen, candidate.id, candidate.row.line)
                    if line is not None and self._options.mode == "insert":
                        assert candidate.id is not None
                        self._bad(candidate.row, _twice(candidate.id, self._source.unit, line))
                    else:
                        self._report.imported += 1
                self._advance(self._report.imported, batch.share)
        finally:
            seen.close()
        self._report.finished = True

    # --- writing --------------------------------------------------------------------------------------------------

    def wet(self, journal: Journal, restart: bool, changed: bool) -> None:
        """Write batch by batch, from where the journal says."""
        names = {"mode": self._options.mode, "format": self._report.format, "strings": self._options.strings}
        options = orjson.loads(orjson.dumps(names | asdict(self._options.layout)))
        state = None if restart else journal.load(options, changed=changed)
        if state is None:
            state = journal.begin(options)
        else:
            self._report.resumed_at = state.done
        if state.pending is not None:
            self._settle(state, state.pending)
        self._report.imported, self._report.bad_count = state.imported, state.bad
        self._report.finished = state.finished
        if state.finished:
            return
        for batch in self._batches(state.done):
            if batch.candidates:
                self._write(batch, state, journal)
            state.done, state.bad, state.pending = batch.stop, batch.bad, None
            self._advance(self._report.imported, batch.share)
            if self._stop_at is not None:
                journal.save(state)
                return
        state.finished = self._report.finished = True
        journal.save(state)

    def _write(self, batch: _Batch, state: State, journal: Journal) -> None:
        """One batch: announced, then written."""
        assert self._db is not None
        rows, first = batch.candidates, None
        if rows[0].id is None:
            first = engine_of(self._db).reserve_ids(len(rows), -1)[0]
        state.pending = Pending(batch.stop, batch.bad, [candidate.row.number for candidate in rows], first)
        journal.save(state)
        vectors = None if rows[0].vector is None else np.stack([c.vector for c in rows])  # type: ignore[misc]  # all
        metadatas, texts = [candidate.metadata for candidate in rows], [candidate.text for candidate in rows]
        if self._options.mode == "insert":
            self._db.add_many(vectors, metadatas, ids=_ids(rows, first), texts=texts)
        else:
            self._db.upsert_many(_ids(rows, first), vectors, metadatas, texts=texts)
        state.imported += len(rows)
        self._report.imported = state.imported

    def _settle(self, state: State, pending: Pending) -> None:
        """Find out whether the batch that was under way is in the collection. If it is not, its rows are read again as
        if they had never been; so they are with upserts, which give the same however often they are done."""
        assert self._db is not None
        wanted, rows = set(pending.rows), []
        for row in self._source.rows(state.done):
            if row.number >= pending.stop:
                break
            if row.number in wanted:
                rows.append(self._reader.read(row))
        there = self._db.get_many(_ids(rows, pending.first_id), include=("metadata", "vector", "text"))
        # What was added is there whole or not at all: one record that is the row's own proves it, even if others were
        # changed since.
        if self._options.mode == "insert" and any(map(_same, rows, there)):
            state.done, state.bad = pending.stop, pending.bad
            state.imported += len(rows)

    # --- batches of checked rows -------------------------------------------------------------------------------------

    def _batches(self, start: int) -> Iterator[_Batch]:
        """Runs of checked rows, the bad ones left out and reported; they end at the first bad row where that is the
        end of the run."""
        rows: list[Candidate] = []
        lines: dict[Id, int] = {}
        size = 0
        last = None
        for row in self._source.rows(start):
            if last is not None and (len(rows) == self._options.batch_size or size >= _BATCH_BYTES):
                yield self._batch(rows, row.number, self._source.done(last))
                if self._stop_at is not None:
                    return
                rows, lines, size = [], {}, 0
            candidate = self._read(row, lines)
            if self._stop_at is not None:
                break
            if last is not None and candidate is not None and rows and _apart(rows, candidate, lines):
                yield self._batch(rows, row.number, self._source.done(last))
                if self._stop_at is not None:
                    return
                rows, lines, size = [], {}, 0
            last = row
            if candidate is not None:
                rows.append(candidate)
                size += candidate.size_bytes
                if candidate.id is not None:
                    lines[candidate.id] = row.line
        yield self._batch(rows, start if last is None else last.number + 1, None)

    def _batch(self, rows: list[Candidate], stop: int, share: float | None) -> _Batch:
        good = self._absent(rows)
        if self._stop_at is not None:
            # Bad rows at which a run ends are not behind it: the next run meets them again.
            return _Batch([c for c in good if c.row.number < self._stop_at], self._stop_at, self._before, share)
        return _Batch(good, stop, self._report.bad_count, share)

    def _read(self, row: Row, lines: dict[Id, int]) -> Candidate | None:
        """The candidate of a row, None if it is bad. `lines`: where the ids of this batch stand."""
        inserts = self._options.mode == "insert"
        try:
            candidate = self._reader.read(row)
            if candidate.vector is None and inserts and not (self._computes and candidate.text is not None):
                raise InvalidInputError("expected a vector" + (" or a text" if self._computes else "") + ", got none")
            if candidate.id is None and not inserts:
                raise InvalidInputError("expected an id to upsert, got none")
            if candidate.id is not None and inserts and candidate.id in lines:
                raise InvalidInputError(_twice(candidate.id, self._source.unit, lines[candidate.id]))
            return candidate
        except NoPokeError as error:
            self._bad(row, str(error))
            return None

    def _absent(self, rows: list[Candidate]) -> list[Candidate]:
        """Those that the collection can take: with new ids to insert, with vectors where the id is new."""
        inserts = self._options.mode == "insert"
        if not rows or rows[0].id is None or self._db is None or (not inserts and rows[0].vector is not None):
            return rows
        good = []
        for candidate, record in zip(rows, self._db.get_many(_ids(rows, None), include=()), strict=True):
            if inserts and record is not None:
                self._bad(candidate.row, f"the id {candidate.id!r:.80} exists in the collection")
            elif not inserts and record is None and not (self._computes and candidate.text is not None):
                self._bad(candidate.row, f"the id {candidate.id!r:.80} is new and the row has no vector")
            else:
                good.append(candidate)
        return good

    def _bad(self, row: Row, reason: str) -> None:
        if not (self._options.skip_bad or self._report.dry_run):
            if self._stop_at is None:
                self._before = self._report.bad_count
            self._stop_at = row.number if self._stop_at is None else min(self._stop_at, row.number)
        self._report.bad_count += 1
        if len(self._report.bad) < _SHOWN:
            self._report.bad.append(BadRow(row.line, reason))


@dataclass(frozen=True, slots=True)
class _Batch:
    candidates: list[Candidate]
    stop: int
    """The row behind it."""
    bad: int
    """Bad rows up to there."""
    share: float | None


def _apart(rows: Sequence[Candidate], candidate: Candidate, lines: dict[Id, int]) -> bool:
    """Whether a record cannot be in one call with these: of records with and without vectors, or ids, each are written
    by themselves, and an id is upserted again in the next batch."""
    return (
        (candidate.vector is None) != (rows[0].vector is None)
        or (candidate.id is None) != (rows[0].id is None)
        or (candidate.id is not None and candidate.id in lines)
    )


def _twice(id_: Id, unit: str, line: int) -> str:
    return f"the id {id_!r:.80} is that of {unit} {line}"


def _ids(rows: Sequence[Candidate], first: int | None) -> list[Id]:
    """The ids of rows that have one, or automatic ones from `first` on."""
    if first is not None:
        return list(range(first, first + len(rows)))
    return [candidate.id for candidate in rows if candidate.id is not None]


def _first_line(seen: sqlite3.Connection, id_: Id, line: int) -> int | None:
    """The line that had this id before, None if none had; then this one is remembered."""
    key = b"i%d" % id_ if isinstance(id_, int) else b"s" + id_.encode()
    if seen.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (key, line)).rowcount:
        return None
    found: int = seen.execute("SELECT line FROM ids WHERE id = ?", (key,)).fetchone()[0]
    return found


def _same(candidate: Candidate, record: Record | None) -> bool:
    """Whether the record is what this row becomes."""
    return (
        record is not None
        and (candidate.vector is None or np.array_equal(candidate.vector, record.vector))  # type: ignore[arg-type]
        and candidate.text == record.text
        and encode_metadata(candidate.metadata) == encode_metadata(record.metadata)
    )
