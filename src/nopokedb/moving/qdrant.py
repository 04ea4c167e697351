"""Folders of Qdrant's Python client in local mode (`QdrantClient(path=...)`), read without its code.

    meta.json                        the collections and the parameters of their vectors
    collection/<name>/storage.sqlite  points(id: base64 of a pickled id, point: a pickled PointStruct)

The client unpickles these, which runs what they say; here they are read as data (inert.py). The client as an optional
library would have meant to run a foreign file's code. A folder of a Qdrant *server* is something else, and refused.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nopokedb.errors import ArchiveError
from nopokedb.moving.inert import Inert, read_inert
from nopokedb.moving.origin import Origin, chosen, damaged, in_order, open_sqlite, plain_json
from nopokedb.records import MAX_DIM, Id, Record

_SPACES: dict[str, Any] = {"Cosine": "cosine", "Euclid": "l2", "Dot": "ip"}


class QdrantOrigin(Origin):
    """One collection of a folder, with one of its vectors."""

    program = "qdrant"

    def __init__(self, folder: Path, collection: str | None, vector: str | None) -> None:
        super().__init__()
        self.path = str(folder)
        config = _config(folder, collection)
        if config["name"] is None:
            raise ArchiveError(f"expected a collection in {folder}, found none", file=str(folder))
        self._name: str | None = None
        """Of the vector, None where vectors have no names."""
        parameters = config.get("vectors") or {}
        if "size" not in parameters:
            self._name = chosen("a vector", "--vector", sorted(parameters), vector, folder)
            others = [name for name in parameters if name != self._name]
            parameters = parameters[self._name]
            if others:
                self.notes.append(f"other vectors of each point: {', '.join(others)}")
        self._check(parameters, folder)
        if config.get("sparse_vectors"):
            self.notes.append(f"sparse vectors: {', '.join(config['sparse_vectors'])}")
        self._file = folder / "collection" / config["name"] / "storage.sqlite"
        self._db = open_sqlite(self._file, self.opened)
        self._rowids = self._read_ids()
        self.ids = in_order([*self._rowids])

    def _check(self, parameters: dict[str, Any], folder: Path) -> None:
        dim, distance = parameters.get("size"), parameters.get("distance")
        if distance not in _SPACES:
            known = ", ".join(_SPACES)
            raise ArchiveError(f"expected a distance of {known}, got {distance!r} in {folder}", file=str(folder))
        if not isinstance(dim, int) or not 1 <= dim <= MAX_DIM or parameters.get("multivector_config"):
            raise ArchiveError(f"expected one vector for each point, got {parameters} in {folder}", file=str(folder))
        self.dim, self.space = dim, _SPACES[distance]

    def _read_ids(self) -> dict[Id, int]:
        """By id the row of its newest point: the one that was written last."""
        import apsw

        found: dict[Id, int] = {}
        try:
            for rowid, key in self._db.execute("SELECT rowid, id FROM points ORDER BY rowid"):
                found[_plain_id(read_inert(base64.b64decode(key, validate=True)))] = rowid
        except apsw.Error as error:
            raise damaged(self._file, f"it is none of Qdrant's local mode: {error}") from None
        except (ValueError, TypeError, binascii.Error) as error:
            raise damaged(self._file, f"expected the id of a point ({error})") from None
        return found

    def fetch(self, ids: Sequence[Id]) -> list[Record]:
        records = []
        for id_ in ids:
            ((data,),) = self._db.execute("SELECT point FROM points WHERE rowid = ?", (self._rowids[id_],))
            try:
                records.append(self._record(id_, _fields(read_inert(data))))
            except (ValueError, TypeError, RecursionError) as error:
                self.refused[id_] = f"it cannot be read: {error}"
        return records

    def _record(self, id_: Id, fields: dict[str, Any]) -> Record:
        vector, payload = fields.get("vector"), fields.get("payload") or {}
        if isinstance(vector, dict):
            vector = vector.get(self._name)
        if not isinstance(vector, list) or not all(isinstance(x, int | float) for x in vector):
            raise ValueError("it has no such vector")
        if not isinstance(payload, dict) or not plain_json(payload):
            raise ValueError("its payload holds what JSON has not")
        if len(vector) != self.dim:
            raise ValueError(f"its vector has {len(vector)} components")
        return Record(id_, payload, np.array(vector, "<f4"))


def _config(folder: Path, collection: str | None) -> dict[str, Any]:
    """What meta.json says of the collection, and its name."""
    file = folder / "meta.json"
    if not file.is_file():
        raise ArchiveError(
            f"expected meta.json of Qdrant's local mode in {folder}, found none; of a server, scroll the collection "
            "and hand the points to add_many",
            file=str(folder),
        )
    try:
        collections = orjson.loads(file.read_bytes())["collections"]
        name = chosen("a collection", "--collection", sorted(collections), collection, folder)
        found = dict(collections[name])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise damaged(file, f"expected the collections of Qdrant's local mode ({error})") from None
    if Path(name).name != name or name in (".", ".."):
        raise damaged(file, f"the name {name!r} is none of a folder")
    return {**found, "name": name}


def _fields(point: Any) -> dict[str, Any]:
    """The fields of a pickled model: its own dict, or that of pydantic's state."""
    state = point.state if isinstance(point, Inert) else None
    fields = state.get("__dict__", state) if isinstance(state, dict) else None
    if not isinstance(fields, dict):
        raise ValueError("it is no point")
    return fields


def _plain_id(value: Any) -> Id:
    """An int, or a UUID in its usual spelling."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError(f"it is {value!r:.80}")
    try:
        return str(uuid.UUID(value))
    except ValueError:
        return value
