"""`NoPokeDB`: the one class a user meets. It checks every argument, then calls an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from nopokedb.batch import Batch
from nopokedb.binding import bind
from nopokedb.embedding.embedder import Embedder, Model
from nopokedb.embedding.names import make_embedder
from nopokedb.engine import Engine, NamedSnapshot, Stats, Write
from nopokedb.errors import ClosedError, InvalidInputError
from nopokedb.insight.methods import Insight
from nopokedb.intake import BulkKind, Columns, Intake, progress_bar, which_records, write_all
from nopokedb.keeping import Keeping, checked_name
from nopokedb.metadata_json import encode_metadata
from nopokedb.notebook import html_table
from nopokedb.opening import TIMEOUT_S, Opening, check_arguments, check_connection, open_place, resolve_place
from nopokedb.plan import Plan
from nopokedb.question import MAX_EF, Asker, check_fields, indexable
from nopokedb.reading import MISSING, one_id
from nopokedb.recall import Recall
from nopokedb.records import Durability, Id, IndexKind, Part, Space, check_int
from nopokedb.tables.taking import parts_of
from nopokedb.transfer.layout import Layout
from nopokedb.where import Where

_SHOWN: tuple[Part, ...] = ("metadata", "text")


class NoPokeDB(Insight, Keeping):
    """A collection of records (id, vector, metadata, text) in one folder, searched by vector.

    Every write is durable when it returns, every read sees all writes that returned before it. One process
    writes; any number of threads may use one handle; other processes open the folder with `read_only=True`.
    Close the handle (or use `with`): nothing is lost without it, but the next open has more to do.

    Args:
        dim: components of a vector, 1 to 16,384. With it a missing collection is created; without it, it must
            exist.
        max_elements: how many records are expected. A hint; the collection grows without limit.
        path: the folder, created with its parents if `dim` is given; or a PostgreSQL address,
            `postgresql://user@host/database` (extra "postgres", docs/engines.md); or the address of a server, such as
            "http://127.0.0.1:7331" or "grpc://127.0.0.1:7332" (extras "client", "grpc", docs/clients.md).
        space: "cosine" (distance 1 - cos), "l2" (squared Euclidean) or "ip" (1 - dot product). Left at its
            default without `dim`, the stored one holds.
        M, ef_construction: shape of HNSW graphs (links per node; candidates while building). Other values than the
            defaults select HNSW under index="auto".
        ef: length of the candidate list before exact reranking, honoured exactly, at least k. None: as long as
            measured to reach a recall of 0.99.
        collection: name of a folder below `path`, or of a collection in the database or on the server.
        index: "auto" (a scan of short codes, a graph when the collection is large), "exact", "scan", "graph" or
            "hnsw".
        indexed_fields: fields of the metadata to keep an index on (`create_index`); of an existing collection, some of
            those that have one.
        text_language: language of the texts, for stemming and stop words: an ISO code such as "en" or "de", or "none".
        embed: what turns texts into vectors: a callable (list of n strs -> vectors of shape (n, dim)), or the name of
            a model that ships inside a wheel ("wordllama", extra "embed"). Its name and a fingerprint are stored.
        durability: "full" syncs each batch to the medium before it returns; "os" hands it to the operating
            system, which survives a killed process but not a power cut.
        read_only: look, do not write; `refresh()` moves forward to what the writer has published.
        max_memory: bytes that indexes may hold in memory beside the mapped vectors. What does not fit is searched
            exactly.
        timeout_s: seconds that one call may wait for a server of either kind, retries included.
        api_key: a key of the NoPokeDB server, where `path` is the address of one. None: that of the environment
            variable NOPOKEDB_API_KEY, if there is one.
        distributed: shard a new PostgreSQL collection with Citus; without, it is sharded where there are workers.

    Raises:
        InvalidInputError, SettingsMismatchError: arguments that are wrong, or disagree with what is stored.
        CollectionNotFoundError: no collection, and no `dim` to create one.
        NotADatabaseError, LegacyFolderError, NewerFormatError: the folder holds something else.
        DatabaseLockedError: another handle has it open for writing.
        NeedsRecoveryError: read-only, and the last writer did not close.
        CorruptionError: stored bytes are damaged.
        UnavailableError: the server cannot be reached.
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
        indexed_fields: Sequence[str] = (),
        text_language: str = "en",
        embed: str | Model | None = None,
        durability: Durability = "full",
        read_only: bool = False,
        max_memory: int | None = None,
        timeout_s: float = TIMEOUT_S,
        api_key: str | None = None,
        distributed: bool = False,
    ) -> None:
        dim = check_arguments(dim, max_elements, max_memory, space, index, durability, M, ef_construction)
        self.ef = None if ef is None else check_int("ef", ef, 1, MAX_EF)
        self.max_elements = max_elements
        self.M, self.ef_construction = M, ef_construction
        timeout_s = check_connection(api_key, timeout_s)
        fields = [indexable(field) for field in check_fields(indexed_fields)]
        place = resolve_place(path, collection)
        self.path = str(place)
        settings = {
            "space": space,
            "M": M,
            "ef_construction": ef_construction,
            "index": index,
            "text_language": text_language,
        }
        opening = Opening(
            dim=dim,
            embed=embed,
            fields=fields,
            settings=settings,
            durability=durability,
            read_only=bool(read_only),
            max_memory=max_memory,
            max_elements=max_elements,
            api_key=api_key,
            timeout_s=timeout_s,
            distributed=bool(distributed),
        )
        self._binding = bind(*open_place(place, opening))
        """All that belongs to the present engine: a switch to another one is one assignment."""
        self.space: str = self._engine.space
        self._switching = threading.Lock()
        """Held while another engine takes over."""

    @property
    def dim(self) -> int:
        """Components of a vector; another number after `reembed` with a model that has one."""
        return self._binding.engine.dim

    @property
    def _engine(self) -> Engine:
        return self._binding.engine

    @property
    def _asker(self) -> Asker:
        return self._binding.asker

    # --- writing ---------------------------------------------------------------------------------------------

    def add(
        self,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        id: Id | None = None,
        text: str | None = None,
    ) -> Id:
        """Add one record, durable when this returns.

        Args:
            vector: shape (dim,), anything that NumPy turns into finite float32. None where `embed` makes one of the
                text.
            metadata: a JSON object; None is stored as `{}`.
            id: an int of 64 bits or a str; None takes the next automatic int, which is never used twice.
            text: kept and returned with the record, and searched by `query(text=...)`.

        Returns: the id. Raises `DuplicateIdError` if the id exists, `InvalidInputError` for bad input.
        """
        return self._write_one(lambda intake: intake.add(vector, metadata, id, text))[0]

    def add_many(
        self,
        vectors: Any = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[Id] | None = None,
        texts: Iterable[str | None] | None = None,
        id_column: str | None = None,
        vector_column: str | None = None,
        text_column: str | None = None,
        batch_size: int = 1000,
        progress: bool = False,
    ) -> list[Id]:
        """Add records, durable when this returns.

        An array or list of up to 256 MB is one atomic batch, checked whole before anything is written. Iterators,
        and larger input, are written in atomic chunks of `batch_size`; an error then carries the ids of the chunks
        before it as `.committed`.

        Args:
            vectors: shape (n, dim), or an iterable of n vectors. None where `embed` makes them of the texts. Or all in
                one table (docs/data.md): a pandas or polars frame, an Arrow table, a DuckDB relation.
            metadatas, ids, texts: one per vector, as in `add`.
            id_column, vector_column, text_column: names of the table's columns, `"v*"` for v0, v1, ...; None: "id",
                "vector", "text" if it has them. Other columns are metadata, an empty cell is no value.
            progress: show a progress bar (extra "progress").

        Returns: the ids, in order.
        """
        layout = Layout(id_column, vector_column, text_column)
        return self._write_many("add", Columns(vectors, ids, metadatas, texts), layout, False, batch_size, progress)

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

        A new id needs a vector, or a text and `embed`. With `embed` a new text also replaces the vector, unless that
        was given by hand. With `merge` the metadata are a merge patch (RFC 7396: None removes a key). `vid` is
        another name of `id`.
        """
        key = one_id(id, vid)
        self._write_one(lambda intake: intake.upsert(key, vector, metadata, text, merge))

    def upsert_many(
        self,
        ids: Any,
        vectors: Any = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        texts: Iterable[str | None] | None = None,
        id_column: str | None = None,
        vector_column: str | None = None,
        text_column: str | None = None,
        merge: bool = False,
        batch_size: int = 1000,
        progress: bool = False,
    ) -> None:
        """`upsert` for many: atomic and chunked as `add_many`. A None inside `metadatas` or `texts` keeps what is
        there. `ids` may be a table with all columns, as in `add_many`: an empty text keeps what is there, and where it
        has columns of metadata, they are the record's metadata."""
        layout = Layout(id_column, vector_column, text_column)
        self._write_many("upsert", Columns(vectors, ids, metadatas, texts), layout, merge, batch_size, progress)

    def update_many(
        self,
        ids: Iterable[Id] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        where: Where = None,
        merge: bool = True,
    ) -> int:
        """Change the metadata of these records, or of all that pass the filter, in one atomic batch; absent ids are
        skipped.

        `metadata` is a merge patch (RFC 7396), or with `merge=False` the new metadata. Returns how many records
        changed.
        """
        if metadata is None:
            raise InvalidInputError("expected metadata to set, got None")
        encoded = [encode_metadata(metadata)]
        node, keys = which_records(ids, where)
        if node is None and not keys:
            return 0
        return self._count_one(Write("update", keys, len(keys or ()), metadatas=encoded, merge=merge, where=node))

    def delete(self, id: Any = MISSING, *, vid: Any = MISSING) -> bool:
        """Delete the record; durable when this returns. False if there is none. `vid` is another name of `id`."""
        return bool(self._count_one(Write("delete", [one_id(id, vid)], 1)))

    def delete_many(self, ids: Iterable[Id] | None = None, *, where: Where = None) -> int:
        """Delete these records, or all that pass the filter, in one atomic batch; absent ids are skipped. Returns how
        many there were. Exactly one of both; an empty filter is refused, since it would delete everything."""
        node, keys = which_records(ids, where)
        return self._count_one(Write("delete", keys, len(keys or ()), where=node)) if node is not None or keys else 0

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Collect writes into one atomic batch, written when the block ends; an exception writes nothing.

        with db.batch() as b:
            b.delete(7)
            b.add(vector, {"name": "new"})
        """
        batch = Batch(self._binding.intake)
        try:
            yield batch
        except BaseException:
            batch._cancel()
            raise
        batch._finish()

    # --- how it answers --------------------------------------------------------------------------------------

    def explain(self, vector: Any = None, k: int = 5, ef: int | None = None, **options: Any) -> Plan:
        """Answer a query, which is given as to `query`, and say how: which parts were searched by what and why, what
        the filter left over, and where the time went. `print` shows a table, `to_dict()` is for JSON."""
        bound = self._binding
        return bound.engine.explain(bound.asker.one_of(vector, k, ef, self.ef, **options))

    def measure_recall(self, sample: int = 200, k: int = 10, *, where: Where = None, queries: Any = None) -> Recall:
        """The recall of default queries of this handle, now, against exact search of the same state.

        Args:
            sample: how many queries to make of stored records: half are records (themselves no answers), half points
                between two.
            k: results of each, 1 to 10,000.
            where: a filter for all queries, and for the records that they are made of.
            queries: vectors to ask in place of a sample, shape (n, dim).
        """
        bound = self._binding
        return bound.engine.measure_recall(bound.asker.sample(queries, k, self.ef, where, sample), sample)

    # --- keeping ---------------------------------------------------------------------------------------------

    def create_index(self, field: str) -> None:
        """Keep an index on a field, so that the first filter on a value of it takes a fraction of a millisecond.
        Filters work without; fields that they use often are indexed by themselves. Durable when this returns; an index
        that is there already stays."""
        self._engine.create_index(indexable(field))

    def drop_index(self, field: str) -> bool:
        """Drop the index on a field. False if there was none."""
        return self._engine.drop_index(indexable(field))

    def compact(self) -> int:
        """Give back the space of replaced and deleted records; the number of bytes on disk. Runs by itself once most
        versions are such. Reading and writing go on meanwhile; ids and records stay what they are.

        What a scan or a read-only handle still uses goes when it ends. Raises `CorruptionError` if a record is damaged
        and OSError if the disk is too full, and has then changed nothing.
        """
        return self._engine.compact()

    def optimize(self, progress: bool = False) -> None:
        """Do now what otherwise waits for pauses: give back the space of replaced and deleted records if they are more
        than a tenth, index what is not indexed yet, merge small indexes, build graphs where they pay, and save. Returns
        when all of it is done for the records that were there at the call.

        Never needed: searches reach their recall without. Afterwards they are as fast as they get, which may take
        minutes per million records. Reading and writing go on meanwhile.

        Args:
            progress: show a progress bar (needs `tqdm`).

        Raises: what `compact` raises; `ClosedError` if the handle is closed meanwhile.
        """
        with progress_bar(None, wanted=progress) as bar:

            def report(done: int, total: int) -> None:
                if bar is not None:
                    bar.total = total
                    bar.update(done - bar.n)

            self._engine.optimize(report)

    def reembed(self, embed: str | Model, *, progress: bool = False, snapshot: str | None = None) -> NamedSnapshot:
        """Give the collection another model, which may have another dimension: the vectors of all records are made anew
        of their texts, also those that were given by hand. Folders only.

        Reading and writing go on while the new vectors are made beside the old ones; what is written meanwhile comes
        along. At the end writers wait for a moment, and all of the collection has the new model at once: a crash before
        that leaves the old one. Other open handles answer from the state before until they are opened again. A
        `batch` block or bulk write of this handle that is under way at that moment ends with `ClosedError`.

        Args:
            embed: the new model, as for `NoPokeDB`.
            progress: show a progress bar (extra "progress").
            snapshot: the name under which the state before is kept, with its vectors: `at` reads it, `drop_snapshot`
                gives its space back. None: "before-reembed-" and a number.

        Returns: that snapshot. Raises `InvalidInputError` if a record has no text, or the model does not return what
        it should; OSError if the disk has not the room. Then nothing has changed.
        """
        with progress_bar(self.count(), wanted=progress) as bar:
            report = bar.update if bar is not None else lambda count: None
            return reembed(self, make_embedder(embed), snapshot, report)

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
        while True:
            engine = self._engine
            engine.close()
            with self._switching:
                if engine is self._engine:
                    return

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

    def _repr_html_(self) -> str:
        """In a notebook: the settings, and the first records."""
        try:
            rows = [(record.id, record.metadata, record.text or "") for record in self.scan(limit=5, include=_SHOWN)]
        except (ClosedError, RuntimeError):
            rows = []
        return html_table(repr(self).strip("<>"), ("id", "metadata", "text"), rows)

    # --- inside ----------------------------------------------------------------------------------------------

    def _write_one(self, make: Callable[[Intake], Write]) -> list[Id]:
        result = self._written(make)
        assert isinstance(result, list)
        return result

    def _count_one(self, write: Write) -> int:
        result = self._written(lambda intake: write)
        assert isinstance(result, int)
        return result

    def _written(self, make: Callable[[Intake], Write]) -> list[Id] | int:
        """Write what `make` makes of the arguments; again, if another model has come meanwhile."""
        while True:
            bound = self._binding
            try:
                return bound.engine.write([make(bound.intake)])[0]
            except ClosedError:
                with self._switching:
                    if bound is self._binding:
                        raise

    def _write_many(
        self, kind: BulkKind, columns: Columns, layout: Layout, merge: bool, batch_size: int, progress: bool
    ) -> list[Id]:
        """Write one atomic batch after the other; the ids of all."""
        bound = self._binding
        writes = (
            write
            for part in parts_of(kind, columns, layout)
            for write in bound.intake.bulk(kind, part, merge, batch_size, progress)
        )
        return write_all(bound.engine, writes, columns.length() if progress else None, progress)


def engine_of(db: NoPokeDB) -> Engine:
    """What is behind a handle, for the modules of this package that stand above it: server, cli, transfer, copying.

    It checks nothing (engine.py): callers hand it what records.py and question.py have made of their arguments.
    """
    return db._engine


def reembed(db: NoPokeDB, model: Embedder, snapshot: str | None, report: Callable[[int], object]) -> NamedSnapshot:
    """See `NoPokeDB.reembed`; `report` is told of records that are done, how many more."""
    with db._engine.reembedding(model, None if snapshot is None else checked_name(snapshot)) as shadow:
        shadow.fill(report)
        with db._switching:
            engine, kept = shadow.switch()
            db._binding = bind(engine, db._binding.embed if isinstance(kept, BaseException) else model)
    if isinstance(kept, BaseException):
        raise kept
    return kept
