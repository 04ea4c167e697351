"""From a collection to a file: the records of one moment, in id order, with a bounded part of them in memory.

The file is written under another name and gets its own when it is whole, so one that was cut off is never taken for an
export. An export that was cut off is begun anew: going on would mix two moments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nopokedb.database import NoPokeDB
from nopokedb.embedded.storage.files import sync, sync_folder
from nopokedb.errors import InvalidInputError
from nopokedb.records import Part, Record
from nopokedb.transfer.formats import VECTORS_ONLY, format_of, write_file
from nopokedb.transfer.rows import Content, IdKind
from nopokedb.views import View
from nopokedb.where import Where

UNFINISHED = ".partial"
_BATCH_ROWS = 4096
_BATCH_BYTES = 16 * 2**20
_LAST_INT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported."""

    path: str
    target: str
    format: str
    count: int
    size_bytes: int
    left_out: tuple[str, ...]
    """Parts of the records that the format has no room for."""


def export_file(
    path: str | Path,
    target: str | Path,
    *,
    format: str | None = None,
    where: Where = None,
    at: str | None = None,
    overwrite: bool = False,
    advance: Callable[[int, float | None], object] = lambda count, share: None,
) -> ExportReport:
    """Write the records of the collection at `path` to the file `target`; durable when this returns.

    Others may write the collection meanwhile; the file holds one moment, that of the opening or of the snapshot `at`.

    Args:
        format: one of `FORMATS`; None: the one of the suffix.
        where: only the records that pass the filter.
        overwrite: replace a file that exists; else it is refused.
        advance: told the number of records and the share of them, now and then.
    """
    target = Path(target)
    kind = format_of(target, format)
    if target.exists() and not overwrite:
        raise InvalidInputError(f"expected a new file, got {target}, which exists")
    unfinished = target.with_name(target.name + UNFINISHED)
    with NoPokeDB(path=path, read_only=True) as db:
        reads = db if at is None else db.at(at)
        content = _content(db, reads, where, advance)
        try:
            write_file(unfinished, kind, content)
            descriptor = os.open(unfinished, os.O_RDWR)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)
            size = unfinished.stat().st_size
            unfinished.replace(target)
            sync_folder(target.absolute().parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        left_out = ("ids", "metadata", "texts") if kind in VECTORS_ONLY else ()
        return ExportReport(db.path, str(target), kind, content.count, size, left_out)


def _content(
    db: NoPokeDB, reads: NoPokeDB | View, where: Where, advance: Callable[[int, float | None], object]
) -> Content:
    """The records of a read-only handle, which stays at its moment."""
    count = reads.count(where)

    def batches(include: Sequence[Part]) -> Iterator[list[Record]]:
        batch: list[Record] = []
        size = done = 0
        for record in reads.scan(where, include=include):
            batch.append(record)
            size += 4 * db.dim + len(record.text or "")
            if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
                yield batch
                done += len(batch)
                advance(done, done / count)
                batch, size = [], 0
        if batch:
            yield batch

    return Content(count, db.dim, db.space, _id_kind(reads, where), batches)  # type: ignore[arg-type]  # a Space


def _id_kind(reads: NoPokeDB | View, where: Where) -> IdKind:
    """Ints come before strs in id order."""
    first = next(reads.scan(where, limit=1, include=()), None)
    has_str = next(reads.scan(where, after=_LAST_INT, limit=1, include=()), None) is not None
    if first is None or isinstance(first.id, int):
        return "mixed" if has_str and first is not None else "int"
    return "str"
