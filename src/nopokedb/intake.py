"""From the arguments of a write to checked `Write`s, for single records, batches and bulk input alike.

Bulk columns of known length are checked whole and become one atomic batch; iterators and larger input become
chunks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from nopokedb.distribution import install_hint
from nopokedb.engine import Engine, Write
from nopokedb.errors import (
    InvalidFilterError,
    InvalidIdError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidVectorError,
    NoPokeError,
)
from nopokedb.filters import And, Filter
from nopokedb.metadata_json import encode_metadata
from nopokedb.records import (
    MAX_BATCH_BYTES,
    Id,
    Vectors,
    check_id,
    check_ids,
    check_int,
    check_lengths,
    check_text,
    check_vector,
    check_vectors,
)
from nopokedb.where import Where, parse_filter

BulkKind: TypeAlias = Literal["add", "upsert"]
_SHOWN_TEXTS = 1_024
"""With a progress bar the model is handed so many texts at a time."""
_EMBED_HINT = "; a collection that is opened with embed= computes vectors from texts"


@dataclass(frozen=True, slots=True)
class Columns:
    """What a caller handed in: arrays, sequences or iterators of equal length; None where nothing was given."""

    vectors: Any
    ids: Iterable[Id] | None
    metadatas: Iterable[Mapping[str, Any] | None] | None
    texts: Iterable[str | None] | None

    def given(self) -> dict[str, Any]:
        """The columns that are there, by name."""
        named = (("vectors", self.vectors), ("ids", self.ids), ("metadatas", self.metadatas), ("texts", self.texts))
        return {name: column for name, column in named if column is not None}

    def check(self) -> None:
        """Every column is something to iterate over, and not a single str."""
        for name, column in self.given().items():
            if isinstance(column, str | bytes) or not hasattr(column, "__iter__") or getattr(column, "ndim", 1) == 0:
                kinds = {"vectors": InvalidVectorError, "ids": InvalidIdError}
                raise kinds.get(name, InvalidMetadataError)(
                    f"expected {name} to be a sequence, got {type(column).__name__} {column!r:.80}; wrap a single one "
                    "in a list"
                )

    def length(self) -> int | None:
        """The common length if all columns know theirs, else None. Raises where they disagree or are empty."""
        given = self.given()
        if not all(hasattr(column, "__len__") for column in given.values()):
            return None
        return check_lengths(**{name: len(column) for name, column in given.items()})


class Intake:
    """Checks what is written to one collection, and computes vectors from texts where it has a model."""

    def __init__(self, engine: Engine, embed: Callable[[Sequence[str]], Vectors] | None) -> None:
        self.engine = engine
        """What is written to: a vector means nothing where there is another model."""
        self._dim = engine.dim
        self._space = engine.space
        self._embed = embed

    def add(self, vector: Any, metadata: Mapping[str, Any] | None, id_: Id | None, text: str | None) -> Write:
        """One record to add. The vector is the caller's own array where it can be."""
        ids = None if id_ is None else [check_id(id_)]
        encoded, text = encode_metadata(metadata), check_text(text)
        if vector is None:
            return Write("add", ids, 1, self._computed([text]), [encoded], [text], computed=[True])
        return Write("add", ids, 1, check_vector(vector, self._dim, self._space)[None, :], [encoded], [text])

    def upsert(self, id_: Id, vector: Any, metadata: Mapping[str, Any] | None, text: str | None, merge: bool) -> Write:
        """One record to add or to change in part."""
        key = check_id(id_)
        if vector is None and metadata is None and text is None:
            raise InvalidInputError(f"expected a vector, metadata or text for {key!r}, got none of them")
        if merge and metadata is None:
            raise InvalidInputError("expected metadata to merge, got none")
        row = None if vector is None else check_vector(vector, self._dim, self._space)[None, :]
        encoded = None if metadata is None else [encode_metadata(metadata)]
        write = Write("upsert", [key], 1, row, encoded, None if text is None else [check_text(text)], merge)
        return self._with_computed(write)

    def bulk(
        self, kind: BulkKind, columns: Columns, merge: bool, batch_size: int, progress: bool = False
    ) -> Iterator[Write]:
        """Checked atomic batches: one, checked whole before it is yielded, for columns of known length and up to
        `MAX_BATCH_BYTES`; else chunks of `batch_size`, each checked when its turn comes. `progress` shows a bar while
        a model works on many texts."""
        batch_size = check_int("batch_size", batch_size, 1, 10_000_000)
        columns.check()
        given = columns.given()
        if kind == "upsert" and columns.ids is None:
            raise InvalidIdError("expected ids to upsert, got None")
        if kind == "upsert" and len(given) == 1:
            raise InvalidInputError("expected vectors, metadatas or texts, got none of them")
        if merge and columns.metadatas is None:
            raise InvalidInputError("expected metadatas to merge, got none")
        if kind == "add" and columns.vectors is None and (self._embed is None or columns.texts is None):
            raise InvalidVectorError(f"expected vectors to add, got None{_EMBED_HINT}")
        total = columns.length()
        sliced = all(hasattr(column, "__getitem__") for column in given.values())
        large = (
            total is not None
            and "vectors" in given
            and _size_bytes(given["vectors"], total, self._dim) > MAX_BATCH_BYTES
        )
        if total is None or (large and not sliced):
            yield from self._chunks(kind, given, merge, batch_size)
        elif large:
            for at in range(0, total, batch_size):
                chunk = {name: column[at : at + batch_size] for name, column in given.items()}
                yield self._checked(kind, chunk, merge)
        else:
            write = self._checked(kind, given, merge, progress)
            if _batch_bytes(write) <= MAX_BATCH_BYTES:
                yield write
            else:
                yield from _split(write, batch_size)

    def _chunks(self, kind: BulkKind, given: dict[str, Any], merge: bool, batch_size: int) -> Iterator[Write]:
        """Checked chunks from iterators, which must end together."""
        iterators = {name: iter(column) for name, column in given.items()}
        for first in itertools.count():
            chunk = {name: list(itertools.islice(iterator, batch_size)) for name, iterator in iterators.items()}
            if first and not any(chunk.values()):
                return
            yield self._checked(kind, chunk, merge)

    def _checked(self, kind: BulkKind, given: dict[str, Any], merge: bool, progress: bool = False) -> Write:
        """One batch, every part of it checked."""
        check_lengths(**{name: len(column) for name, column in given.items()})
        vectors = check_vectors(given["vectors"], self._dim, self._space) if "vectors" in given else None
        ids = check_ids(given["ids"]) if "ids" in given else None
        metadatas: list[bytes | None] | None = None
        if "metadatas" in given:
            keeps = kind == "upsert"
            metadatas = [None if keeps and item is None else encode_metadata(item) for item in given["metadatas"]]
        texts = [check_text(text) for text in given["texts"]] if "texts" in given else None
        count = check_lengths(
            vectors=_length(vectors), ids=_length(ids), metadatas=_length(metadatas), texts=_length(texts)
        )
        if kind == "add":
            metadatas = metadatas or [b"{}"] * count
            texts = texts or [None] * count
        return self._with_computed(Write(kind, ids, count, vectors, metadatas, texts, merge), progress)

    def _with_computed(self, write: Write, progress: bool = False) -> Write:
        """The write with vectors computed from its texts, if it has none of its own."""
        if write.vectors is not None or write.texts is None or self._embed is None:
            return write
        there = [text is not None for text in write.texts]
        if write.kind == "add":
            return replace(write, vectors=self._computed(write.texts, progress), computed=there)
        vectors = np.zeros((write.count, self._dim), np.float32)
        if any(there):
            vectors[np.array(there)] = self._computed([text for text in write.texts if text is not None], progress)
        return replace(write, vectors=vectors, computed=there)

    def _computed(self, texts: Sequence[str | None], progress: bool = False) -> Vectors:
        """What the model makes of these texts."""
        if self._embed is None:
            raise InvalidVectorError(f"expected a vector, got None{_EMBED_HINT}")
        for at, text in enumerate(texts):
            if text is None:
                raise InvalidVectorError(
                    f"expected a vector or a text to compute it from, got neither at position {at}"
                )
        known = [text for text in texts if text is not None]
        step = _SHOWN_TEXTS if progress else len(known)
        with progress_bar(len(known), wanted=progress and len(known) > step, unit=" texts") as bar:
            parts = []
            for at in range(0, len(known), max(1, step)):
                parts.append(self._embed(known[at : at + step]))
                if bar is not None:
                    bar.update(len(parts[-1]))
        return check_vectors(parts[0] if len(parts) == 1 else np.concatenate(parts), self._dim, self._space)


def which_records(ids: Iterable[Id] | None, where: Where) -> tuple[Filter | None, list[Id] | None]:
    """The records that a write is about: by filter, or by ids."""
    if (ids is None) == (where is None):
        raise InvalidInputError(f"expected exactly one of ids and where, got {'neither' if ids is None else 'both'}")
    if ids is not None:
        return None, check_ids(ids)
    node = parse_filter(where)
    if isinstance(node, And) and not node.parts:
        raise InvalidFilterError(
            "expected a filter with at least one condition, got an empty one, which every record passes; "
            'where={"$id": {"$exists": True}} means all'
        )
    return node, None


def write_all(engine: Engine, writes: Iterable[Write], total: int | None, progress: bool) -> list[Id]:
    """Write one atomic batch after the other; the ids of all. An error carries those of the batches before it."""
    committed: list[Id] = []
    with progress_bar(total, wanted=progress) as bar:
        try:
            for write in writes:
                ids = engine.write([write])[0]
                assert isinstance(ids, list)
                committed += ids
                if bar is not None:
                    bar.update(write.count)
        except NoPokeError as error:
            error.committed = committed
            raise
    return committed


@contextmanager
def progress_bar(total: int | None, *, wanted: bool, unit: str = " records") -> Iterator[Any]:
    """A progress bar of tqdm over so many records, None where none is wanted."""
    if not wanted:
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"progress=True needs tqdm: {install_hint('progress')}") from error
    with tqdm(total=total, unit=unit) as bar:
        yield bar


def _length(column: Any) -> int | None:
    return None if column is None else len(column)


def _size_bytes(vectors: Any, count: int, dim: int) -> int:
    return vectors.size * 4 if isinstance(vectors, np.ndarray) else count * dim * 4


def _batch_bytes(write: Write) -> int:
    vectors = 0 if write.vectors is None else write.vectors.nbytes
    metadatas = sum(len(item) for item in write.metadatas or () if item is not None)
    return vectors + metadatas + sum(len(text.encode()) for text in write.texts or () if text is not None)


def _split(write: Write, batch_size: int) -> Iterator[Write]:
    """A checked write in chunks."""

    def part(column: Sequence[Any] | None, at: int) -> Any:
        return None if column is None else column[at : at + batch_size]

    for at in range(0, write.count, batch_size):
        yield replace(
            write,
            ids=part(write.ids, at),
            count=min(batch_size, write.count - at),
            vectors=None if write.vectors is None else write.vectors[at : at + batch_size],
            metadatas=part(write.metadatas, at),
            texts=part(write.texts, at),
            computed=part(write.computed, at),
        )
