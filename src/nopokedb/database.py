"""`NoPokeDB`: the one class a user meets. It checks every argument, then calls an engine."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nopokedb.batch import Batch
from nopokedb.engine import Engine, Stats, Write
from nopokedb.errors import (
    ClosedError,
    InvalidInputError,
    NoPokeError,
    RecordNotFoundError,
)
from nopokedb.intake import BulkKind, Columns, add_write, bulk_writes, progress_bar, upsert_write
from nopokedb.keeping import Keeping
from nopokedb.records import (
    MAX_DIM,
    MAX_K,
    Durability,
    Hit,
    Id,
    IndexKind,
    Part,
    Record,
    Space,
    Vectors,
    check_choice,
    check_id,
    check_ids,
    check_include,
    check_int,
    check_sequence_of_ids,
    check_vector,
    check_vectors,
    encode_metadata,
    shown,
)

if TYPE_CHECKING:
    from nopokedb.embedded.storage.manifest import Settings

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_M, _MAX_EF_CONSTRUCTION, _MAX_EF = 256, 10_000, 10_000_000
MISSING: Final = object()


class NoPokeDB(Keeping):
    """A collection of records (id, vector, metadata, text) in one folder, searched by vector.

    Every write is durable when it returns, every read sees all writes that returned before it. One process
    writes; any number of threads may use one handle; other processes open the folder with `read_only=True`.
    Close the handle (or use `with`): nothing is lost without it, but the next open has more to do.

    Args:
        dim: components of a vector, 1 to 16,384. With it a missing collection is created; without it, it must
            exist.
        max_elements: how many records are expected. A hint; the collection grows without limit.
        path: the folder. Created with its parents if `dim` is given.
        space: "cosine" (distance 1 - cos), "l2" (squared Euclidean) or "ip" (1 - dot product). Left at its
            default without `dim`, the stored one holds.
        M, ef_construction: shape of HNSW graphs (links per node; candidates while building). Other values than the
            defaults select HNSW under index="auto".
        ef: length of the candidate list before exact reranking, honoured exactly, at least k. None: as long as
            measured to reach a recall of 0.99.
        collection: name of a folder below `path`.
        index: "auto" (a scan of short codes, a graph when the collection is large), "exact", "scan", "graph" or
            "hnsw".
        durability: "full" syncs each batch to the medium before it returns; "os" hands it to the operating
            system, which survives a killed process but not a power cut.
        read_only: look, do not write; `refresh()` moves forward to what the writer has published.
        max_memory: bytes that indexes may hold in memory beside the mapped vectors. What does not fit is searched
            exactly.

    Raises:
        InvalidInputError, SettingsMismatchError: arguments that are wrong, or disagree with what is stored.
        CollectionNotFoundError: no collection, and no `dim` to create one.
        NotADatabaseError, LegacyFolderError, NewerFormatError: the folder holds something else.
        DatabaseLockedError: another handle has it open for writing.
        NeedsRecoveryError: read-only, and the last writer did not close.
        CorruptionError: stored bytes are damaged.
    """

    def __init__(
        self,
        dim: int | None = None,
        max_elements: int | None = None,
        path: str | Path = "./data",
        space: Space = "cosine",
        M: int = 16,
        ef_construction: int = 200,
        ef: int | None = None,
        *,
        collection: str | None = None,
        index: IndexKind = "auto",
        durability: Durability = "full",
        read_only: bool = False,
        max_memory: int | None = None,
    ) -> None:
        if dim is not None:
            dim = check_int("dim", dim, 1, MAX_DIM)
        if max_elements is not None:
            check_int("max_elements", max_elements, 0, 2**62)
        if max_memory is not None:
            check_int("max_memory", max_memory, 0, 2**62)
        check_choice("space", space, Space)
        check_choice("index", index, IndexKind)
        check_choice("durability", durability, Durability)
        check_int("M", M, 2, _MAX_M)
        check_int("ef_construction", ef_construction, 1, _MAX_EF_CONSTRUCTION)
        self.ef = None if ef is None else check_int("ef", ef, 1, _MAX_EF)
        self.max_elements = max_elements
        self.M, self.ef_construction = M, ef_construction
        self.path = str(resolve_folder(path, collection))
        self._engine = self._open(dim, space, M, ef_construction, index, durability, bool(read_only), max_memory)
        self.dim: int = self._engine.dim
        self.space: str = self._engine.space

    def _open(
        self,
        dim: int | None,
        space: str,
        M: int,
        ef_construction: int,
        index: str,
        durability: str,
        read_only: bool,
        max_memory: int | None,
    ) -> Engine:
        # Imported here: `import nopokedb` stays quick, native libraries load with the first open.
        from nopokedb.embedded.engine import EmbeddedEngine
        from nopokedb.embedded.recovery import require_collection
        from nopokedb.embedded.storage.manifest import Settings

        folder = Path(self.path)
        settings: Settings | None = None
        if dim is not None:
            settings = Settings(dim, space, M, ef_construction, index)
        else:
            stored = require_collection(folder).settings
            settings = Settings(stored.dim, stored.space if space == "cosine" else space, M, ef_construction, index)
        return EmbeddedEngine(
            folder, settings=settings, durability=durability, read_only=read_only, max_memory=max_memory
        )

    # --- writing ---------------------------------------------------------------------------------------------

    def add(
        self,
        vector: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        id: Id | None = None,
        text: str | None = None,
    ) -> Id:
        """Add one record, durable when this returns.

        Args:
            vector: shape (dim,), anything that NumPy turns into finite float32.
            metadata: a JSON object; None is stored as `{}`.
            id: an int of 64 bits or a str; None takes the next automatic int, which is never used twice.
            text: kept and returned with the record.

        Returns: the id. Raises `DuplicateIdError` if the id exists, `InvalidInputError` for bad input.
        """
        return self._write_one(add_write(vector, metadata, id, text, self.dim, self.space))[0]

    def add_many(
        self,
        vectors: Any,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[Id] | None = None,
        texts: Iterable[str | None] | None = None,
        batch_size: int = 1000,
        progress: bool = False,
    ) -> list[Id]:
        """Add records, durable when this returns.

        An array or list of up to 256 MB is one atomic batch, checked whole before anything is written. Iterators,
        and larger input, are written in atomic chunks of `batch_size`; an error then carries the ids of the chunks
        before it as `.committed`.

        Args:
            vectors: shape (n, dim), or an iterable of n vectors.
            metadatas, ids, texts: one per vector, as in `add`.
            progress: show a progress bar (extra "progress").

        Returns: the ids, in order.
        """
        return self._write_many("add", Columns(vectors, ids, metadatas, texts), False, batch_size, progress)

    def upsert(
        self,
        id: Any = MISSING,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
        merge: bool = False,
        vid: Any = MISSING,
    ) -> None:
        """Add the record or replace the given parts of it; parts that are None stay as they are.

        A new id needs a vector. With `merge` the metadata are a merge patch (RFC 7396: None removes a key). `vid` is
        another name of `id`.
        """
        key = _one_id(id, vid)
        self._write_one(upsert_write(key, vector, metadata, text, merge, self.dim, self.space))

    def upsert_many(
        self,
        ids: Iterable[Id],
        vectors: Any = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        texts: Iterable[str | None] | None = None,
        merge: bool = False,
        batch_size: int = 1000,
        progress: bool = False,
    ) -> None:
        """`upsert` for many: atomic and chunked as `add_many`. A None inside `metadatas` or `texts` keeps what is
        there."""
        if vectors is None and metadatas is None and texts is None:
            raise InvalidInputError("expected vectors, metadatas or texts, got none of them")
        if merge and metadatas is None:
            raise InvalidInputError("expected metadatas to merge, got none")
        self._write_many("upsert", Columns(vectors, ids, metadatas, texts), merge, batch_size, progress)

    def update_many(self, ids: Iterable[Id], metadata: Mapping[str, Any], *, merge: bool = True) -> int:
        """Change the metadata of all these records in one atomic batch; absent ids are skipped.

        `metadata` is a merge patch (RFC 7396), or with `merge=False` the new metadata. Returns how many records
        changed.
        """
        if metadata is None:
            raise InvalidInputError("expected metadata to set, got None")
        keys = check_ids(ids)
        if not keys:
            return 0
        return self._count_one(Write("update", keys, len(keys), metadatas=[encode_metadata(metadata)], merge=merge))

    def delete(self, id: Any = MISSING, *, vid: Any = MISSING) -> bool:
        """Delete the record; durable when this returns. False if there is none. `vid` is another name of `id`."""
        return bool(self._count_one(Write("delete", [_one_id(id, vid)], 1)))

    def delete_many(self, ids: Iterable[Id]) -> int:
        """Delete these records in one atomic batch; absent ids are skipped. Returns how many there were."""
        keys = check_ids(ids)
        return self._count_one(Write("delete", keys, len(keys))) if keys else 0

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Collect writes into one atomic batch, written when the block ends; an exception writes nothing.

        with db.batch() as b:
            b.delete(7)
            b.add(vector, {"name": "new"})
        """
        batch = Batch(self._engine)
        try:
            yield batch
        except BaseException:
            batch._cancel()
            raise
        batch._finish()

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, id: Any = MISSING, *, vid: Any = MISSING) -> dict[str, Any] | None:
        """The record's metadata, None if there is no such record. `vid` is another name of `id`."""
        record = self._engine.get([_one_id(id, vid)], ("metadata",))[0]
        return None if record is None else record.metadata

    def get_many(self, ids: Iterable[Id], *, include: Sequence[Part] = ("metadata",)) -> list[Record | None]:
        """The records of these ids in order, None where there is none. `include`: metadata, vector, text."""
        check_sequence_of_ids(ids)
        return self._engine.get([check_id(id_) for id_ in ids], check_include(include))

    def __getitem__(self, id: Id) -> Record:
        """The whole record; `RecordNotFoundError` (a KeyError) if there is none."""
        record = self._engine.get([check_id(id)], ("metadata", "vector", "text"))[0]
        if record is None:
            raise RecordNotFoundError(f"expected a record with id {id!r}, found none")
        return record

    def __contains__(self, id: object) -> bool:
        return self._engine.exists(check_id(id))

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        """How many records there are."""
        return self._engine.count()

    def scan(
        self, *, after: Id | None = None, limit: int | None = None, include: Sequence[Part] = ("metadata",)
    ) -> Iterator[Record]:
        """All records in id order (ints, then strs by their UTF-8 bytes), as of the moment of this call.

        Args:
            after: continue behind this id, which need not exist.
            limit: return at most this many.
            include: metadata, vector, text.
        """
        if after is not None:
            after = check_id(after)
        if limit is not None:
            check_int("limit", limit, 0, 2**62)
        return self._engine.scan(after, limit, check_include(include))

    def query(
        self,
        vector: Any,
        k: int = 5,
        ef: int | None = None,
        *,
        max_distance: float | None = None,
        include: Sequence[Part] = ("metadata",),
    ) -> list[Hit]:
        """The k nearest records, best first; fewer only if there are fewer.

        Args:
            vector: shape (dim,).
            k: 1 to 100,000.
            ef: candidates before exact reranking, honoured exactly, at least k. None: the handle's, else as many as
                measured to reach a recall of 0.99.
            max_distance: leave out hits farther than this.
            include: metadata, vector, text.

        Returns: hits ordered by score, larger is better (cosine similarity, dot product, or minus squared distance);
        ties by id. Distances are exact, in float64.
        """
        query = check_vector(vector, self.dim, self.space)
        return self._query(query[None, :], k, ef, max_distance, include)[0]

    def query_many(
        self,
        vectors: Any,
        k: int = 5,
        ef: int | None = None,
        *,
        max_distance: float | None = None,
        include: Sequence[Part] = ("metadata",),
    ) -> list[list[Hit]]:
        """`query` for vectors of shape (n, dim) against one state of the collection, on all cores."""
        return self._query(check_vectors(vectors, self.dim, self.space), k, ef, max_distance, include)

    def _query(
        self, queries: Vectors, k: int, ef: int | None, max_distance: float | None, include: Sequence[Part]
    ) -> list[list[Hit]]:
        k = check_int("k", k, 1, MAX_K)
        ef = self.ef if ef is None else check_int("ef", ef, 1, _MAX_EF)
        if max_distance is not None:
            max_distance = _check_distance(max_distance)
        return self._engine.query(queries, k, ef, max_distance, check_include(include))

    # --- keeping ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Checkpoint: bring the stores up to date on the medium and empty the log. Writes are durable without it;
        the next open is quicker after it."""
        self._engine.save()

    def refresh(self) -> None:
        """Move a read-only handle forward to what the writer has published. A writing handle is always there."""
        self._engine.refresh()

    def stats(self) -> Stats:
        """Counts, sizes, indexes, and what opening repaired."""
        return self._engine.stats()

    def close(self) -> None:
        """Checkpoint and release the folder. Closing twice is harmless."""
        self._engine.close()

    def __enter__(self) -> NoPokeDB:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            state = f"{self.count()} records"
        except (ClosedError, RuntimeError):
            state = "closed"
        return f"<NoPokeDB {self.path} dim={self.dim} space={self.space} {state}>"

    # --- inside ----------------------------------------------------------------------------------------------

    def _write_one(self, write: Write) -> list[Id]:
        result = self._engine.write([write])[0]
        assert isinstance(result, list)
        return result

    def _count_one(self, write: Write) -> int:
        result = self._engine.write([write])[0]
        assert isinstance(result, int)
        return result

    def _write_many(self, kind: BulkKind, columns: Columns, merge: bool, batch_size: int, progress: bool) -> list[Id]:
        """Write one atomic batch after the other; the ids of all."""
        committed: list[Id] = []
        with progress_bar(columns, wanted=progress) as advance:
            try:
                for write in bulk_writes(kind, columns, self.dim, self.space, merge, batch_size):
                    committed += self._write_one(write)
                    advance(write.count)
            except NoPokeError as error:
                error.committed = committed
                raise
        return committed


def resolve_folder(path: str | Path, collection: str | None) -> Path:
    """The collection's folder. Names are single path components of letters, digits, `.`, `_` and `-`."""
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise InvalidInputError(f"expected path to be a str or a Path, got {type(path).__name__} {path!r:.80}")
    text = str(path)
    if "://" in text:
        raise InvalidInputError(f"expected path to be a folder, got {text!r}")
    if not text or "\0" in text:
        raise InvalidInputError(f"expected path to be a folder, got {text!r}")
    if collection is None:
        return Path(path)
    if not isinstance(collection, str) or not _COLLECTION_NAME.fullmatch(collection):
        raise InvalidInputError(
            "expected a collection name of 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-', "
            f"got {collection!r:.150}"
        )
    return Path(path) / collection


def _check_distance(value: Any) -> float:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        if not math.isnan(number):
            return number
    raise InvalidInputError(f"expected max_distance to be a number, got {shown(value)}")


def _one_id(id: Any, vid: Any) -> Id:
    if (id is MISSING) == (vid is MISSING):
        raise InvalidInputError("expected exactly one of id and vid")
    return check_id(vid if id is MISSING else id)
