"""Documents of Haystack as records, and its filters as those of NoPokeDB.

A `Document` is a record: its id the record's, its content the record's text, its meta the metadata, its embedding the
vector. What a record has no place for is under one more key of the metadata, which is there only where it is needed:

    _haystack   {"embedding": false}       no embedding: the vector is a placeholder, which no search by vector finds
                {"content": ""}            the content is the empty str; a record without text has the content None
                {"blob": {...}}            data in base64, its mime type and meta
                {"sparse_embedding": {...}}
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import orjson
from haystack import Document
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.errors import FilterError

from nopokedb.adapters.collection import checked_ids, stored_ids
from nopokedb.database import NoPokeDB
from nopokedb.errors import DuplicateIdError, InvalidFilterError, InvalidIdError, InvalidInputError
from nopokedb.filters import And, Filter, Not, Or, nodes_at, path_text
from nopokedb.records import Hit, Id, Record
from nopokedb.where import MAX_DEPTH, F, parse_filter

_KEPT = "_haystack"
EMBEDDED = Not(F(f"{_KEPT}.embedding") == False)  # noqa: E712  # builds a filter
"""Passes documents with an embedding."""
_NONE = F("$id").is_in([])
_NOT_FILTERED = frozenset({"content", "blob", "score", "embedding", "sparse_embedding", "meta"})


# --- documents and records -------------------------------------------------------------------------------------


def dimension_of(documents: list[Document]) -> int:
    """Components of the embeddings of a collection that these documents create."""
    for document in documents:
        if document.embedding is not None:
            return len(document.embedding)
    raise InvalidInputError("expected dim= to create a collection with documents that have no embedding, got None")


def as_rows(db: NoPokeDB, documents: Iterable[Document]) -> dict[str, Any]:
    """Documents, column by column."""
    documents = list(documents)
    placeholder = [1.0] + [0.0] * (db.dim - 1)  # a direction, which the cosine needs
    return {
        "ids": stored_ids(db, checked_ids([document.id for document in documents])),
        "vectors": [placeholder if document.embedding is None else document.embedding for document in documents],
        "metadatas": [_metadata(document) for document in documents],
        "texts": [document.content or "" for document in documents],
    }


def add_new(db: NoPokeDB, documents: list[Document]) -> int:
    """Add those that do not exist; how many. Where another writer adds one of them meanwhile, look again."""
    written = 0
    while True:
        known = db.get_many(stored_ids(db, checked_ids([document.id for document in documents])), include=())
        documents = [document for document, record in zip(documents, known, strict=True) if record is None]
        if not documents:
            return written
        try:
            return written + len(db.add_many(**as_rows(db, documents)))
        except DuplicateIdError as error:
            written += len(error.committed)


def check_meta(meta: dict[str, Any]) -> None:
    """Refuse the store's own key."""
    if _KEPT in meta:
        raise InvalidInputError(f"expected meta without the key {_KEPT!r}, which is the store's own")


def _metadata(document: Document) -> dict[str, Any]:
    check_meta(document.meta)
    kept: dict[str, Any] = {}
    if document.embedding is None:
        kept["embedding"] = False
    if document.content == "":
        kept["content"] = ""
    if (blob := document.blob) is not None:
        data = base64.b64encode(blob.data).decode()
        kept["blob"] = {"data": data, "mime_type": blob.mime_type, "meta": blob.meta}
    if document.sparse_embedding is not None:
        kept["sparse_embedding"] = document.sparse_embedding.to_dict()
    return {**document.meta, _KEPT: kept} if kept else document.meta


def meta_of(found: Record | Hit) -> dict[str, Any]:
    """The meta of a document."""
    return {key: value for key, value in (found.metadata or {}).items() if key != _KEPT}


def as_document(found: Record | Hit) -> Document:
    """The document of a record; of a hit, with its score."""
    kept: dict[str, Any] = (found.metadata or {}).get(_KEPT, {})
    vector = found.get("vector") if isinstance(found, Hit) else None if found.vector is None else found.vector.tolist()
    blob, sparse = kept.get("blob"), kept.get("sparse_embedding")
    return Document(
        id=str(found.id),
        content=found.text or kept.get("content"),
        blob=None if blob is None else ByteStream(base64.b64decode(blob["data"]), blob["meta"], blob["mime_type"]),
        meta=meta_of(found),
        score=found.score if isinstance(found, Hit) else None,
        embedding=vector if kept.get("embedding", True) else None,
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )


def values_at(meta: dict[str, Any], name: str) -> list[Any]:
    """What a field holds, where that is not null."""
    return [value for value in nodes_at(meta, name.split(".")) if value is not None]


def different(values: Iterable[Any]) -> dict[bytes, Any]:
    """Each value once, by its JSON, which tells 1, 1.0, "1" and True apart."""
    return {orjson.dumps(value): value for value in values}


def type_of(value: Any) -> str:
    """What Haystack calls the type of a value."""
    return {bool: "boolean", int: "int", float: "float"}.get(type(value), "keyword")


# --- filters ---------------------------------------------------------------------------------------------------


def as_where(db: NoPokeDB, filters: dict[str, Any] | None) -> Filter | None:
    """A filter of NoPokeDB; None where all documents pass."""
    if not filters:
        return None
    try:
        return parse_filter(_condition(db, filters, 1))
    except (InvalidFilterError, InvalidIdError) as error:
        raise FilterError(str(error)) from error


def some_where(db: NoPokeDB, filters: dict[str, Any]) -> Filter:
    """`as_where` of a filter that is not empty."""
    where = as_where(db, filters)
    if where is None:
        raise FilterError("expected a filter, got an empty one; delete_all_documents() deletes all")
    return where


def _condition(db: NoPokeDB, condition: Any, depth: int) -> Filter:
    if not isinstance(condition, dict):
        raise FilterError(f"expected a condition as a dict, got {condition!r:.200}")
    if depth > MAX_DEPTH:
        raise FilterError(f"expected conditions nested at most {MAX_DEPTH} deep, got more")
    if "field" in condition:
        return _comparison(db, condition["field"], _item(condition, "operator"), _item(condition, "value"))
    operator, conditions = _item(condition, "operator"), _item(condition, "conditions")
    if not isinstance(conditions, list) or not conditions:
        raise FilterError(f"expected conditions to be a list of at least one, got {conditions!r:.200}")
    parts = tuple(_condition(db, part, depth + 1) for part in conditions)
    if operator not in ("AND", "OR", "NOT"):
        raise FilterError(f"expected an operator of AND, OR, NOT, got {operator!r:.80}")
    return Or(parts) if operator == "OR" else And(parts) if operator == "AND" else Not(And(parts))


def _item(condition: dict[str, Any], key: str) -> Any:
    if key not in condition:
        raise FilterError(f"expected the key {key!r} in {condition!r:.200}")
    return condition[key]


def _comparison(db: NoPokeDB, field: Any, operator: Any, value: Any) -> Filter:
    if operator not in _OPERATORS:
        raise FilterError(f"expected an operator of {', '.join(_OPERATORS)}, got {operator!r:.80}")
    if not isinstance(field, str) or field in _NOT_FILTERED:
        raise FilterError(f"expected a field of meta, or id, got {field!r:.80}")
    if field != "id":
        return _OPERATORS[operator](F(path_text(tuple(field.removeprefix("meta.").split(".")))), value)
    if operator in _ORDER:
        raise FilterError(f"expected ==, !=, in or not in for ids, which have no order, got {operator}")
    wanted: list[Id] = stored_ids(db, checked_ids(_list(value) if "in" in operator else [value]))
    return F("$id").is_in(wanted) if operator in ("==", "in") else F("$id").not_in(wanted)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FilterError(f"expected a list for in and not in, got {value!r:.80}")
    return value


def _ordered(test: Callable[[F, Any], Filter]) -> Callable[[F, Any], Filter]:
    """An operator of order: nothing is above or below None, and of strs only dates have an order."""

    def ordered(field: F, value: Any) -> Filter:
        if isinstance(value, str):
            try:
                datetime.fromisoformat(value)
            except ValueError:
                raise FilterError(f"expected a number or a date in ISO format to order by, got {value!r:.80}") from None
        return _NONE if value is None else test(field, value)

    return ordered


_ORDER: dict[str, Callable[[F, Any], Filter]] = {
    ">": _ordered(lambda field, value: field > value),
    ">=": _ordered(lambda field, value: field >= value),
    "<": _ordered(lambda field, value: field < value),
    "<=": _ordered(lambda field, value: field <= value),
}
# THE table of operators.
_OPERATORS: dict[str, Callable[[F, Any], Filter]] = {
    "==": lambda field, value: field == value,
    "!=": lambda field, value: field != value,
    "in": lambda field, value: field.is_in(_list(value)),
    "not in": lambda field, value: field.not_in(_list(value)),
    **_ORDER,
}
