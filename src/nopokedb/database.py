"""`NoPokeDB`: the one class a user meets. It checks every argument, then calls an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from nopokedb.batch import Batch
from nopokedb.embed import Model, make_embedder, stored_embedder
from nopokedb.engine import Stats, Write
from nopokedb.errors import (
    ClosedError,
    InvalidInputError,
    RecordNotFoundError,
)
from nopokedb.filters import Scalar
from nopokedb.intake import BulkKind, Columns, Intake, which_records, write_all
from nopokedb.opening import check_arguments, open_engine, resolve_folder
from nopokedb.plan import Plan
from nopokedb.question import MAX_EF, Asker, Fusion, check_fields, indexable, options_of, scan_order
from nopokedb.recall import Recall, measure
from nopokedb.records import (
    Durability,
    Id,
    IndexKind,
    Part,
    Record,
    Space,
    check_id,
    check_include,
    check_int,
    check_sequence_of_ids,
    encode_metadata,
)
from nopokedb.where import Where, parse_filter, parse_path

MISSING: Final = object()


class NoPokeDB:
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
        indexed_fields: Sequence[str] = (),
        text_language: str = "en",
        embed: str | Model | None = None,
        durability: Durability = "full",
        read_only: bool = False,
        max_memory: int | None = None,
    ) -> None:
        dim = check_arguments(dim, max_elements, max_memory, space, index, durability, M, ef_construction)
        self.ef = None if ef is None else check_int("ef", ef, 1, MAX_EF)
        self.max_elements = max_elements
        self.M, self.ef_construction = M, ef_construction
        self.path = str(resolve_folder(path, collection))
        fields = [indexable(field) for field in check_fields(indexed_fields)]
        embedder = None if embed is None else make_embedder(embed)
        if embedder is not None and dim is not None and dim != embedder.dim:
            raise InvalidInputError(
                f"expected dim={embedder.dim}, the dimension of the model {embedder.name!r}, got dim={dim}"
            )
        settings = {"space": space, "M": M, "ef_construction": ef_construction, "index": index}
        self._engine = open_engine(
            Path(self.path),
            dim,
            embedder,
            fields,
            {**settings, "text_language": text_language},
            durability,
            bool(read_only),
            max_memory,
        )
        self.dim: int = self._engine.dim
        self.space: str = self._engine.space
        embed_texts = embedder or stored_embedder(self._engine.embed_name, self._engine.embed_fingerprint)
        self._intake = Intake(self.dim, self.space, embed_texts)
        self._asker = Asker(self.dim, self.space, embed_texts)

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
        return self._write_one(self._intake.add(vector, metadata, id, text))[0]

    def add_many(
        self,
        vectors: Any = None,
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
            vectors: shape (n, dim), or an iterable of n vectors. None where `embed` makes them of the texts.
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

        A new id needs a vector, or a text and `embed`. With `embed` a new text also replaces the vector, unless that
        was given by hand. With `merge` the metadata are a merge patch (RFC 7396: None removes a key). `vid` is
        another name of `id`.
        """
        key = _one_id(id, vid)
        self._write_one(self._intake.upsert(key, vector, metadata, text, merge))

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
        return bool(self._count_one(Write("delete", [_one_id(id, vid)], 1)))

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
        batch = Batch(self._engine, self._intake)
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

    def count(self, where: Where = None) -> int:
        """How many records there are, or pass the filter."""
        return self._engine.count(parse_filter(where))

    def scan(
        self,
        where: Where = None,
        *,
        order_by: str | None = None,
        after: Id | str | None = None,
        limit: int | None = None,
        include: Sequence[Part] = ("metadata",),
    ) -> Iterator[Record]:
        """The records that pass the filter, as of the moment of this call, in id order (ints, then strs by their UTF-8
        bytes) or in the order of a field.

        Args:
            where: a filter (docs/filters.md); None: all.
            order_by: a field; `-` in front for descending. Numbers come before strs before booleans; records without
                it last, and ties in id order, either way. Of a list the first value counts.
            after: continue behind this id, which need not exist; with `order_by` behind a record's `cursor`.
            limit: return at most this many.
            include: metadata, vector, text.
        """
        order, after, limit = scan_order(order_by, after, limit)
        return self._engine.scan(parse_filter(where), order, after, limit, check_include(include))

    def facet(self, field: str, where: Where = None, *, limit: int = 100) -> list[tuple[Scalar, int]]:
        """How many records have each value of the field, most frequent first, then by value; `limit` values at most.

        Of a list every value counts once. Null, missing, and objects are not counted.
        """
        path = parse_path(field)
        return self._engine.facet(path, parse_filter(where), check_int("limit", limit, 1, 10_000_000))

    def query(
        self,
        vector: Any = None,
        k: int = 5,
        ef: int | None = None,
        *,
        text: str | None = None,
        where: Where = None,
        target_recall: float | None = None,
        max_distance: float | None = None,
        like: Sequence[Id] | None = None,
        unlike: Sequence[Id] | None = None,
        fusion: Fusion = "rrf",
        alpha: float = 0.5,
        diversity: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        highlight: bool = False,
        include: Sequence[Part] = ("metadata",),
    ) -> Any:
        """The k best records by vector, by text, or by both; fewer only if fewer pass the filter.

        Args:
            vector: shape (dim,); a str is turned into one by the collection's `embed`.
            k: 1 to 100,000; with `group_by` the number of groups.
            ef: candidates before exact reranking, honoured exactly, at least k. None: the handle's, else as many as
                measured to reach the recall.
            text: words, "phrases", +must, -must_not, prefix*; ranked by BM25 (extra "text").
            where: a filter (docs/filters.md), applied inside the search.
            target_recall: above 0, and at most 1, which means exact; None: 0.99. In place of `ef`: the cheapest index
                and list that reached it when they were measured (docs/recall.md).
            max_distance: leave out records farther than this from the vector.
            like, unlike: ids of records; the question is the mean of the vectors of `like`, moved away from the mean
                of `unlike`. These records are no answers.
            fusion, alpha: how vector and text are combined: "rrf" by ranks, "weighted" by scores, where alpha is the
                weight of the vector (docs/search.md).
            diversity: 0 to 1; hits are chosen one by one for being near and unlike those before (maximal marginal
                relevance), and come in the order in which they were chosen.
            group_by, group_size: the best `group_size` hits of each of the k best values of a field.
            highlight: hits carry the passage of the text that matches, as HTML with <b>.
            include: metadata, vector, text.

        Returns: hits ordered by score, larger is better (cosine similarity, dot product, minus squared distance, BM25,
        or the fused score); ties by id. Distances are exact, in float64; None if only text was asked for. With
        `group_by` a list of `Group`.
        """
        options = options_of(text, like, unlike, fusion, alpha, diversity, group_by, group_size, highlight)
        return self._engine.query(
            self._asker.one(vector, k, ef, self.ef, target_recall, include, where, max_distance, **options)
        )[0]

    def query_many(
        self,
        vectors: Any,
        k: int = 5,
        ef: int | None = None,
        *,
        text: str | Sequence[str] | None = None,
        where: Where = None,
        target_recall: float | None = None,
        max_distance: float | None = None,
        fusion: Fusion = "rrf",
        alpha: float = 0.5,
        diversity: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        highlight: bool = False,
        include: Sequence[Part] = ("metadata",),
    ) -> list[Any]:
        """`query` for vectors of shape (n, dim), or n strs where there is `embed`, against one state of the collection,
        on all cores. `text` is one for all, or one for each."""
        options = options_of(text, None, None, fusion, alpha, diversity, group_by, group_size, highlight)
        return self._engine.query(
            self._asker.many(vectors, k, ef, self.ef, target_recall, include, where, max_distance, **options)
        )

    def explain(self, vector: Any = None, k: int = 5, ef: int | None = None, **options: Any) -> Plan:
        """Answer a query, which is given as to `query`, and say how: which parts were searched by what and why, what
        the filter left over, and where the time went. `print` shows a table, `to_dict()` is for JSON."""
        return self._engine.explain(self._asker.one_of(vector, k, ef, self.ef, **options))

    def measure_recall(self, sample: int = 200, k: int = 10, *, where: Where = None, queries: Any = None) -> Recall:
        """The recall of default queries of this handle, now, against exact search of the same state.

        Args:
            sample: how many queries to make of stored records: half are records (themselves no answers), half points
                between two.
            k: results of each, 1 to 10,000.
            where: a filter for all queries, and for the records that they are made of.
            queries: vectors to ask in place of a sample, shape (n, dim).
        """
        return measure(self._engine, self._asker.sample(queries, k, self.ef, where, sample), sample)

    # --- keeping ---------------------------------------------------------------------------------------------

    def create_index(self, field: str) -> None:
        """Keep an index on a field, so that the first filter on a value of it takes a fraction of a millisecond.
        Filters work without; fields that they use often are indexed by themselves. Durable when this returns; an index
        that is there already stays."""
        self._engine.create_index(indexable(field))

    def drop_index(self, field: str) -> bool:
        """Drop the index on a field. False if there was none."""
        return self._engine.drop_index(indexable(field))

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
        return write_all(self._engine, self._intake.bulk(kind, columns, merge, batch_size), columns, progress)


def _one_id(id: Any, vid: Any) -> Id:
    if (id is MISSING) == (vid is MISSING):
        raise InvalidInputError("expected exactly one of id and vid")
    return check_id(vid if id is MISSING else id)
