"""`NoPokeDocumentStore` and its retrievers: a collection in pipelines of Haystack (extra "haystack", docs/haystack.md).

What a document is as a record, and a filter as one of NoPokeDB's, is in haystack_records.py.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson

from nopokedb.adapters.collection import Handle, checked_ids, shared_handle, stored_ids
from nopokedb.database import NoPokeDB
from nopokedb.distribution import install_hint
from nopokedb.errors import DuplicateIdError, InvalidInputError
from nopokedb.filters import And
from nopokedb.postgres.address import is_postgres
from nopokedb.records import MAX_K, Hit, Part, check_int
from nopokedb.remote.address import is_address
from nopokedb.where import F

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
    from haystack.utils import Secret

    from nopokedb.adapters.haystack_records import (
        EMBEDDED,
        add_new,
        as_document,
        as_rows,
        as_where,
        check_meta,
        different,
        dimension_of,
        meta_of,
        some_where,
        type_of,
        values_at,
    )
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "haystack":
        raise
    raise ImportError(
        f"nopokedb.adapters.haystack needs haystack-ai: {install_hint('haystack')}", name=error.name
    ) from error

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_PARTS: tuple[Part, ...] = ("metadata", "text")
_OPTIONS = frozenset({"ef", "target_recall", "max_distance", "diversity", "fusion", "alpha"})


def _awaitable(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """The method in a thread, so that no event loop waits for a disk."""

    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self, *args, **kwargs)

    functools.update_wrapper(twin, method)
    twin.__doc__ = f"See `{method.__name__}`."
    return twin


class NoPokeDocumentStore:
    """A document store of Haystack on a NoPokeDB collection: in a folder, on a server, or in PostgreSQL.

    Documents are durable when `write_documents` returns, and each read sees all that were. One call is one atomic
    batch (up to 256 MB). Each method has a twin with `_async` at the end, which runs in a thread.

    The collection is opened at its first use, so pipelines can be loaded and saved without it. Stores with the same
    arguments share it within a process, since a folder has one writer: the components of a loaded pipeline, which have
    a store each, and those of several pipelines. It closes when the last of them is closed, as `Pipeline.close` does,
    and opens again at the next use.

    Embeddings are kept as float32. A document without one is found by its words alone. The `score` of a document is
    not kept: it belongs to a search.

    Args:
        path, collection: where the collection is, as in `NoPokeDB`; a `Secret` where the address has a password. A
            missing collection is created by the first documents, and has none until then.
        dim: components of an embedding; needed to create a collection with documents that have none.
        api_key: the key of a NoPokeDB server.
        database: an open collection to use in place of `path`; `close` leaves it open. It cannot be saved.
        options: the other arguments of `NoPokeDB`, such as `space`, `indexed_fields`, `text_language`.

    Raises: what `NoPokeDB` raises, at the first use. `FilterError` for filters that docs/haystack.md does not describe.
    """

    def __init__(
        self,
        path: str | Path | Secret | None = None,
        *,
        collection: str | None = None,
        dim: int | None = None,
        api_key: Secret | None = None,
        database: NoPokeDB | None = None,
        **options: Any,
    ) -> None:
        if api_key is not None and not isinstance(api_key, Secret):
            raise InvalidInputError("expected api_key as a Secret, which is saved by its name, got another type")
        self._saved = {"path": path, "collection": collection, "dim": dim, "api_key": api_key, **options}
        self._given = database is not None
        secrets = {"path": path, "api_key": api_key}
        late = {name: secret.resolve_value for name, secret in secrets.items() if isinstance(secret, Secret)}
        place = None if path is None and self._given else _place(path)

        def make() -> Handle:
            return Handle(database, place, {"collection": collection, "dim": dim, **options}, late)

        key = None if self._given else _key(self._saved | {"path": place or path})
        self._make = make if key is None else lambda: shared_handle(key, make)
        self._made: Handle | None = None
        self._making = threading.Lock()
        make()  # refuses arguments that do not go together

    @property
    def _handle(self) -> Handle:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    @property
    def database(self) -> NoPokeDB:
        """The collection itself, for all that Haystack has no word for. Raises `CollectionNotFoundError` where the
        first documents are still to create it."""
        return self._handle.open()

    def to_dict(self) -> dict[str, Any]:
        """How to open this store again, for saved pipelines. Secrets are named, never written."""
        if self._given:
            raise InvalidInputError("expected a store with a path, to save it; got one on an open database")
        return default_to_dict(self, **{name: _plain(value) for name, value in self._saved.items()})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NoPokeDocumentStore:
        """The store that `to_dict` described."""
        saved = dict(data.get("init_parameters", {}))
        for name in ("path", "api_key"):
            if isinstance(saved.get(name), dict):
                saved[name] = Secret.from_dict(saved[name])
        store: NoPokeDocumentStore = default_from_dict(cls, {**data, "init_parameters": saved})
        return store

    # --- writing ---------------------------------------------------------------------------------------------

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents, durable when this returns. Returns how many were written.

        Where the id exists: OVERWRITE replaces the document whole, SKIP leaves it, FAIL and NONE raise
        `DuplicateDocumentError` and write nothing. The same holds for an id twice in one call. ValueError for what is
        no list of documents, and for meta that are no JSON.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise ValueError(f"expected a list of documents, got {documents!r:.200}")
        if not isinstance(policy, DuplicatePolicy):
            raise ValueError(f"expected policy to be a DuplicatePolicy, got {policy!r:.80}")
        if not documents:
            return 0
        db = self._handle.open(lambda: dimension_of(documents))
        if policy is DuplicatePolicy.OVERWRITE:
            db.upsert_many(**as_rows(db, {document.id: document for document in documents}.values()))
            return len(documents)
        if policy is DuplicatePolicy.SKIP:
            return add_new(db, list({document.id: document for document in reversed(documents)}.values())[::-1])
        try:
            db.add_many(**as_rows(db, documents))
        except DuplicateIdError as error:
            raise DuplicateDocumentError(str(error)) from error
        return len(documents)

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Change the meta of all documents that pass, in one atomic batch: a merge patch (RFC 7396), where None removes
        a key and dicts merge. Returns how many changed."""
        check_meta(meta)
        db = self._handle.existing()
        return 0 if db is None else db.update_many(where=some_where(db, filters), metadata=meta)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete the documents with these ids, in one atomic batch; absent ids are skipped."""
        ids = dict.fromkeys(checked_ids(document_ids))
        if (db := self._handle.existing()) is not None:
            db.delete_many(stored_ids(db, ids))

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete all documents that pass, in one atomic batch. Returns how many there were. An empty filter is refused:
        `delete_all_documents` says that all are meant."""
        db = self._handle.existing()
        return 0 if db is None else db.delete_many(where=some_where(db, filters))

    def delete_all_documents(self) -> None:
        """Delete all documents, in one atomic batch. The collection and its settings stay."""
        if (db := self._handle.existing()) is not None:
            db.delete_many(where=F("$id").exists())

    # --- reading ---------------------------------------------------------------------------------------------

    def count_documents(self) -> int:
        """How many documents there are."""
        db = self._handle.existing()
        return 0 if db is None else db.count()

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many documents pass."""
        db = self._handle.existing()
        return 0 if db is None else db.count(as_where(db, filters))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """The documents that pass, or all, in the order of their ids, with their embeddings."""
        db = self._handle.existing()
        if db is None:
            return []
        return [as_document(record) for record in db.scan(as_where(db, filters), include=(*_PARTS, "vector"))]

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The keys of meta with the type of their values: "boolean", "int", "float" or "keyword". This, and the methods
        below, read the meta of all documents that pass."""
        found: dict[str, str] = {}
        for meta in self._metas(None):
            found |= {key: type_of(value) for key, value in meta.items() if value is not None}
        return {key: {"type": found[key]} for key in found}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least and the greatest value of a field: of numbers, or of strs; None where there are none, or both."""
        values = [value for value in self._values(metadata_field, None) if type(value) in (int, float, str)]
        if len({isinstance(value, str) for value in values}) != 1:
            return {"min": None, "max": None}
        return {"min": min(values), "max": max(values)}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """Different values of a field, `size` of them from position `from_` on in the order of their text, and how many
        there are; only those whose text contains `search_term`, in any case. 1, 1.0, "1" and True differ."""
        values = list(different(self._values(metadata_field, filters)).values())
        if search_term:
            values = [value for value in values if search_term.lower() in str(value).lower()]
        values.sort(key=lambda value: (str(value), type(value).__name__))
        return values[from_ : from_ + size], len(values)

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        """How many different values each field has among the documents that pass."""
        found: dict[str, dict[bytes, Any]] = {name.removeprefix("meta."): {} for name in metadata_fields}
        for meta in self._metas(filters):
            for name, values in found.items():
                values |= different(values_at(meta, name))
        return {name: len(values) for name, values in found.items()}

    def _metas(self, filters: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        db = self._handle.existing()
        for record in () if db is None else db.scan(as_where(db, filters)):
            yield meta_of(record)

    def _values(self, field: str, filters: dict[str, Any] | None) -> Iterator[Any]:
        for meta in self._metas(filters):
            yield from values_at(meta, field.removeprefix("meta."))

    def _found(
        self,
        filters: dict[str, Any] | None,
        top_k: int,
        *,
        vector: list[float] | None = None,
        text: str | None = None,
        return_embedding: bool,
        options: dict[str, Any],
    ) -> list[Document]:
        """What a retriever asks for, best first."""
        db = self._handle.existing()
        if db is None:
            return []
        where = as_where(db, filters)
        if vector is not None:
            where = EMBEDDED if where is None else And((where, EMBEDDED))
        include: tuple[Part, ...] = (*_PARTS, "vector") if return_embedding else _PARTS
        hits: list[Hit] = db.query(vector, top_k, text=text, where=where, include=include, **options)
        return [as_document(hit) for hit in hits]

    # --- awaitable, and closing ------------------------------------------------------------------------------

    write_documents_async = _awaitable(write_documents)
    update_by_filter_async = _awaitable(update_by_filter)
    delete_documents_async = _awaitable(delete_documents)
    delete_by_filter_async = _awaitable(delete_by_filter)
    delete_all_documents_async = _awaitable(delete_all_documents)
    count_documents_async = _awaitable(count_documents)
    count_documents_by_filter_async = _awaitable(count_documents_by_filter)
    filter_documents_async = _awaitable(filter_documents)
    get_metadata_fields_info_async = _awaitable(get_metadata_fields_info)
    get_metadata_field_min_max_async = _awaitable(get_metadata_field_min_max)
    get_metadata_field_unique_values_async = _awaitable(get_metadata_field_unique_values)
    count_unique_metadata_by_filter_async = _awaitable(count_unique_metadata_by_filter)

    def close(self) -> None:
        """Close the collection, unless it came as `database` or another store has it open. It opens again at the next
        use."""
        with self._making:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    close_async = _awaitable(close)

    def __enter__(self) -> NoPokeDocumentStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- retrievers ------------------------------------------------------------------------------------------------


class _Retriever:
    """What the retrievers have in common."""

    def __init__(
        self,
        document_store: NoPokeDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        return_embedding: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(document_store, NoPokeDocumentStore):
            raise InvalidInputError(f"expected a NoPokeDocumentStore, got {document_store!r:.80}")
        if unknown := set(options or {}) - _OPTIONS:
            raise InvalidInputError(f"expected options of {', '.join(sorted(_OPTIONS))}, got {', '.join(unknown)}")
        self.document_store = document_store
        self.filters = filters
        self.top_k = check_int("top_k", top_k, 1, MAX_K)
        self.filter_policy = filter_policy
        self.return_embedding = return_embedding
        self.options = options or {}

    def to_dict(self) -> dict[str, Any]:
        """This component in a saved pipeline."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            return_embedding=self.return_embedding,
            options=self.options,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component that `to_dict` described."""
        saved = dict(data.get("init_parameters", {}))
        if isinstance(saved.get("document_store"), dict):
            saved["document_store"] = NoPokeDocumentStore.from_dict(saved["document_store"])
        if isinstance(saved.get("filter_policy"), str):
            saved["filter_policy"] = FilterPolicy.from_str(saved["filter_policy"])
        return default_from_dict(cls, {**data, "init_parameters": saved})

    def close(self) -> None:
        """Close the store, which opens again at the next use."""
        self.document_store.close()

    async def close_async(self) -> None:
        """See `close`."""
        await self.document_store.close_async()

    def _documents(
        self,
        filters: dict[str, Any] | None,
        top_k: int | None,
        vector: list[float] | None = None,
        text: str | None = None,
    ) -> dict[str, list[Document]]:
        found = self.document_store._found(
            apply_filter_policy(self.filter_policy, self.filters, filters),
            self.top_k if top_k is None else top_k,
            vector=vector,
            text=text,
            return_embedding=self.return_embedding,
            options=self.options,
        )
        return {"documents": found}


@component
class NoPokeEmbeddingRetriever(_Retriever):
    """Documents whose embeddings are nearest. `score` is the cosine, the dot product, or minus the squared distance.

    Args:
        document_store: where to search.
        filters: for every run; `filter_policy` says what becomes of those that a run brings: REPLACE or MERGE.
        top_k: how many documents, 1 to 100,000.
        return_embedding: whether documents come with their embeddings.
        options: arguments of `NoPokeDB.query` (docs/search.md): `ef`, `target_recall`, `max_distance`, `diversity`; for
            a hybrid search `fusion` and `alpha` too.

    Raises: `InvalidInputError` for other arguments, also when it runs; `FilterError` for filters.
    """

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The best documents, best first; fewer than `top_k` only if fewer pass the filters."""
        return self._documents(filters, top_k, query_embedding)

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """See `run`."""
        return await asyncio.to_thread(self._documents, filters, top_k, query_embedding)


@component
class NoPokeTextRetriever(_Retriever):
    """Documents that match the words of a query, by BM25 (extra "text"), whether they have an embedding or not. Takes
    what `NoPokeEmbeddingRetriever` takes."""

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The best documents, best first; only those with a word of the query."""
        return self._documents(filters, top_k, text=query)

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """See `run`."""
        return await asyncio.to_thread(self._documents, filters, top_k, text=query)


@component
class NoPokeHybridRetriever(_Retriever):
    """Documents by embedding and by words (extra "text"), fused by ranks, or by scores with
    `options={"fusion": "weighted", "alpha": 0.5}`, where alpha is the weight of the embedding. Only those that have an
    embedding. Takes what `NoPokeEmbeddingRetriever` takes."""

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The best documents, best first; fewer than `top_k` only if fewer pass the filters."""
        return self._documents(filters, top_k, query_embedding, query)

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """See `run`."""
        return await asyncio.to_thread(self._documents, filters, top_k, query_embedding, query)


def _place(path: str | Path | Secret | None) -> str | None:
    """Where the collection is, whatever folder the program is in when it opens; None where that is a secret."""
    if isinstance(path, Secret):
        return None
    path = "./data" if path is None else path
    return str(path) if is_address(path) or is_postgres(path) else str(Path(path).resolve())


def _key(arguments: dict[str, Any]) -> bytes | None:
    """The same for stores that may share a collection; None where arguments cannot be compared, as functions cannot, or
    keys that are written in the program."""
    try:
        plain = {name: _plain(value) for name, value in arguments.items()}
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """An argument as it is saved."""
    if isinstance(value, Secret):
        return value.to_dict()
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
