"""CSV with a line of names, in UTF-8. Everything is text there, so what a cell means is said here.

Written are the columns id, text, metadata (JSON) and vector (JSON), and read back they are the same records: an id as
`rows.id_text` writes it; no text is an empty cell, and a text of n pairs of double quotes (n = 0 is the empty text) is
one of n + 1. In other columns a cell that is a JSON number, `true` or `false` is that value, an empty one is nothing,
and any other is text; with `strings` all are text.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from nopokedb.errors import NoPokeError
from nopokedb.transfer.layout import Layout, columns_of
from nopokedb.transfer.rows import Content, Row, Source, damaged, id_of_text, id_text

_MAX_CELL = 64 * 2**20
_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false")
_QUOTES = re.compile(r'(?:"")*')
_OWN = ("id", "text", "metadata", "vector")


class CsvSource(Source):
    """Rows of a CSV file."""

    unit = "line"

    def __init__(self, path: Path, layout: Layout, strings: bool) -> None:
        self._path, self._strings = path, strings
        self._size = path.stat().st_size
        # Bytes that are no UTF-8 become lone surrogates, so that one bad row is not the end of the file.
        self._bytes = path.open("rb")
        self._file = io.TextIOWrapper(self._bytes, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            self.columns = next(csv.reader(self._file), [])
            if not self.columns or len(set(self.columns)) != len(self.columns):
                raise damaged(path, f"expected a line of different column names, got {self.columns}")
            known = columns_of(self.columns, layout)
        except csv.Error as error:
            self.close()
            raise damaged(path, f"expected a line of column names, got none that can be read ({error})") from None
        except NoPokeError:
            self.close()
            raise
        vectors = [known.vector] if isinstance(known.vector, str) else known.vector or ()
        self._id, self._text, self._raw = known.id, known.text, {known.metadata, *vectors}
        self._read_id = str if layout.id_type == "str" else id_of_text

    def rows(self, start: int) -> Iterator[Row]:
        self._file.seek(0)
        # The limit belongs to the module csv, so it is given back as it was.
        before = csv.field_size_limit(_MAX_CELL)
        try:
            reader = csv.reader(self._file)
            next(reader)
            number, line = 0, reader.line_num + 1
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise damaged(self._path, f"line {line} cannot be read ({error})") from None
                if cells is None:
                    return
                if cells:
                    if number >= start:
                        yield self._row(number, line, cells)
                    number += 1
                line = reader.line_num + 1
        finally:
            csv.field_size_limit(before)

    def _row(self, number: int, line: int, cells: list[str]) -> Row:
        assert self.columns is not None
        if len(cells) != len(self.columns):
            return Row(number, line, {}, f"expected {len(self.columns)} cells, got {len(cells)}")
        if any("\udc80" <= c <= "\udcff" for cell in cells if not cell.isascii() for c in cell):
            return Row(number, line, {}, "expected valid UTF-8, got other bytes")
        fields: dict[str, Any] = {}
        for name, cell in zip(self.columns, cells, strict=True):
            if name == self._text:
                fields[name] = _text_of(cell)
            elif name == self._id:
                fields[name] = self._read_id(cell)
            elif name in self._raw:
                fields[name] = cell
            elif cell:
                fields[name] = cell if self._strings else _value(cell)
        return Row(number, line, fields)

    def done(self, row: Row) -> float | None:
        return min(1.0, self._bytes.tell() / self._size) if self._size else None

    def close(self) -> None:
        self._file.close()


def _value(cell: str) -> Any:
    """The scalar that a cell is; text where a number would not be the same one again."""
    match = _SCALAR.fullmatch(cell) if len(cell) <= 25 else None
    if match is None:
        return cell
    if match[1] is not None and match[2] is None and match[3] is None:
        number = int(cell)
        return number if -(2**63) <= number < 2**63 else cell
    return orjson.loads(cell) if math.isfinite(float(cell) if match[1] else 0.0) else cell


def _text_of(cell: str) -> str | None:
    if not cell:
        return None
    return cell[2:] if _QUOTES.fullmatch(cell) else cell


def _cell_of(text: str | None) -> str:
    if text is None:
        return ""
    return '""' + text if _QUOTES.fullmatch(text) else text


def write(path: Path, content: Content) -> None:
    """Write the records; the file reads back as the same ones."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_OWN)
        for batch in content.batches(("metadata", "vector", "text")):
            writer.writerows(
                (
                    id_text(record.id),
                    _cell_of(record.text),
                    orjson.dumps(record.metadata).decode(),
                    orjson.dumps(record.vector, option=orjson.OPT_SERIALIZE_NUMPY).decode(),
                )
                for record in batch
            )
