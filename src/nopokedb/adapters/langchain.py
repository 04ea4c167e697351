"""`NoPokeVectorStore`: a collection as a vector store of LangChain (extra "langchain", docs/langchain.md).

A `Document` is a record: its id the record's, its page content the record's text, its metadata the record's. The
store adds nothing of its own, so LangChain can search any collection, and other programs can read what it wrote.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from nopokedb.adapters.collection import RELEVANCE, Handle, checked_ids, stored_ids, varied_hits
from nopokedb.database import NoPokeDB
from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidInputError
from nopokedb.records import MAX_K, Hit, Id, Part, Record, check_fraction, check_ids, check_int, check_lengths
from nopokedb.where import Where

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain_core":
        raise
    raise ImportError(
        f"nopokedb.adapters.langchain needs langchain-core: {install_hint('langchain')}", name=error.name
    ) from error

Question: TypeAlias = Sequence[float] | str
"""A vector, or a str where the collection has a model of its own."""

_PARTS: tuple[Part, ...] = ("metadata", "text")
_PROBE = "How many dimensions?"
_OTHERWISE = {
    "where": "filter=",
    "include": "store.database.query",
    "group_by": "store.database.query",
    "like": "store.database.query",
    "unlike": "store.database.query",
}
"""Arguments of `NoPokeDB.query` that a search for documents does not take, and what to use."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Documents to write, column by column."""

    ids: list[Id]
    texts: list[str]
    metadatas: list[dict[str, Any]]


class NoPokeVectorStore(VectorStore):
    """A vector store of LangChain on a NoPokeDB collection: in a folder, on a server, or in PostgreSQL.

    Documents are durable when `add_documents` returns, and each search sees all that were. One call is one atomic
    batch (up to 256 MB). All methods of LangChain's class work, the asynchronous ones in threads, so that no event
    loop waits for a disk. Searches take, besides what LangChain names:

    - `filter`: a `where` dict or an expression with `F` (docs/filters.md), applied inside the search;
    - `text`: search by words too, by BM25, and fuse both rankings: a str, or True for the words of the question;
      `fusion` and `alpha` say how (docs/search.md);
    - `ef`, `target_recall`, `max_distance`, `diversity`: as `NoPokeDB.query` takes them.

    Scores are those of NoPokeDB, larger is better: the cosine, the dot product, minus the squared distance, or the
    fused score. Relevance scores are from 0 to 1: the cosine (0 if it is negative), or 1 / (1 + distance) under "l2";
    of hybrid searches too, they tell of the vector alone.

    Args:
        embedding: makes vectors of texts. None: the collection's own model does, as with `embed="wordllama"`.
        path, collection: where the collection is, as in `NoPokeDB`. A missing one is created; its dimension is that
            of a vector of `embedding`, which is asked once for it, or `dim`.
        dim: components of a vector, where you know it.
        database: an open collection to use in place of `path`; `close` leaves it open.
        relevance_score_fn: distance -> relevance from 0 to 1, in place of the above; needed under "ip", where
            dot products have no bounds.
        options: the other arguments of `NoPokeDB`, such as `space`, `indexed_fields`, `embed`, `api_key`.

    Raises: what `NoPokeDB` raises.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        path: str | Path | None = None,
        *,
        collection: str | None = None,
        dim: int | None = None,
        database: NoPokeDB | None = None,
        relevance_score_fn: Callable[[float], float] | None = None,
        **options: Any,
    ) -> None:
        self._embedding = embedding
        self._relevance_score_fn = relevance_score_fn
        if embedding is not None and options.get("embed") is not None:
            raise InvalidInputError("expected one model, got both embedding and embed")
        self._handle = Handle(database, path, {"collection": collection, "dim": dim, **options})
        self.database = self._handle.open(None if embedding is None else lambda: len(embedding.embed_query(_PROBE)))
        """The collection itself, for all that LangChain has no word for."""

    @property
    def embeddings(self) -> Embeddings | None:
        """What makes vectors of texts; None where the collection's own model does."""
        return self._embedding

    # --- writing ---------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Write documents, durable when this returns; a document whose id exists is replaced whole.

        `ids` may lack some or all: these become random UUIDs. Everything is checked before anything is embedded.
        `kwargs`: `batch_size` and `progress` of `NoPokeDB.upsert_many`. Returns the ids, in order.
        """
        rows = self._rows(texts, metadatas, ids)
        vectors = None if self._embedding is None or not rows.texts else self._embedding.embed_documents(rows.texts)
        return self._write(rows, vectors, kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See `add_texts`."""
        rows = await asyncio.to_thread(self._rows, texts, metadatas, ids)
        vectors = None
        if self._embedding is not None and rows.texts:
            vectors = await self._embedding.aembed_documents(rows.texts)
        return await asyncio.to_thread(self._write, rows, vectors, kwargs)

    def delete(self, ids: Sequence[str] | None = None, *, filter: Where = None, **kwargs: Any) -> bool:
        """Delete the documents with these ids, or all that pass the filter, in one atomic batch; absent ids are
        skipped. Exactly one of both: `delete()` is refused, since a forgotten argument would delete everything.
        Returns True."""
        if kwargs:
            raise InvalidInputError(f"expected ids or filter, got {', '.join(kwargs)}")
        if (ids is None) == (filter is None):
            raise InvalidInputError(
                'expected exactly one of ids and filter; {"$id": {"$exists": True}} is a filter that all pass'
            )
        if ids is None:
            self.database.delete_many(where=filter)
        else:
            self.database.delete_many(stored_ids(self.database, dict.fromkeys(checked_ids(ids))))
        return True

    async def adelete(self, ids: Sequence[str] | None = None, *, filter: Where = None, **kwargs: Any) -> bool:
        """See `delete`."""
        return await asyncio.to_thread(self.delete, ids, filter=filter, **kwargs)

    # --- reading ---------------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in order; those that do not exist are left out. Ids that are ints, which
        other programs may have given, are written in digits."""
        records = self.database.get_many(stored_ids(self.database, checked_ids(ids)), include=_PARTS)
        return [_document(record) for record in records if record is not None]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """See `get_by_ids`."""
        return await asyncio.to_thread(self.get_by_ids, ids)

    # All searches take the options that the class names: `filter`, `text`, `target_recall`, ...

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k best documents for a text, best first; fewer only if fewer pass the filter."""
        return _documents(self._hits(self._question(query), query, k, kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """See `similarity_search`."""
        return _documents(await self._ahits(query, k, kwargs))

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """`similarity_search` with scores, larger is better."""
        return _scored(self._hits(self._question(query), query, k, kwargs))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """See `similarity_search_with_score`."""
        return _scored(await self._ahits(query, k, kwargs))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The k best documents for a vector."""
        return _documents(self._hits(embedding, None, k, kwargs))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """See `similarity_search_by_vector`."""
        return await asyncio.to_thread(self.similarity_search_by_vector, embedding, k, **kwargs)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        relevance = self._select_relevance_score_fn()
        return _relevant(self._hits(self._question(query), query, k, kwargs), relevance)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        relevance = self._select_relevance_score_fn()
        return _relevant(await self._ahits(query, k, kwargs), relevance)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """k documents out of the `fetch_k` best (at least k), chosen one by one for being near the text and unlike
        those before; `lambda_mult` from 0, difference, to 1, nearness. They come in the order of being chosen."""
        return self._diverse(self._question(query), query, k, fetch_k, lambda_mult, kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """See `max_marginal_relevance_search`."""
        question = await self._aquestion(query)
        return await asyncio.to_thread(self._diverse, question, query, k, fetch_k, lambda_mult, kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """See `max_marginal_relevance_search`."""
        return self._diverse(embedding, None, k, fetch_k, lambda_mult, kwargs)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """See `max_marginal_relevance_search`."""
        return await asyncio.to_thread(self._diverse, embedding, None, k, fetch_k, lambda_mult, kwargs)

    # --- opening and closing ---------------------------------------------------------------------------------

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> NoPokeVectorStore:
        """Open a store, which `kwargs` name as for the class, and add these texts."""
        store = cls(embedding, **kwargs)
        try:
            store.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> NoPokeVectorStore:
        """See `from_texts`."""
        store = await asyncio.to_thread(cls, embedding, **kwargs)
        try:
            await store.aadd_texts(texts, metadatas, ids=ids)
        except BaseException:
            await store.aclose()
            raise
        return store

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

    async def __aenter__(self) -> NoPokeVectorStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- inside ----------------------------------------------------------------------------------------------

    def _rows(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None, ids: Sequence[str | None] | None
    ) -> _Rows:
        """The documents of one call, checked as far as that goes without their vectors."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        given: list[str | None] = [None] * len(texts) if ids is None else list(ids)
        metadatas = [{}] * len(texts) if metadatas is None else [metadata or {} for metadata in metadatas]
        if texts or given or metadatas:
            check_lengths(texts=len(texts), metadatas=len(metadatas), ids=len(given))
        named = [str(uuid.uuid4()) if id_ is None else id_ for id_ in given]
        return _Rows(stored_ids(self.database, check_ids(named)) if named else [], texts, metadatas)

    def _write(self, rows: _Rows, vectors: list[list[float]] | None, options: dict[str, Any]) -> list[str]:
        if rows.texts:
            self.database.upsert_many(rows.ids, vectors, rows.metadatas, texts=rows.texts, **options)
        return [str(id_) for id_ in rows.ids]

    def _question(self, query: str) -> Question:
        return query if self._embedding is None else self._embedding.embed_query(query)

    async def _aquestion(self, query: str) -> Question:
        return query if self._embedding is None else await self._embedding.aembed_query(query)

    def _hits(
        self,
        question: Question,
        words: str | None,
        k: int,
        options: dict[str, Any],
        include: tuple[Part, ...] = _PARTS,
    ) -> list[Hit]:
        """Ask the collection; `words` is the question as text, if it has one."""
        for name, instead in _OTHERWISE.items():
            if name in options:
                raise InvalidInputError(f"expected a search for documents without {name}, got it; use {instead}")
        options = dict(options)
        where, text = options.pop("filter", None), options.pop("text", None)
        if text is True and words is None:
            raise InvalidInputError("expected the words to search for as text, got True and a vector")
        if isinstance(text, bool):
            text = words if text else None
        hits: list[Hit] = self.database.query(question, k, text=text, where=where, include=include, **options)
        return hits

    async def _ahits(self, query: str, k: int, options: dict[str, Any]) -> list[Hit]:
        return await asyncio.to_thread(self._hits, await self._aquestion(query), query, k, options)

    def _diverse(
        self,
        question: Question,
        words: str | None,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        options: dict[str, Any],
    ) -> list[Document]:
        """Maximal marginal relevance over the candidates that were asked for."""
        if "diversity" in options:
            raise InvalidInputError("expected lambda_mult, got diversity, which is 1 - lambda_mult")
        k, fetch_k = check_int("k", k, 1, MAX_K), check_int("fetch_k", fetch_k, 1, MAX_K)
        diversity = 1.0 - check_fraction("lambda_mult", lambda_mult)
        hits = self._hits(question, words, max(k, fetch_k), options, (*_PARTS, "vector"))
        return _documents(varied_hits(self.database.space, hits, k, diversity))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Distance -> relevance from 0 to 1."""
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        if self.database.space == "ip":
            raise InvalidInputError(
                "expected relevance_score_fn under 'ip', where dot products have no bounds that would say what 1 is"
            )
        return RELEVANCE[self.database.space]


def _document(found: Hit | Record) -> Document:
    return Document(id=str(found.id), page_content=found.text or "", metadata=found.metadata or {})


def _documents(hits: Iterable[Hit]) -> list[Document]:
    return [_document(hit) for hit in hits]


def _scored(hits: Iterable[Hit]) -> list[tuple[Document, float]]:
    return [(_document(hit), hit.score) for hit in hits]


def _relevant(hits: Iterable[Hit], relevance: Callable[[float], float]) -> list[tuple[Document, float]]:
    return [(_document(hit), relevance(hit.distance)) for hit in hits if hit.distance is not None]
