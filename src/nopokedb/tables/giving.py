"""From records or hits to an Arrow table, a pandas or a polars frame.

A key of the metadata becomes a column of its own where all its values are of one kind: int64, float64 (ints within 2^53
among floats too: the same numbers), bool, str, or lists of one of these. What is left (null that is there, objects,
mixed kinds, ints past 64 bits with a sign, keys that are a column's name here) stands as JSON in the column "metadata".
So a table holds all of a record, and `add_many` makes the same records of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidInputError
from nopokedb.reading import Reading
from nopokedb.records import Hit, Record
from nopokedb.transfer.layout import USUAL_NAMES
from nopokedb.transfer.rows import id_text

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_HIT_NUMBERS = ("score", "distance", "vector_score", "vector_rank", "text_score", "text_rank")
_TAKEN = USUAL_NAMES | {*_HIT_NUMBERS, "highlight"}
_MAX_COLUMNS = 1000
"""Of metadata: keys that come later, in the order of the records, stay in the JSON."""
_EXACT_FLOATS = 2**53


def to_arrow(records: Reading | Iterable[Record] | Iterable[Hit]) -> pyarrow.Table:
    """The records of a scan or a list, hits of a query, or all of a collection, as an Arrow table (extra "transfer").

    Columns: id (int64, or string; where there are ints and strs, strings that `add_many` and `nopokedb import` read
    back as what they were); of hits score, distance and what else they have; text; vector (float32, a list of fixed
    length); a column for each key of the metadata whose values are of one kind; metadata, the rest as JSON. A part that
    no record has is no column; scans and queries bring those that `include` names. Null is "no value".

    Everything is in memory at once; `nopokedb export` writes files piece by piece.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ImportError(f"tables need pyarrow: {install_hint('transfer')}") from error
    from nopokedb.transfer.arrow import IDS_KEY

    rows = _rows(records)
    ids = [row.id for row in rows]
    mixed = len({isinstance(id_, str) for id_ in ids}) > 1
    texts = mixed or any(isinstance(id_, str) for id_ in ids)
    columns: dict[str, Any] = {}
    columns["id"] = pyarrow.array(list(map(id_text, ids)) if mixed else ids, pyarrow.string() if texts else "int64")
    columns |= _hit_columns(rows)
    parts = [(_part(row, "text"), _part(row, "vector"), _part(row, "metadata")) for row in rows]
    if any(text is not None for text, _, _ in parts):
        columns["text"] = pyarrow.array([text for text, _, _ in parts], pyarrow.string())
    vectors = [vector for _, vector, _ in parts]
    if any(vector is not None for vector in vectors):
        columns["vector"] = _vectors(vectors)
    columns |= _fields([metadata for _, _, metadata in parts])
    return pyarrow.table(columns, metadata={IDS_KEY: b"text"} if mixed else None)


def to_pandas(records: Reading | Iterable[Record] | Iterable[Hit]) -> pandas.DataFrame:
    """As `to_arrow`, as a pandas frame (extra "pandas"). Ids stay ints and strs; ints and booleans with empty cells
    have pandas' types `Int64` and `boolean`, which lose nothing; a vector is an array in its cell."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ImportError(f"to_pandas needs pandas: {install_hint('pandas')}") from error
    rows = _rows(records)
    table = to_arrow(rows)  # type: ignore[arg-type]  # of one kind or the other
    frame = table.to_pandas()
    for field in table.schema:
        column = table.column(field.name)
        kind = {"int64": "Int64", "bool": "boolean"}.get(str(field.type))
        if kind is not None and column.null_count:
            frame[field.name] = pandas.array(column.to_pylist(), dtype=kind)
    if table.schema.metadata and "id" in table.column_names:
        frame["id"] = pandas.Series([row.id for row in rows], dtype=object)
    return frame


def to_polars(records: Reading | Iterable[Record] | Iterable[Hit]) -> polars.DataFrame:
    """As `to_arrow`, as a polars frame (extra "polars"). Raises `InvalidInputError` where ids are ints and strs: a
    polars column has one type."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise ImportError(f"to_polars needs polars: {install_hint('polars')}") from error
    table = to_arrow(records)
    if table.schema.metadata:
        raise InvalidInputError(
            "expected ids that are all ints or all strs, got both; to_arrow and to_pandas keep them"
        )
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame


# --- inside -------------------------------------------------------------------------------------------------


def _rows(records: Any) -> list[Record | Hit]:
    if isinstance(records, Reading):
        records = records.scan(include=("metadata", "vector", "text"))
    if isinstance(records, Record | Hit | str) or not hasattr(records, "__iter__"):
        raise InvalidInputError(f"expected records or hits, got {type(records).__name__}; wrap a single one in a list")
    rows = list(records)
    for row in rows:
        if not isinstance(row, Record | Hit):
            raise InvalidInputError(f"expected records or hits, got {type(row).__name__} {row!r:.80}")
    return rows


def _part(row: Record | Hit, name: str) -> Any:
    """A part of a row, None where it was not asked for."""
    return getattr(row, name) if isinstance(row, Record) or name in row else None


def _hit_columns(rows: Sequence[Record | Hit]) -> dict[str, Any]:
    """What hits have beside the parts of a record."""
    import pyarrow

    hits = [row if isinstance(row, Hit) else {} for row in rows]
    columns = {}
    for name in (*_HIT_NUMBERS, "highlight"):
        if any(name in hit for hit in hits):
            kind = "string" if name == "highlight" else "int64" if name.endswith("rank") else "float64"
            columns[name] = pyarrow.array([hit.get(name) for hit in hits], kind)
    return columns


def _vectors(vectors: Sequence[Any]) -> Any:
    import pyarrow

    from nopokedb.transfer.arrow import vectors_array

    dim = next(len(vector) for vector in vectors if vector is not None)
    if all(vector is not None and len(vector) == dim for vector in vectors):
        return vectors_array(vectors, dim)
    return pyarrow.array(vectors, pyarrow.list_(pyarrow.float32(), dim))


def _fields(metadatas: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """The columns of the metadata."""
    import pyarrow

    kinds: dict[str, set[str]] = {}
    for metadata in metadatas:
        for key, value in (metadata or {}).items():
            kinds.setdefault(key, set()).add(_kind(value))
    types = {key: kind for key, found in kinds.items() if _is_name(key) and (kind := _type(found)) is not None}
    types = dict(list(types.items())[:_MAX_COLUMNS])
    columns = {
        key: pyarrow.array([None if metadata is None else metadata.get(key) for metadata in metadatas], kind)
        for key, kind in types.items()
    }
    rest = [
        None if metadata is None else {k: v for k, v in metadata.items() if k not in types or v is None}
        for metadata in metadatas
    ]
    if any(rest):
        text = [None if item is None else orjson.dumps(item).decode() for item in rest]
        columns["metadata"] = pyarrow.array(text, pyarrow.string())
    return columns


def _is_name(key: str) -> bool:
    """Whether a column may have this name. In Arrow's C interface a name ends at the first NUL, and polars gives one
    to a column without."""
    return key not in _TAKEN and key != "" and "\0" not in key


def _kind(value: Any) -> str:
    """What a value is, as far as columns are concerned."""
    if isinstance(value, list):
        found = {_kind(item) for item in value}
        if found & {"null", "list", "object", "big"}:
            return "object"
        return "list" if not found else f"list {kind}" if (kind := _scalar(found)) else "object"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if abs(value) <= _EXACT_FLOATS else "long" if value < 2**63 else "big"
    return type(value).__name__


def _scalar(found: set[str]) -> str | None:
    """The one kind of several scalars."""
    if len(found) == 1:
        return next(iter(found))
    if found == {"int", "float"}:
        return "float"
    return "long" if found == {"int", "long"} else None


_NAMES = {"int": "int64", "long": "int64", "float": "float64", "bool": "bool", "str": "string"}


def _type(found: set[str]) -> Any:
    """The Arrow type of a key with values of these kinds, None if they stay in the JSON."""
    import pyarrow

    found = found - {"null"}
    if found and all(kind.startswith("list") for kind in found):
        items = {kind.removeprefix("list ") for kind in found - {"list"}}
        name = _NAMES.get(_scalar(items) or "")
        return None if name is None else pyarrow.list_(pyarrow.type_for_alias(name))
    name = _NAMES.get(_scalar(found) or "")
    return None if name is None else pyarrow.type_for_alias(name)
