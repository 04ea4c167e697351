"""Looking through SQLite without trusting it: what is sound, label by label, and what its own check says.

`MetadataReader` raises at the first damage, as an answer must. Here every damage is noted and the next record looked
at, so a page that cannot be read costs the records on it and no others.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import numpy as np
import numpy.typing as npt
import orjson

from nopokedb.embedded.storage import field_index
from nopokedb.embedded.storage.columns import NONE
from nopokedb.embedded.storage.metadata import Stored, record_crc, text_crc

_PAGE = 4096
_MESSAGES = 20
"""So many findings of SQLite's own check are reported; one is enough to act on."""
_INDEX_WORDS = re.compile(r"(missing from|wrong # of entries in|non-unique entry in) index")
_SELECT = "SELECT label, id, row, json(metadata), has_text, crc FROM records NOT INDEXED WHERE label"


@dataclass(slots=True)
class MetadataFindings:
    """What was found; the arrays have one entry per label."""

    sound: npt.NDArray[np.bool_]
    """The record is there and matches its checksum."""
    row_of: npt.NDArray[np.uint32]
    """The row that a sound record names, else NONE."""
    lost_text: npt.NDArray[np.bool_]
    """The record is sound and its text is not."""
    present: npt.NDArray[np.bool_]
    """Something is stored under the label, sound or not."""
    applied_lsn: int | None = None
    messages: list[str] = field(default_factory=list)
    """Damage of SQLite's structure, in its own words."""
    index_messages: list[str] = field(default_factory=list)
    """Differences between the index on ids and the records."""
    doubles: list[tuple[int, str]] = field(default_factory=list)
    """Live labels that a newer one of the same id should have retired, and what is wrong, in words."""
    wrong_fields: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Indexes on fields that say otherwise than the records, by number."""
    strays: int = 0
    """Records under labels that nobody gave."""


def open_raw(path: Path, *, immutable: bool) -> apsw.Connection:
    """A reading connection that believes as little as SQLite can be told to."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    query = "mode=ro&immutable=1" if immutable else "mode=ro"
    connection = apsw.Connection(f"file:{quote(str(path.absolute()))}?{query}", flags=flags)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.set_busy_timeout(10_000)
    return connection


def inspect_metadata(path: Path, label_count: int, live: Any, *, deep: bool, immutable: bool) -> MetadataFindings:
    """Look at every record below `label_count`. `live` answers `label in live`."""
    nothing = np.zeros(label_count, np.bool_)
    found = MetadataFindings(nothing, np.full(label_count, NONE, np.uint32), nothing.copy(), nothing.copy())
    try:
        connection = open_raw(path, immutable=immutable)
    except apsw.Error as error:
        found.messages.append(str(error))
        return found
    try:
        _check_structure(connection, found, deep=deep)
        if deep and label_count:
            _check_records(connection, found, label_count)
            if not found.messages:
                _check_versions(connection, found, label_count, live)
                _check_fields(connection, found, label_count)
    except apsw.Error as error:
        found.messages.append(str(error))
    finally:
        connection.close()
    return found


def _check_structure(connection: apsw.Connection, found: MetadataFindings, *, deep: bool) -> None:
    pragma = "PRAGMA integrity_check(%d)" if deep else "PRAGMA quick_check(%d)"
    root = None
    try:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name='records_id'").fetchone()
        for (message,) in connection.execute(pragma % _MESSAGES):
            for line in str(message).splitlines():
                if line == "ok" or line.startswith("*** in database"):
                    continue
                of_index = _INDEX_WORDS.search(line) or (root and re.match(rf"Tree {root[0]} ", line))
                (found.index_messages if of_index else found.messages).append(line)
        applied: Any = connection.execute("SELECT value FROM state WHERE key='applied_lsn'").get
    except (apsw.Error, UnicodeDecodeError) as error:
        found.messages.append(str(error))
        return
    if root is None:
        found.index_messages.append("the index on ids is missing")
    if isinstance(applied, int):
        found.applied_lsn = applied
    else:
        found.messages.append("the applied lsn is missing")


def _check_records(connection: apsw.Connection, found: MetadataFindings, label_count: int) -> None:
    with_text = np.zeros(label_count, np.bool_)
    for stored in sound_records(connection, range(label_count), found):
        found.sound[stored.label] = True
        found.row_of[stored.label] = stored.row
        with_text[stored.label] = stored.has_text
    for label in sound_texts(connection, label_count):
        with_text[label] = False
    found.lost_text = with_text
    try:
        # The largest labels stand at the end of the table, so this reads little.
        found.strays = connection.execute("SELECT count(*) FROM records WHERE label>=?", (label_count,)).get
    except apsw.Error as error:
        found.messages.append(str(error))


def sound_records(
    connection: apsw.Connection, labels: range, found: MetadataFindings | None = None
) -> Iterator[Stored]:
    """Every record of these labels that can be read and matches its checksum, in order."""
    for start in range(labels.start, labels.stop, _PAGE):
        stop = min(start + _PAGE, labels.stop)
        for row in _rows(connection, start, stop):
            if found is not None:
                found.present[row[0]] = True
            stored = verified(row)
            if stored is not None:
                yield stored


def _rows(connection: apsw.Connection, start: int, stop: int) -> list[tuple[Any, ...]]:
    """The rows [start, stop): at once, or, where that meets damage, each by itself."""
    try:
        return list(connection.execute(_SELECT + ">=? AND label<?", (start, stop)))
    except (apsw.Error, UnicodeDecodeError):
        rows: list[tuple[Any, ...]] = []
    for label in range(start, stop):
        try:
            rows += connection.execute(_SELECT + "=?", (label,))
        except (apsw.Error, UnicodeDecodeError):  # this record only: it stays unsound, which is reported
            rows.append((label, None, None, None, None, None))
    return rows


def verified(row: tuple[Any, ...]) -> Stored | None:
    """The record if it matches its checksum."""
    label, id_, at, text, has_text, crc = row
    if not (isinstance(id_, int | str) and isinstance(text, str) and isinstance(at, int) and 0 <= at < NONE):
        return None
    metadata = text.encode()
    if crc != record_crc(label, at, id_, metadata, bool(has_text)):
        return None
    return Stored(label, id_, at, metadata, bool(has_text))


def sound_texts(connection: apsw.Connection, label_count: int) -> Iterator[int]:
    """The labels whose text can be read and matches its checksum."""
    for start in range(0, label_count, _PAGE):
        stop = min(start + _PAGE, label_count)
        for label, text in read_texts(connection, range(start, stop)).items():
            if text is not None:
                yield label


def read_texts(connection: apsw.Connection, labels: range) -> dict[int, str | None]:
    """The texts of a range of labels; None where one is damaged."""
    query = "SELECT label, text, crc FROM texts WHERE label"
    try:
        rows = list(connection.execute(query + ">=? AND label<?", (labels.start, labels.stop)))
    except (apsw.Error, UnicodeDecodeError):
        rows = []
        for label in labels:
            try:
                rows += connection.execute(query + "=?", (label,))
            except (apsw.Error, UnicodeDecodeError):  # this text only
                rows.append((label, None, None))
    return {
        label: text if isinstance(text, str) and crc == text_crc(label, text) else None for label, text, crc in rows
    }


def _check_versions(connection: apsw.Connection, found: MetadataFindings, label_count: int, live: Any) -> None:
    """Of the labels of one id only the newest may be live. Read without the index where that is in doubt."""
    doubtful = " NOT INDEXED" if found.index_messages else ""
    query = f"SELECT id, label FROM records{doubtful} WHERE label<? ORDER BY id, label"  # noqa: S608  # a constant
    last: tuple[Any, int] | None = None
    for id_, label in connection.execute(query, (label_count,)):
        if last is not None and type(last[0]) is type(id_) and last[0] == id_ and last[1] in live:
            found.doubles.append((last[1], f"label {last[1]} of id {id_!r} is live beside the newer label {label}"))
        last = (id_, label)


def _check_fields(connection: apsw.Connection, found: MetadataFindings, label_count: int) -> None:
    """What the indexes on fields say of the sound records."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'fields'").fetchone():
        return
    fields: Any = connection.execute("SELECT number, path FROM fields WHERE ready").fetchall()
    for number, path in fields:
        wanted = {number: tuple(orjson.loads(path))}
        expected = field_index.digest(
            (kind, value, label)
            for stored in sound_records(connection, range(label_count))
            for _, kind, value, label in field_index.entries(wanted, stored.label, orjson.loads(stored.metadata))
        )
        there: Any = connection.execute("SELECT kind, value, label FROM field_values WHERE field=?", (number,))
        if field_index.digest(row for row in there if found.sound[row[2] : row[2] + 1].any()) != expected:
            found.wrong_fields[number] = wanted[number]


def rebuild_fields(connection: apsw.Connection, wrong: dict[int, tuple[str, ...]], label_count: int) -> None:
    """Make these indexes anew from the sound records, in one transaction."""
    with connection:
        for number in wrong:
            connection.execute("DELETE FROM field_values WHERE field=?", (number,))
        field_index.insert(
            connection,
            (
                row
                for stored in sound_records(connection, range(label_count))
                for row in field_index.entries(wrong, stored.label, orjson.loads(stored.metadata))
            ),
        )


def raw_record(connection: apsw.Connection, label: int) -> dict[str, Any]:
    """Whatever is stored under the label, as far as it can be read, for somebody to look at."""
    out: dict[str, Any] = {"label": label}
    for name, query in (
        ("id", "SELECT id FROM records NOT INDEXED WHERE label=?"),
        ("row", "SELECT row FROM records NOT INDEXED WHERE label=?"),
        ("metadata", "SELECT json(metadata) FROM records NOT INDEXED WHERE label=?"),
        ("metadata_raw", "SELECT metadata FROM records NOT INDEXED WHERE label=?"),
        ("crc", "SELECT crc FROM records NOT INDEXED WHERE label=?"),
        ("text", "SELECT CAST(text AS BLOB) FROM texts WHERE label=?"),
    ):
        try:
            row = connection.execute(query, (label,)).fetchone()
        except (apsw.Error, UnicodeDecodeError) as error:
            out[name] = {"unreadable": str(error)}
            continue
        value = None if row is None else row[0]
        if isinstance(value, bytes):
            value = {"base64": base64.b64encode(value).decode()}
        out[name] = value
    return out
