"""JSON lines: one object a line, in UTF-8. Holds everything a record has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from nopokedb.transfer.layout import load_json
from nopokedb.transfer.rows import Content, Row, Source

_MAX_LINE = 64 * 2**20
"""A record has at most 32 MiB of metadata and text, and JSON writes few characters as more than two bytes."""


class JsonlSource(Source):
    """Lines of JSON. Empty lines are no rows."""

    unit = "line"

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size

    def rows(self, start: int) -> Iterator[Row]:
        self._file.seek(0)
        number = line = 0
        while data := self._file.readline(_MAX_LINE):
            line += 1
            long = len(data) == _MAX_LINE and not data.endswith(b"\n")
            while long and (rest := self._file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            if line == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if not data.strip():
                continue
            if number >= start:
                yield _too_long(number, line) if long else _row(number, line, data)
            number += 1

    def done(self, row: Row) -> float | None:
        return self._file.tell() / self._size if self._size else None

    def close(self) -> None:
        self._file.close()


def _too_long(number: int, line: int) -> Row:
    return Row(number, line, {}, f"expected a line of at most {_MAX_LINE} bytes, got a longer one")


def _row(number: int, line: int, data: bytes) -> Row:
    try:
        data.decode()
        value = load_json(data)
    except ValueError as error:
        return Row(number, line, {}, f"expected a JSON object, got {data[:40]!r} ({error})")
    if not isinstance(value, dict):
        return Row(number, line, {}, f"expected a JSON object, got {value!r:.60}")
    return Row(number, line, value)


def write(path: Path, content: Content) -> None:
    """Write the records as lines of `id`, `text`, `metadata` and `vector`."""
    with path.open("wb") as file:
        for batch in content.batches(("metadata", "vector", "text")):
            for record in batch:
                line = {
                    "id": record.id,
                    "text": record.text,
                    "metadata": record.metadata,
                    "vector": record.vector,
                }
                file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
