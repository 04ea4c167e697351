"""An MCP server: a language model searches, reads and, where it may, writes collections (extra "mcp", docs/mcp.md).

`build` makes the server of the official SDK, with one tool per operation; `nopokedb mcp PATH` runs it over stdio. Tools
answer with the library's own results; what the library refuses is told to the model in the library's words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from nopokedb import __version__
from nopokedb.catalog import list_collections
from nopokedb.database import NoPokeDB, engine_of
from nopokedb.distribution import install_hint
from nopokedb.errors import InvalidInputError, NoPokeError
from nopokedb.postgres.address import is_postgres
from nopokedb.records import Hit, check_int
from nopokedb.remote.address import is_address

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "mcp":
        raise
    raise ImportError(f"the MCP server needs mcp: {install_hint('mcp')}", name=error.name) from error

P = ParamSpec("P")
R = TypeVar("R")

MAX_K = 100
"""Most hits of one search: what a model reads is short."""
SHOWN_CHARACTERS = 2_000
"""Of each hit's text; `fetch` gives all of it."""
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_INSTRUCTIONS = (
    "Collections of records, each with an id, a text and metadata. Use search for meaning, hybrid_search where exact "
    "words matter too, then fetch for whole texts. Filters (where) look like "
    '{"year": {"$gte": 2020}, "lang": {"$in": ["en", "de"]}}.'
)


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection, and how it can be searched."""

    name: str
    count: int
    dim: int
    space: str
    embed: str
    """The model that makes vectors of texts; empty: there is none, and only words can be searched for."""


@dataclass(frozen=True, slots=True)
class HitInfo:
    """A record that was found, best first; a larger score is better."""

    id: int | str
    score: float
    text: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordInfo:
    """A record, whole but for its vector."""

    id: int | str
    text: str | None
    metadata: dict[str, Any]


class Collections:
    """Open handles of the collections at one path, each opened when it is first asked for.

    Args:
        path: a folder of collections or of one, `http://`, `grpc://` or `postgresql://`, as `NoPokeDB` takes it.
        writable: open for writing. In folders no other process can write meanwhile.
    """

    def __init__(self, path: str | Path, *, writable: bool, api_key: str | None = None) -> None:
        self._path = path
        self._options: dict[str, Any] = {"read_only": not writable, "api_key": api_key}
        self._handles: dict[str, NoPokeDB] = {}
        self._lock = threading.Lock()
        remote = is_address(path) or is_postgres(path)
        self._single = None if remote or list_collections(path) else Path(path).name or str(path)
        """The name of the folder, where it is a collection itself."""

    def names(self) -> list[str]:
        """All collections, sorted."""
        if self._single is not None:
            return [self._single]
        return list_collections(self._path, api_key=self._options["api_key"])

    def get(self, name: str | None) -> NoPokeDB:
        """The collection of this name, as it is now; the only one for None.

        Raises `InvalidInputError` where there are several and none is named, `CollectionNotFoundError`."""
        if name is None:
            names = self.names()
            if len(names) != 1:
                raise InvalidInputError(f"expected collection to be one of {names}, got none")
            name = names[0]
        with self._lock:
            db = self._handles.get(name)
            if db is None:
                collection = None if name == self._single else name
                db = self._handles[name] = NoPokeDB(path=self._path, collection=collection, **self._options)
        if self._options["read_only"]:
            db.refresh()
        return db

    def close(self) -> None:
        """Close every handle."""
        with self._lock:
            while self._handles:
                self._handles.popitem()[1].close()


def build(collections: Collections, *, writable: bool = False) -> MCPServer[Any]:
    """The server with its tools; `add` is among them where it may write."""
    server: MCPServer[Any] = MCPServer("nopokedb", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")

    def tool(annotations: ToolAnnotations) -> Callable[[Callable[P, R]], Callable[P, R]]:
        def register(work: Callable[P, R]) -> Callable[P, R]:
            return server.tool(annotations=annotations)(_refusals()(work))

        return register

    @tool(_READS)
    def list_collections() -> list[CollectionInfo]:
        """List the collections: their names, how many records they hold, and whether they can be searched by meaning
        (embed names a model)."""
        return [_about(name, collections.get(name)) for name in collections.names()]

    @tool(_READS)
    def search(
        question: str, collection: str | None = None, k: int = 5, where: dict[str, Any] | None = None
    ) -> list[HitInfo]:
        """Find the k records whose meaning is nearest to a question. Needs a collection with a model; hybrid_search
        works on every one. where: a filter on metadata. collection may be left out where there is only one."""
        db = collections.get(collection)
        if not _has_model(db):
            raise InvalidInputError("this collection has no model to search by meaning; use hybrid_search")
        return _found(db.query(question, k=check_int("k", k, 1, MAX_K), where=where, include=("metadata", "text")))

    @tool(_READS)
    def hybrid_search(
        question: str,
        words: str | None = None,
        collection: str | None = None,
        k: int = 5,
        where: dict[str, Any] | None = None,
    ) -> list[HitInfo]:
        """Find the k best records by meaning and by words together. words: what to match, by default those of the
        question; "a phrase", +must, -mustnot and prefix* are understood. Without a model only the words count. where: a
        filter on metadata."""
        db = collections.get(collection)
        asked: dict[str, Any] = {
            "text": question if words is None else words,
            "where": where,
            "k": check_int("k", k, 1, MAX_K),
        }
        vector = question if _has_model(db) else None
        return _found(db.query(vector, **asked, include=("metadata", "text")))

    @tool(_READS)
    def fetch(ids: list[int | str], collection: str | None = None) -> list[RecordInfo]:
        """Get records by id, with their whole texts. An int and a str are different ids. Ids without a record are left
        out."""
        found = collections.get(collection).get_many(ids, include=("metadata", "text"))
        return [
            RecordInfo(id=record.id, text=record.text, metadata=record.metadata or {})
            for record in found
            if record is not None
        ]

    @tool(_READS)
    def count(collection: str | None = None, where: dict[str, Any] | None = None) -> int:
        """Count the records, or those that pass a filter on metadata."""
        return collections.get(collection).count(where)

    if writable:

        @tool(_WRITES)
        def add(
            text: str,
            metadata: dict[str, Any] | None = None,
            id: int | str | None = None,
            collection: str | None = None,
            vector: list[float] | None = None,
        ) -> int | str:
            """Add one record, durable when this returns; its id is the answer. An id that exists is refused. vector:
            only for a collection without a model."""
            db = collections.get(collection)
            if vector is None and not _has_model(db):
                raise InvalidInputError(f"expected vector, {db.dim} numbers: this collection has no model; got none")
            return db.add(vector, metadata, id=id, text=text)

    return server


def serve(path: str | Path, *, writable: bool = False, api_key: str | None = None) -> None:
    """Serve over stdio until the client closes its end."""
    collections = Collections(path, writable=writable, api_key=api_key)
    collections.names()  # a wrong address is an error now, not at the first question
    try:
        build(collections, writable=writable).run("stdio")
    finally:
        collections.close()


@contextmanager
def _refusals() -> Iterator[None]:
    """The library's errors become those that the model gets to read."""
    try:
        yield
    except (NoPokeError, OSError) as error:
        raise ToolError(f"{type(error).__name__}: {error}") from error


def _has_model(db: NoPokeDB) -> bool:
    return bool(engine_of(db).embed_name)


def _about(name: str, db: NoPokeDB) -> CollectionInfo:
    return CollectionInfo(
        name=name, count=len(db), dim=db.dim, space=engine_of(db).space, embed=engine_of(db).embed_name
    )


def _found(hits: Sequence[Hit]) -> list[HitInfo]:
    return [
        HitInfo(
            id=hit["id"],
            score=hit["score"],
            text=None if hit["text"] is None else hit["text"][:SHOWN_CHARACTERS],
            metadata=hit["metadata"],
        )
        for hit in hits
    ]
