"""Which column of a file is what of a record, and from a row to a checked record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any, Literal

import numpy as np
import orjson

from nopokedb.errors import InvalidIdError, InvalidInputError, InvalidMetadataError, InvalidVectorError
from nopokedb.metadata_json import encode_metadata
from nopokedb.records import Id, Vectors, check_id, check_text, check_vector, shown
from nopokedb.transfer.rows import Row, id_of_text

IdType = Literal["auto", "int", "str"]
_USUAL: dict[str, tuple[str, ...]] = {
    "id": ("id", "ids", "_id"),
    "vector": ("vector", "vectors", "embedding", "embeddings", "train"),
    "text": ("text", "texts"),
    "metadata": ("metadata", "metadatas"),
}
"""Names that a column is known by when nothing is said; "train" is the one of ann-benchmarks."""
USUAL_NAMES = frozenset(name for names in _USUAL.values() for name in names)
_NUMBERED = re.compile(r"(.*)\*")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what. A name that is None means the usual ones, if the file has them."""

    id: str | None = None
    vector: str | None = None
    """`v*` means the columns v0, v1, ... (or from any number on), in the order of their numbers."""
    text: str | None = None
    metadata: str | None = None
    """A column that holds objects, or JSON of objects."""
    fields: dict[str, str] | None = None
    """Other columns that go into the metadata, and under which key; None: all that are left."""
    automatic_ids: bool = False
    """Leave an id column out, and number the records."""
    id_type: IdType = "auto"
    """"auto": as the file has them, where it tells both apart; of a CSV file digits are ints."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record as a row of a file gave it, checked by itself."""

    row: Row
    id: Id | None
    vector: Vectors | None
    metadata: dict[str, Any] | None
    """None if the row says nothing of it."""
    text: str | None
    size_bytes: int


@dataclass(slots=True)
class Reader:
    """Turns rows into candidates for one collection."""

    layout: Layout
    dim: int
    space: str
    _seen: dict[tuple[str, ...], TableColumns] = field(default_factory=dict)

    def read(self, row: Row) -> Candidate:
        """The candidate of a row. Raises `InvalidInputError` with the reason why there is none."""
        if row.error is not None:
            raise InvalidInputError(row.error)
        columns = self._columns(tuple(row.fields))
        id_ = None if columns.id is None else _id(row.fields[columns.id], self.layout.id_type)
        given = _vector(row.fields, columns.vector)
        vector = None if given is None else check_vector(given, self.dim, self.space)
        text = None if columns.text is None else row.fields[columns.text]
        if text is not None:
            check_text(text)
        metadata = _metadata(row.fields, columns)
        size = len(encode_metadata(metadata)) + len(text or "") + (0 if vector is None else vector.nbytes)
        return Candidate(row, id_, vector, metadata, text, size)

    def _columns(self, names: tuple[str, ...]) -> TableColumns:
        found = self._seen.get(names)
        if found is None:
            found = columns_of(names, self.layout)
            if len(self._seen) < 1000:  # rows of JSON may all have different names
                self._seen[names] = found
        return found


def record_of(row: Row, layout: Layout) -> tuple[Id, dict[str, Any] | None, str | None]:
    """Id, metadata and text of a row whose vector is elsewhere. Raises `InvalidInputError`."""
    if row.error is not None:
        raise InvalidInputError(row.error)
    columns = columns_of(tuple(row.fields), layout)
    if columns.id is None:
        raise InvalidIdError("expected an id, got none")
    text = None if columns.text is None else check_text(row.fields[columns.text])
    return _id(row.fields[columns.id], layout.id_type), _metadata(row.fields, columns), text


def vector_of(row: Row, layout: Layout) -> Any:
    """The vector of a row as the file has it, None if it has none. Raises `InvalidInputError` where it cannot be."""
    if row.error is not None:
        raise InvalidInputError(row.error)
    return _vector(row.fields, _vector_columns(tuple(row.fields), layout.vector))


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which of a table's columns is what."""

    id: str | None
    vector: str | Sequence[str] | None
    text: str | None
    metadata: str | None
    fields: dict[str, str]


def columns_of(names: Sequence[str], layout: Layout) -> TableColumns:
    """What is where among columns of these names. Raises where one that the layout names is missing."""
    vector = _vector_columns(names, layout.vector)
    id_ = None if layout.automatic_ids else _column(names, "id", layout.id)
    text, metadata = _column(names, "text", layout.text), _column(names, "metadata", layout.metadata)
    taken = {id_, text, metadata, *([vector] if isinstance(vector, str) else vector or ())}
    if layout.automatic_ids:
        taken.add(layout.id or next((name for name in _USUAL["id"] if name in names), None))
    if layout.fields is None:
        return TableColumns(id_, vector, text, metadata, {name: name for name in names if name not in taken})
    return TableColumns(id_, vector, text, metadata, {k: v for k, v in layout.fields.items() if k in names})


def _column(names: Sequence[str], what: str, given: str | None) -> str | None:
    if given is None:
        return next((name for name in _USUAL[what] if name in names), None)
    if given not in names:
        raise InvalidInputError(f"expected a column {given!r} for the {what}, got {_listed(names)}")
    return given


def _vector_columns(names: Sequence[str], given: str | None) -> str | Sequence[str] | None:
    match = None if given is None or given in names else _NUMBERED.fullmatch(given)
    if match is None:
        return _column(names, "vector", given)
    prefix = match[1]
    numbers = {int(name[len(prefix) :]): name for name in names if re.fullmatch(re.escape(prefix) + r"\d{1,6}", name)}
    if not numbers:
        raise InvalidInputError(f"expected columns {prefix}0, {prefix}1, ... for the vector, got {_listed(names)}")
    return [numbers[number] for number in sorted(numbers)]


def _listed(names: Sequence[str]) -> str:
    return f"the columns {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}" if names else "no columns"


# --- values -----------------------------------------------------------------------------------------------------


def _id(value: Any, kind: IdType) -> Id:
    if value is None or value == "":
        raise InvalidIdError("expected an id, got none")
    if kind == "int" and isinstance(value, str):
        number = id_of_text(value)
        if isinstance(number, str):
            raise InvalidIdError(f"expected an id that is an int within 64 bits, got {value!r:.80}")
        return number
    if kind == "str" and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    return check_id(value)


def _vector(fields: dict[str, Any], columns: str | Sequence[str] | None) -> Any:
    """The vector of a row: numbers, or text that holds them; None where there is none."""
    if columns is None:
        return None
    if not isinstance(columns, str):
        return np.array([_number(fields[name], name) for name in columns])
    value = fields[columns]
    if isinstance(value, str):
        if not value:
            return None
        text = value.strip()
        if text[0:1] == "[":
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise InvalidVectorError(f"expected a vector as a JSON list, got {value!r:.60} ({error})") from None
        else:
            value = [_number(part, columns) for part in re.split(r"[\s,;]+", text) if part]
    if isinstance(value, list) and not {int, float}.issuperset(map(type, value)):
        wrong = next(item for item in value if type(item) not in (int, float))
        raise InvalidVectorError(f"expected a vector of numbers, got {shown(wrong)} in it")
    return value


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidVectorError(f"expected a number in {name!r}, got {shown(value)}") from None


def _metadata(fields: dict[str, Any], columns: TableColumns) -> dict[str, Any] | None:
    whole = None if columns.metadata is None else fields[columns.metadata]
    return metadata_of(whole, ((key, fields[name]) for name, key in columns.fields.items()))


def metadata_of(value: Any, fields: Iterable[tuple[str, Any]]) -> dict[str, Any] | None:
    """The metadata that a row gives: a whole object, or JSON of one, and single cells by their keys. None if it says
    nothing."""
    metadata: dict[str, Any] = {}
    if isinstance(value, str) and value:
        try:
            value = load_json(value.encode())
        except ValueError as error:
            raise InvalidMetadataError(f"expected metadata as a JSON object, got {value!r:.60} ({error})") from None
    if isinstance(value, dict):
        metadata.update(value)
    elif value is not None and value != "":
        raise InvalidMetadataError(f"expected metadata that are a JSON object, got {shown(value)}")
    for key, cell in fields:
        if key in metadata:
            raise InvalidMetadataError(
                f"expected one value for the key {key!r}, got a column beside the metadata's own"
            )
        plain = _plain(cell)
        if plain is not _MISSING:
            metadata[key] = plain
    return metadata if metadata or isinstance(value, dict) else None


_MISSING = object()


def _plain(value: Any) -> Any:
    """A cell as JSON has it. NaN is how tables of floats say that there is nothing, and is left out."""
    if isinstance(value, float) and value != value:
        return _MISSING
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return value


_LONG_INT = re.compile(rb"\d{19}")


def load_json(data: bytes) -> Any:
    """A JSON value, without loss: orjson reads ints past 64 bits as floats, which would then be stored. Raises
    ValueError."""
    if _LONG_INT.search(data) is None:
        return orjson.loads(data)
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
