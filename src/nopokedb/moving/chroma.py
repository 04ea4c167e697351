"""Chroma's folders (0.5 to 1.5), read without its code.

    chroma.sqlite3         collections, their ids, metadata and documents, and a log of the last changes
    <segment>/             vectors of one collection: an hnswlib index in parts
      header.bin           u32 version 1, then the header of hnswlib_file.py
      data_level0.bin      its elements
      length.bin           f32 per element: under cosine the length that the vector had, garbage else
      index_metadata.pickle  which id has which label; read as data (inert.py), never unpickled

Vectors reach the index in steps, so the newest stand in the log only; metadata may be behind it after a killed process
too. Both are brought up to date here as Chroma does it. Operations of the log: 0 add, 1 update, 2 upsert, 3 delete.
Under cosine Chroma's index holds unit vectors and their lengths apart. Their product, which Chroma answers too, is what
was given up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nopokedb.errors import ArchiveError
from nopokedb.moving.hnswlib_file import HEADER, Head, offsets_by_label, read_head
from nopokedb.moving.inert import Inert, read_inert
from nopokedb.moving.origin import Origin, VectorFile, chosen, damaged, in_order, open_sqlite
from nopokedb.records import MAX_DIM, Id, Record, Vectors
from nopokedb.transfer.layout import load_json

FILE = "chroma.sqlite3"
_DOCUMENT = "chroma:document"
_ADD, _UPDATE, _UPSERT, _DELETE = range(4)
_SPACES: dict[str, Any] = {"cosine": "cosine", "l2": "l2", "ip": "ip"}
_ENCODINGS = {"FLOAT32": "<f4", "INT32": "<i4"}
_LOG_OF_VECTORS = """SELECT seq_id, operation, id, vector IS NOT NULL FROM embeddings_queue
WHERE topic LIKE ? AND seq_id > ? ORDER BY seq_id"""
_LOG_OF_METADATA = """SELECT operation, id, metadata FROM embeddings_queue
WHERE topic LIKE ? AND seq_id > ? ORDER BY seq_id"""
_ROW = "SELECT id FROM embeddings WHERE segment_id = ? AND embedding_id = ?"
_CELLS = (
    "SELECT key, string_value, int_value, float_value, bool_value FROM embedding_metadata WHERE id = ? ORDER BY key"
)
_LIST_CELLS = """SELECT key, string_value, int_value, float_value, bool_value FROM embedding_metadata_array
WHERE id = ? ORDER BY rowid"""
_SCHEMA = "SELECT schema_str FROM collections WHERE id = ?"
_CONFIG = "SELECT config_json_str FROM collections WHERE id = ?"


class ChromaOrigin(Origin):
    """One collection of a folder."""

    program = "chroma"

    def __init__(self, folder: Path, collection: str | None) -> None:
        super().__init__()
        self.path = str(folder)
        self._file = folder / FILE
        self._db = open_sqlite(self._file, self.opened)
        names = [name for (name,) in self._rows("SELECT name FROM collections ORDER BY name")]
        name = chosen("a collection", "--collection", names, collection, folder)
        (self._collection, dim), *_ = self._rows("SELECT id, dimension FROM collections WHERE name = ?", name)
        if not isinstance(dim, int) or not 1 <= dim <= MAX_DIM:
            raise ArchiveError(f"expected vectors in the collection {name!r}, found none", file=str(self._file))
        self.dim, self.space = dim, self._space_of()
        segments = dict(self._rows("SELECT scope, id FROM segments WHERE collection = ?", self._collection))
        self._places: dict[str, int] = {}
        """By id the byte of its vector in the index."""
        self._logged: dict[str, int] = {}
        """By id the number of the change that has its vector."""
        self._changed: dict[str, dict[str, Any] | None] = {}
        """By id the metadata that are newer than those in the table, None of one that was deleted."""
        self._metadata_segment = segments.get("METADATA", "")
        self._vectors: VectorFile | None = None
        self._lengths: VectorFile | None = None
        self._head: Head | None = None
        self._read_index(folder / segments.get("VECTOR", "absent"))
        self._follow_vectors(self._applied(segments.get("VECTOR", "")))
        self._follow_metadata(self._applied(self._metadata_segment))
        self.ids = in_order([*({*self._places} | {*self._logged})])

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Rows of a query. Raises `ArchiveError` where the file does not have them."""
        import apsw

        try:
            yield from self._db.execute(query, values)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise damaged(self._file, f"it is none of Chroma's that is known here: {error}") from None

    def _space_of(self) -> Any:
        """Where it stands depends on the version: the schema, the configuration, or the collection's metadata."""
        columns = {row[1] for row in self._rows("PRAGMA table_info(collections)")}
        found: list[Any] = []
        for column, query in (("schema_str", _SCHEMA), ("config_json_str", _CONFIG)):
            if column in columns:
                found += [_space_in(text) for (text,) in self._rows(query, self._collection)]
        query = "SELECT str_value FROM collection_metadata WHERE collection_id = ? AND key = 'hnsw:space'"
        found += [text for (text,) in self._rows(query, self._collection)]
        name = next((name for name in found if name), "l2")
        if name not in _SPACES:
            raise ArchiveError(f"expected the space cosine, l2 or ip, got {name!r}", file=str(self._file))
        return _SPACES[name]

    def _applied(self, segment: str) -> int:
        """Up to which change of the log a segment is."""
        (value,) = next(self._rows("SELECT max(seq_id) FROM max_seq_id WHERE segment_id = ?", segment))
        return int.from_bytes(value, "big") if isinstance(value, bytes) else value or 0

    def _read_index(self, folder: Path) -> None:
        names = folder / "index_metadata.pickle"
        if not names.is_file():  # nothing has left the log yet
            return
        try:
            value = read_inert(names.read_bytes())
            labels = (value.state if isinstance(value, Inert) else value)["id_to_label"]  # before 1.0 an object
            pairs = [(str(id_), int(label)) for id_, label in labels.items()]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(names, f"expected the labels of ids, got something else ({error})") from None
        with (folder / "header.bin").open("rb") as file:
            data = file.read(4 + HEADER.itemsize)
        if data[:4] != b"\1\0\0\0":
            raise damaged(folder / "header.bin", "expected version 1 of Chroma's index")
        head = read_head(folder / "header.bin", data[4:])
        if head.dim != self.dim:
            raise damaged(folder / "header.bin", f"expected dimension {self.dim}, got {head.dim}")
        level0 = folder / "data_level0.bin"
        places = offsets_by_label(level0, head, 0)
        for id_, label in pairs:
            if label not in places:
                self.refused[id_] = "its vector is not in the index"
            else:
                self._places[id_] = places[label]
        self._head, self._vectors = head, VectorFile(level0, self.dim)
        self.opened.callback(self._vectors.close)
        if self.space == "cosine":
            self._lengths = VectorFile(folder / "length.bin", 1)
            self.opened.callback(self._lengths.close)

    def _follow_vectors(self, after: int) -> None:
        for number, operation, id_, has_vector in self._rows(_LOG_OF_VECTORS, f"%/{self._collection}", after):
            there = id_ in self._places or id_ in self._logged
            if operation == _DELETE:
                self._places.pop(id_, None)
                self._logged.pop(id_, None)
            elif has_vector and _takes_effect(operation, there):
                self._logged[id_] = number

    def _follow_metadata(self, after: int) -> None:
        for operation, id_, text in self._rows(_LOG_OF_METADATA, f"%/{self._collection}", after):
            known = self._changed[id_] if id_ in self._changed else self._stored(id_)
            if operation == _DELETE:
                self._changed[id_] = None
            elif _takes_effect(operation, known is not None):
                patch = load_json(text.encode()) if text else {}
                self._changed[id_] = {k: v for k, v in {**(known or {}), **patch}.items() if v is not None}

    def _stored(self, id_: str) -> dict[str, Any] | None:
        """The metadata in the table, the document among them; None if it does not know the id."""
        row = next(self._rows(_ROW, self._metadata_segment, id_), None)
        if row is None:
            return None
        found: dict[str, Any] = {key: _value(*cells) for key, *cells in self._rows(_CELLS, row[0])}
        if self._has_lists:
            for key, *cells in self._rows(_LIST_CELLS, row[0]):
                found.setdefault(key, []).append(_value(*cells))
        return found

    @cached_property
    def _has_lists(self) -> bool:
        return next(self._rows("SELECT 1 FROM sqlite_schema WHERE name = 'embedding_metadata_array'"), None) is not None

    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        records = []
        for id_ in map(str, ids):
            vector = self._vector(id_)
            if vector is None:
                continue
            metadata = dict((self._changed[id_] if id_ in self._changed else self._stored(id_)) or {})
            text = metadata.pop(_DOCUMENT, None)
            records.append(Record(id_, metadata, vector, text))
        return records

    def _vector(self, id_: str) -> Vectors | None:
        if id_ not in self._logged:
            return self._indexed(self._places[id_])
        query = "SELECT vector, encoding FROM embeddings_queue WHERE seq_id = ?"
        ((data, encoding),) = self._rows(query, self._logged[id_])
        if encoding not in _ENCODINGS or len(data) != 4 * self.dim:
            self.refused[id_] = f"its vector in the log has {len(data)} bytes as {encoding}"
            return None
        return np.frombuffer(data, _ENCODINGS[encoding]).astype("<f4")

    def _indexed(self, place: int) -> Vectors:
        """A vector of the index, with the length that it had."""
        assert self._vectors is not None and self._head is not None
        vector = self._vectors.read(place)
        if self._lengths is None:
            return vector
        length = self._lengths.read(4 * (place // self._head.width))
        return vector * length


def _takes_effect(operation: int, there: bool) -> bool:
    """Chroma ignores an add of an id that is there, and an update of one that is not."""
    return operation == _UPSERT or there == (operation == _UPDATE)


def _value(string: Any, whole: Any, fraction: Any, truth: Any) -> Any:
    """The one of four columns that is used."""
    return bool(truth) if truth is not None else next((v for v in (string, whole, fraction) if v is not None), None)


def _space_in(text: str | None) -> str | None:
    """The space that a configuration names. Versions before 1.0 wrote their default there, whatever was asked for,
    under another key; what was asked for stands in the metadata."""
    if not text:
        return None
    try:
        config = orjson.loads(text)
        keys = config.get("keys") or {}
        if "#embedding" in keys:
            config = keys["#embedding"]["float_list"]["vector_index"]["config"]
        named: str | None = (config.get("hnsw") or {}).get("space") or config.get("space")
        return named
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return None
