"""Operations that read: (collection, request) -> results. Arguments are judged by the library."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from nopokedb import NoPokeDB
from nopokedb.database import engine_of
from nopokedb.engine import NamedSnapshot, Query, Stats
from nopokedb.errors import InvalidInputError
from nopokedb.plan import Plan
from nopokedb.question import MAX_EF, MAX_SAMPLE
from nopokedb.reading import Reading
from nopokedb.recall import Recall
from nopokedb.records import Record, check_choice, check_int
from nopokedb.server import requests
from nopokedb.server.results import Answers, Collection, Counted, Embedded, Facets, Page, Records
from nopokedb.server.vectors import unpack, unpack_many
from nopokedb.where import parse_filter


def query(db: NoPokeDB, request: requests.Query) -> Answers:
    """See `NoPokeDB.query` and `query_many`."""
    packed = is_packed(request.vector_format)
    grouped = request.group_by is not None
    where = _moment(db, request.at)
    if request.vectors is None:
        answer = where.query(
            unpack(request.vector),
            request.k,
            request.ef,
            like=request.like,
            unlike=request.unlike,
            **_options(request),
        )
        return Answers([answer], False, grouped, packed)
    for name in ("vector", "like", "unlike"):
        if getattr(request, name) is not None:
            raise InvalidInputError(f"expected one of {name} and vectors, got both")
    vectors = unpack_many(request.vectors, db.dim)
    answers = where.query_many(vectors, request.k, request.ef, **_options(request))
    return Answers(answers, True, grouped, packed)


def question(db: NoPokeDB, vector: Any, request: requests.Query) -> Query:
    """The checked question of a query of one vector, as `NoPokeDB.query` would ask it."""
    return db._asker.one_of(
        vector,
        request.k,
        request.ef,
        db.ef,
        like=request.like,
        unlike=request.unlike,
        **_options(request),
    )


def explain(db: NoPokeDB, request: requests.Query) -> Plan:
    """See `NoPokeDB.explain`."""
    for name in ("vectors", "at"):
        if getattr(request, name) is not None:
            raise InvalidInputError(f"expected no {name} to explain, got some: one question is explained, as of now")
    return db.explain(
        unpack(request.vector),
        request.k,
        request.ef,
        like=request.like,
        unlike=request.unlike,
        **_options(request),
    )


def get(db: NoPokeDB, request: requests.GetRecords) -> Records:
    """See `NoPokeDB.get_many`."""
    found = _moment(db, request.at).get_many(request.ids, include=request.include)
    return Records(found, is_packed(request.vector_format))


def scan(db: NoPokeDB, request: requests.Scan) -> Page:
    """One page of `NoPokeDB.scan`. Each page is of the moment of its call; with `at` all are of one."""
    limit = check_int("limit", request.limit, 1, 2**31)
    found = _moment(db, request.at).scan(
        request.where, order_by=request.order_by, after=request.after, limit=limit + 1, include=request.include
    )
    records = list(itertools.islice(found, limit + 1))
    after = None
    if len(records) > limit:
        records.pop()
        after = records[-1].id if request.order_by is None else records[-1].cursor
    return Page(records, after, is_packed(request.vector_format))


def scan_all(db: NoPokeDB, request: requests.ScanAll) -> Iterator[Record]:
    """See `NoPokeDB.scan`."""
    return _moment(db, request.at).scan(
        request.where,
        order_by=request.order_by,
        after=request.after,
        limit=request.limit,
        include=request.include,
    )


def count(db: NoPokeDB, request: requests.Count) -> Counted:
    """See `NoPokeDB.count`."""
    return Counted(_moment(db, request.at).count(request.where))


def facet(db: NoPokeDB, request: requests.Facet) -> Facets:
    """See `NoPokeDB.facet`."""
    return Facets(_moment(db, request.at).facet(request.field, request.where, limit=request.limit))


def measure_recall(db: NoPokeDB, request: requests.MeasureRecall) -> Recall:
    """See `NoPokeDB.measure_recall`."""
    queries = None if request.queries is None else unpack_many(request.queries, db.dim)
    ef = None if request.ef is None else check_int("ef", request.ef, 1, MAX_EF)
    question = db._asker.sample(queries, request.k, ef, request.where, request.sample)
    return engine_of(db).measure_recall(question, request.sample)


def sample(db: NoPokeDB, request: requests.Sample) -> Records:
    """Records that are chosen by chance; one that is deleted meanwhile is left out."""
    packed = is_packed(request.vector_format)
    ids, _ = engine_of(db).sample(check_int("size", request.size, 1, MAX_SAMPLE), parse_filter(request.where))
    return Records([record for record in db.get_many(ids, include=request.include) if record is not None], packed)


def embed(db: NoPokeDB, request: requests.Texts) -> Embedded:
    """What the collection's model makes of texts, as when they are asked with."""
    texts = request.texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("expected texts to be an array of at least one str")
    return Embedded(db._asker.vectors(texts), db.dim)


def stats(db: NoPokeDB, request: requests.Nothing) -> Stats:
    """See `NoPokeDB.stats`; the path is told as the name of the folder."""
    found = db.stats()
    return replace(found, path=PurePath(found.path).name)


def describe(db: NoPokeDB, name: str) -> Collection:
    """What a collection is."""
    return Collection(name=name, embed=engine_of(db).embed_name, count=len(db), **engine_of(db).settings_given())


def snapshots(db: NoPokeDB, request: requests.Nothing) -> list[NamedSnapshot]:
    """See `NoPokeDB.snapshots`."""
    return db.snapshots()


def snapshot(db: NoPokeDB, request: requests.Name) -> NamedSnapshot:
    """One named snapshot."""
    return db.at(request.name).named


def is_packed(vector_format: Any) -> bool:
    """Whether vectors are to be told in base64."""
    check_choice("vector_format", vector_format, requests.VectorFormat)
    return bool(vector_format == "base64")


def _moment(db: NoPokeDB, at: str | None) -> Reading:
    """The collection as it is, or as it was at a named snapshot."""
    return db if at is None else db.at(at)


def _options(request: requests.Query) -> dict[str, Any]:
    """The arguments of `query` that are the same for one vector and for many."""
    return {
        "text": request.text,
        "where": request.where,
        "target_recall": request.target_recall,
        "max_distance": request.max_distance,
        "fusion": request.fusion,
        "alpha": request.alpha,
        "diversity": request.diversity,
        "group_by": request.group_by,
        "group_size": request.group_size,
        "highlight": request.highlight,
        "include": request.include,
    }
