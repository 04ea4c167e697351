"""Many records at once: lines of JSON as they come in, or a file that was uploaded. Memory stays bounded.

Each batch is atomic and durable. What is wrong with a record ends the upload there; the error has its line, and how
many records before it are written.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from nopokedb import NoPokeDB
from nopokedb.errors import DuplicateIdError, InvalidInputError, NoPokeError
from nopokedb.records import check_choice, check_int
from nopokedb.server.requests import RecordInput, build
from nopokedb.server.writing import write_records
from nopokedb.transfer.formats import Format, open_source
from nopokedb.transfer.layout import Layout, Reader

UploadFormat: TypeAlias = Literal["jsonl", "csv", "parquet", "arrow"]
FORMATS: dict[bytes, UploadFormat] = {
    b"application/x-ndjson": "jsonl",
    b"application/jsonl": "jsonl",
    b"application/vnd.apache.parquet": "parquet",
    b"application/vnd.apache.arrow.stream": "arrow",
    b"application/vnd.apache.arrow.file": "arrow",
    b"text/csv": "csv",
}
PART_BYTES = 2**20
"""So much is gathered before a thread gets it."""
_MAX_BATCH = 100_000
_BATCH_BYTES = 16 * 2**20
"""A batch is closed when its lines have this much, whatever their number."""


@dataclass(frozen=True, slots=True)
class Upload:
    """How records are written."""

    mode: Literal["insert", "upsert"] = "insert"
    batch_size: int = 1_000

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, Literal["insert", "upsert"])
        check_int("batch_size", self.batch_size, 1, _MAX_BATCH)


class Lines:
    """Lines of JSON, written batch by batch while they come in."""

    def __init__(self, upload: Upload, max_line: int) -> None:
        self._upload = upload
        self._max_line = max_line
        self._rest = b""
        self._records: list[RecordInput] = []
        self._bytes = 0
        self._line = 0
        self.count = 0
        """Records that are written."""

    def take(self, db: NoPokeDB, part: bytes, *, last: bool) -> None:
        """Write the batches that this part of the body completes; with `last`, what is left too."""
        lines = (self._rest + part).split(b"\n")
        self._rest = b"" if last else lines.pop()
        if len(self._rest) > self._max_line:
            raise InvalidInputError(f"line {self._line + 1}: expected at most {self._max_line} bytes, got more")
        for line in lines:
            self._line += 1
            if line.strip():
                self._records.append(self._parsed(line))
                self._bytes += len(line)
            if len(self._records) >= self._upload.batch_size or self._bytes >= _BATCH_BYTES:
                self._write(db)
        if last:
            self._write(db)

    def _parsed(self, line: bytes) -> RecordInput:
        place = f"line {self._line}"
        try:
            return build(RecordInput, orjson.loads(line), place)
        except orjson.JSONDecodeError as error:
            message = f"expected a JSON object, got what is none: {error}"
            raise InvalidInputError(_told(place, message, self.count)) from None
        except InvalidInputError as error:
            raise InvalidInputError(_told(place, error, self.count)) from None

    def _write(self, db: NoPokeDB) -> None:
        records, self._records, self._bytes = self._records, [], 0
        if records:
            write_batch(db, records, self._upload, f"line {self._line}", self.count)
            self.count += len(records)


def write_file(
    db: NoPokeDB, path: Path, kind: Format, upload: Upload, advance: Callable[[float | None], object]
) -> int:
    """Write the rows of a file; how many. `advance` is told the share that is behind."""
    source = open_source(path, kind, Layout())
    try:
        reader = Reader(Layout(), db.dim, db.space)
        written = 0
        records: list[RecordInput] = []
        size = 0
        row = None
        for row in source.rows(0):
            try:
                candidate = reader.read(row)
            except NoPokeError as error:
                raise InvalidInputError(_told(f"{source.unit} {row.line}", error, written)) from error
            vector: Any = candidate.vector
            records.append(RecordInput(candidate.id, vector, candidate.metadata, candidate.text))
            size += candidate.size_bytes
            if len(records) >= upload.batch_size or size >= _BATCH_BYTES:
                written += write_batch(db, records, upload, f"{source.unit} {row.line}", written)
                records, size = [], 0
                advance(source.done(row))
        if records:
            assert row is not None
            written += write_batch(db, records, upload, f"{source.unit} {row.line}", written)
        return written
    finally:
        source.close()


def write_batch(db: NoPokeDB, records: list[RecordInput], upload: Upload, place: str, written: int) -> int:
    """Write one batch; how many records it has. An error says where it is, and what is written before it."""
    try:
        return len(write_records(db, records, upload.mode, merge=False))
    except (InvalidInputError, DuplicateIdError) as error:
        raise type(error)(_told(f"the batch that ends at {place}", error, written)) from error


def _told(place: str, error: object, written: int) -> str:
    return f"{place}: {error}; the {written} records of the batches before are written"


class Spool:
    """A file for an upload, gone when it is closed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / secrets.token_hex(8)
        self._file = self.path.open("xb")

    def write(self, part: bytes) -> None:
        self._file.write(part)

    def finish(self, last: bytes) -> None:
        """All of it is there with this part."""
        self._file.write(last)
        self._file.close()

    def close(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def clear(folder: Path, older_than_s: float) -> None:
    """Remove what uploads of an earlier process have left: files that nobody has written to for so long."""
    for left in folder.glob("*") if folder.is_dir() else ():
        if left.stat().st_mtime < time.time() - older_than_s:
            left.unlink(missing_ok=True)
