"""`NoPokeVectorStore`: a collection as a vector store of LlamaIndex (extra "llama-index", docs/llama-index.md).

A node is a record: its id the record's, its text the record's text, its embedding the vector, its metadata the
record's. What else a node has (relationships, positions, templates) is in keys of the metadata that LlamaIndex's own
stores use, but without a second copy of the metadata, so a change by another program changes the node:

    _node_content   JSON: the node without its text, embedding and metadata; see `_encoded` for what is kept of these
    _node_type      the name of its class
    ref_doc_id, doc_id, document_id   the id of the document that it is of; missing where it is of none
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from nopokedb.adapters.collection import RELEVANCE, Handle, checked_ids, stored_ids, varied_hits
from nopokedb.database import NoPokeDB
from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidFilterError, InvalidInputError
from nopokedb.filters import And, Filter, Not, Or
from nopokedb.records import MAX_K, Hit, Part, Record, check_fraction, check_ids, check_int
from nopokedb.where import F, Where, parse_filter

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, Document, ImageNode, IndexNode, MetadataMode, Node, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise
    raise ImportError(
        f"nopokedb.adapters.llama_index needs llama-index-core: {install_hint('llama-index')}", name=error.name
    ) from error

_CONTENT, _TYPE = "_node_content", "_node_type"
_SOURCES = ("ref_doc_id", "doc_id", "document_id")
_RESERVED = (_CONTENT, _TYPE, *_SOURCES)
_PARTS: tuple[Part, ...] = ("metadata", "text")
_ALL = F("$id").exists()
_CLASSES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, Node, IndexNode, ImageNode, Document)
}
_TEXT_MODES = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_MODES = (VectorStoreQueryMode.DEFAULT, *_TEXT_MODES, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR)


class NoPokeVectorStore(BasePydanticVectorStore):
    """A vector store of LlamaIndex on a NoPokeDB collection: in a folder, on a server, or in PostgreSQL.

    Nodes are durable when `add` returns, and each query sees all that were. One call is one atomic batch (up to 256
    MB). The asynchronous methods run in threads, so that no event loop waits for a disk.

    Similarities are larger for better: the cosine, the dot product, 1 / (1 + distance) under "l2", the BM25 score of
    a search by words, or the fused score of a hybrid one.

    Args:
        path, collection: where the collection is, as in `NoPokeDB`. A missing one is created by the first `add`, with
            the dimension of its embeddings, and has no nodes until then.
        dim: components of an embedding, where you know it.
        database: an open collection to use in place of `path`; `close` leaves it open.
        options: the other arguments of `NoPokeDB`, such as `space`, `indexed_fields`, `text_language`, `api_key`.

    Raises: what `NoPokeDB` raises, at the first use of the collection.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    _handle: Handle = PrivateAttr()

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        collection: str | None = None,
        dim: int | None = None,
        database: NoPokeDB | None = None,
        **options: Any,
    ) -> None:
        super().__init__(stores_text=True)
        self._handle = Handle(database, path, {"collection": collection, "dim": dim, **options})

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex knows this class."""
        return "NoPokeVectorStore"

    @property
    def client(self) -> NoPokeDB:
        """The collection itself, for all that LlamaIndex has no word for. Raises `CollectionNotFoundError` where the
        first `add` is still to create it."""
        return self._handle.open()

    # --- writing ---------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Write nodes with their embeddings, durable when this returns; a node whose id exists is replaced whole.
        Returns the ids, in order. Raises ValueError for a node without an embedding."""
        _no_options(kwargs)
        nodes = list(nodes)
        if not nodes:
            return []
        vectors = [node.get_embedding() for node in nodes]
        ids = check_ids(node.node_id for node in nodes)
        metadatas = [_encoded(node) for node in nodes]
        db = self._handle.open(lambda: len(vectors[0]))
        texts = [_text(node) for node in nodes]
        db.upsert_many(stored_ids(db, ids), vectors, metadatas, texts=texts)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """See `add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of this document, in one atomic batch: also a node of no document with this id, which is
        what a pipeline without a splitter makes of a document."""
        _no_options(delete_kwargs)
        itself = (F("$id") == ref_doc_id) & F("ref_doc_id").is_null()
        if (db := self._handle.existing()) is not None:
            db.delete_many(where=(F("ref_doc_id") == ref_doc_id) | itself)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See `delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete the nodes with these ids that pass the filters, in one atomic batch. At least one of both: a
        forgotten argument would delete everything, for which there is `clear`."""
        _no_options(delete_kwargs)
        if node_ids is None and (filters is None or not filters.filters):
            raise InvalidInputError("expected node_ids or filters, got none; clear() deletes all nodes")
        if (db := self._handle.existing()) is not None:
            db.delete_many(where=_where(db, filters, node_ids))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """See `delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Delete all nodes, in one atomic batch. The collection and its settings stay."""
        if (db := self._handle.existing()) is not None:
            db.delete_many(where=_ALL)

    async def aclear(self) -> None:
        """See `clear`."""
        await asyncio.to_thread(self.clear)

    # --- reading ---------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes with these ids, in their order, that pass the filters, or all; with their embeddings. Ids that do
        not exist are left out."""
        db = self._handle.existing()
        if db is None:
            return []
        found = db.scan(where=_where(db, filters, node_ids), include=(*_PARTS, "vector"))
        if node_ids is None:
            return [_decoded(record) for record in found]
        nodes = {str(record.id): _decoded(record) for record in found}
        return [nodes[id_] for id_ in node_ids if id_ in nodes]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """See `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes, best first; fewer than were asked for only if fewer pass the filters.

        Modes: DEFAULT, by vector. TEXT_SEARCH and SPARSE, by the words of `query_str` (BM25, extra "text");
        `sparse_top_k` nodes if that is given. HYBRID, by both: fused by ranks, or by scores where `alpha` is given (0
        words, 1 vector); `hybrid_top_k` nodes if that is given; how many candidates each side brings is NoPokeDB's
        affair. MMR, by vector and unlike each other: `mmr_threshold` from 0, difference, to 1, nearness (0.5), chosen
        among `mmr_prefetch_factor` (4) times as many, or `mmr_prefetch_k`. Other modes raise `InvalidInputError`.

        Args:
            kwargs: `vector_store_kwargs` of a retriever: `where`, a filter of NoPokeDB's own beside `filters`
                (docs/filters.md); `ef`, `target_recall`, `max_distance`, which searches by vector take; those of MMR.
        """
        _check(query)
        db = self._handle.existing()
        if db is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        # An index whose nodes are all here says so by empty lists of ids.
        where = _where(db, query.filters, query.node_ids or None, query.doc_ids or None, kwargs.pop("where", None))
        hits = _hits(db, query, where, kwargs)
        return VectorStoreQueryResult(
            nodes=[_decoded(hit) for hit in hits],
            similarities=[_similarity(db.space, query.mode, hit) for hit in hits],
            ids=[str(hit.id) for hit in hits],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    # --- closing ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the collection, unless it came as `database`. Closing twice is harmless."""
        self._handle.close()

    async def aclose(self) -> None:
        """See `close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> NoPokeVectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- nodes and records -----------------------------------------------------------------------------------------


def _text(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE)


def _encoded(node: BaseNode) -> dict[str, Any]:
    """The metadata of the record. Of the node's own, `_node_content` keeps what the record cannot show: values of keys
    that are reserved, and empty lists, which become null, so that IS_EMPTY finds them."""
    own = node.metadata
    content = node.model_dump(mode="json", exclude={"embedding", "metadata"})
    if isinstance(node, Node):
        content.pop("text", None)  # what a Document shows of its resource
        if node.text_resource is not None:
            content["text_resource"]["text"] = None
    else:
        content["text"] = ""
    kept = {key: value for key, value in own.items() if key in _RESERVED or value == []}
    if kept:
        content["metadata"] = kept
    metadata = {key: None if value == [] else value for key, value in own.items() if key not in _RESERVED}
    if node.ref_doc_id is not None:
        metadata |= dict.fromkeys(_SOURCES, node.ref_doc_id)
    return {**metadata, _CONTENT: orjson.dumps(content).decode(), _TYPE: node.class_name()}


def _decoded(found: Record | Hit) -> BaseNode:
    """The node of a record; of one that no node was written to, a `TextNode` of its text and metadata."""
    metadata, text = dict(found.metadata or {}), found.text or ""
    node: BaseNode
    if isinstance(content := metadata.get(_CONTENT), str):
        node = _CLASSES.get(str(metadata.get(_TYPE)), TextNode).from_dict(orjson.loads(content))
        kept = node.metadata
        node.metadata = {key: value for key, value in metadata.items() if key not in _RESERVED}
        node.metadata |= {key: value for key, value in kept.items() if node.metadata.get(key) is None}
        if isinstance(node, Node) and node.text_resource is not None:
            node.text_resource.text = text
        elif text:
            node.set_content(text)
    else:
        node = TextNode(id_=str(found.id), text=text, metadata=metadata)
    if isinstance(found, Record) and found.vector is not None:
        node.embedding = found.vector.tolist()
    return node


# --- questions -------------------------------------------------------------------------------------------------


def _no_options(options: dict[str, Any]) -> None:
    if options:
        raise InvalidInputError(f"expected no options beside those named, got {', '.join(options)}")


def _check(query: VectorStoreQuery) -> None:
    """What can be asked: refused is what has no meaning here, whatever the collection holds."""
    if query.mode not in _MODES:
        known = ", ".join(mode.name for mode in _MODES)
        raise InvalidInputError(f"expected a query mode of {known}, got {query.mode!r:.80}")
    for name in ("embedding_field", "output_fields"):
        if getattr(query, name) is not None:
            raise InvalidInputError(
                f"expected a query without {name}, got it; a record has one vector, and comes whole"
            )
    if query.mode not in _TEXT_MODES and query.query_embedding is None:
        raise InvalidInputError(f"expected query_embedding in mode {query.mode.name}, got None")
    if query.mode in (*_TEXT_MODES, VectorStoreQueryMode.HYBRID) and query.query_str is None:
        raise InvalidInputError(f"expected query_str in mode {query.mode.name}, got None")


def _hits(db: NoPokeDB, query: VectorStoreQuery, where: Where, options: dict[str, Any]) -> list[Hit]:
    """Ask the collection."""
    k, vector, text = query.similarity_top_k, query.query_embedding, query.query_str
    asked: dict[str, Any] = {"where": where, "include": _PARTS, **options}
    if query.mode in _TEXT_MODES:
        hits = db.query(k=query.sparse_top_k or k, text=text, **asked)
    elif query.mode == VectorStoreQueryMode.HYBRID:
        if query.alpha is not None:
            asked |= {"fusion": "weighted", "alpha": query.alpha}
        hits = db.query(vector, query.hybrid_top_k or k, text=text, **asked)
    elif query.mode == VectorStoreQueryMode.MMR:
        hits = _diverse(db, query, asked)
    else:
        hits = db.query(vector, k, **asked)
    found: list[Hit] = hits
    return found


def _diverse(db: NoPokeDB, query: VectorStoreQuery, asked: dict[str, Any]) -> list[Hit]:
    """Maximal marginal relevance over the candidates that were asked for."""
    threshold = asked.pop("mmr_threshold", None)
    threshold = query.mmr_threshold if threshold is None else threshold
    diversity = 1.0 - check_fraction("mmr_threshold", 0.5 if threshold is None else threshold)
    factor, length = asked.pop("mmr_prefetch_factor", None), asked.pop("mmr_prefetch_k", None)
    if factor is not None and length is not None:
        raise InvalidInputError("expected one of mmr_prefetch_factor and mmr_prefetch_k, got both")
    k = check_int("similarity_top_k", query.similarity_top_k, 1, MAX_K)
    if length is None:
        length = min(math.ceil(k * (4.0 if factor is None else factor)), MAX_K)
    length = max(k, check_int("mmr_prefetch_k", length, 1, MAX_K))
    hits = db.query(query.query_embedding, length, **asked | {"include": (*_PARTS, "vector")})
    return varied_hits(db.space, hits, k, diversity)


def _similarity(space: str, mode: VectorStoreQueryMode, hit: Hit) -> float:
    by_vector = mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
    if space == "l2" and by_vector and hit.distance is not None:
        return RELEVANCE["l2"](hit.distance)
    return hit.score


# --- filters ---------------------------------------------------------------------------------------------------


def _where(
    db: NoPokeDB,
    filters: MetadataFilters | None,
    node_ids: Sequence[str] | None,
    doc_ids: Sequence[str] | None = None,
    where: Where = None,
) -> Filter | None:
    """All conditions together; None where there are none."""
    parts: list[Filter | None] = [None if filters is None else _condition(filters), parse_filter(where)]
    if node_ids is not None:
        parts.append(F("$id").is_in(stored_ids(db, checked_ids(node_ids))))
    if doc_ids is not None:
        parts.append(F("ref_doc_id").is_in(doc_ids))
    given = tuple(part for part in parts if part is not None)
    return And(given) if given else None


def _condition(filters: MetadataFilters) -> Filter | None:
    """A filter of NoPokeDB; None where all nodes pass, as they do where there is nothing to combine."""
    parts = [part for part in map(_part, filters.filters) if part is not None]
    if not parts:
        return None
    match filters.condition:
        case FilterCondition.AND | None:
            return And(tuple(parts))
        case FilterCondition.OR:
            return Or(tuple(parts))
        case FilterCondition.NOT:  # none of them passes
            return Not(Or(tuple(parts)))
    raise InvalidFilterError(f"expected a condition of and, or, not; got {filters.condition!r:.80}")


def _part(part: Any) -> Filter | None:
    if isinstance(part, MetadataFilters):
        return _condition(part)
    test = _OPERATORS.get(part.operator)
    if test is None:
        raise InvalidFilterError(
            f"expected an operator of {', '.join(operator.name for operator in _OPERATORS)} for {part.key!r:.80}, got "
            f"{part.operator.name}"
        )
    return test(F(part.key, literal=True), part.value)


def _with_part(field: F, value: Any) -> Filter:
    if not isinstance(value, str):
        raise InvalidFilterError(f"expected a str for {FilterOperator.TEXT_MATCH.name}, got {value!r:.80}")
    escaped = "".join("\\" + character if character in "\\%_" else character for character in value)
    return field.like(f"%{escaped}%")


# THE table of operators. TEXT_MATCH_INSENSITIVE is not in it: no filter of NoPokeDB folds case.
_OPERATORS: dict[FilterOperator, Callable[[F, Any], Filter]] = {
    FilterOperator.EQ: lambda field, value: field == value,
    FilterOperator.NE: lambda field, value: field != value,
    FilterOperator.GT: lambda field, value: field > value,
    FilterOperator.GTE: lambda field, value: field >= value,
    FilterOperator.LT: lambda field, value: field < value,
    FilterOperator.LTE: lambda field, value: field <= value,
    FilterOperator.IN: lambda field, value: field.is_in(value),
    FilterOperator.NIN: lambda field, value: field.not_in(value),
    FilterOperator.ANY: lambda field, value: field.contains_any(value),
    FilterOperator.ALL: lambda field, value: field.contains_all(value),
    FilterOperator.CONTAINS: lambda field, value: field.contains(value),
    FilterOperator.TEXT_MATCH: _with_part,
    FilterOperator.IS_EMPTY: lambda field, value: field.is_in([None, ""]),
}
