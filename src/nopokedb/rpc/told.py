"""Results: into gRPC's messages, as servers do, and out of them, as clients do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from nopokedb.records import Group, Hit, Record
from nopokedb.rpc import nopokedb_pb2 as pb
from nopokedb.rpc.asked import id_message, id_of, vectors_message, vectors_of
from nopokedb.server import requests
from nopokedb.server.results import (
    Answer,
    Answers,
    Collection,
    Counted,
    Created,
    Done,
    Embedded,
    Facets,
    Records,
    Written,
)

_SIDES = ("vector_score", "vector_rank", "text_score", "text_rank")


# --- answers of queries -----------------------------------------------------------------------------------


def answers_message(result: Answers) -> pb.QueryReply:
    """What a query found."""
    reply = pb.QueryReply()
    for answer in result.answers:
        told = reply.answers.add()
        for item in answer:
            if isinstance(item, Group):
                group = told.groups.add(key=orjson.dumps(item.key))
                for hit in item.hits:
                    _put_hit(group.hits.add(), hit)
            else:
                _put_hit(told.hits.add(), item)
    return reply


def _put_hit(message: pb.Hit, hit: Hit) -> None:
    get = hit.get
    key = hit["id"]
    if key.__class__ is str:
        message.id.text = key
    else:
        message.id.number = key
    message.score = hit["score"]
    if (distance := hit["distance"]) is not None:
        message.distance = distance
    if (metadata := get("metadata")) is not None:
        message.metadata = orjson.dumps(metadata)
    if (text := get("text")) is not None:
        message.text = text
    if (vector := get("vector")) is not None:
        message.vector = np.asarray(vector, "<f4").tobytes()
    if "vector_score" in hit:
        message.sides.SetInParent()
        for name in _SIDES:
            if (value := hit[name]) is not None:
                setattr(message.sides, name, value)
    if (highlight := get("highlight")) is not None:
        message.highlight = highlight


def answers_of(reply: pb.QueryReply, asked: requests.Query) -> Answers:
    """The same again. What was asked for is there, as None where a record has none."""
    grouped = asked.group_by is not None
    answers: list[Answer] = []
    for told in reply.answers:
        if grouped:
            answers.append([Group(orjson.loads(item.key), _hits(item.hits, asked)) for item in told.groups])
        else:
            answers.append(_hits(told.hits, asked))
    return Answers(answers, asked.vectors is not None, grouped, False)


def _hits(messages: Iterable[pb.Hit], asked: requests.Query) -> list[Hit]:
    include = frozenset(asked.include)
    return [_hit(message, include) for message in messages]


def _hit(message: pb.Hit, include: frozenset[str]) -> Hit:
    has = message.HasField
    hit = Hit(id=id_of(message.id))
    if "metadata" in include:
        hit["metadata"] = orjson.loads(message.metadata)
    hit["score"], hit["distance"] = message.score, message.distance if has("distance") else None
    if has("sides"):
        sides = message.sides
        for name in _SIDES:
            hit[name] = getattr(sides, name) if sides.HasField(name) else None
    if "text" in include:
        hit["text"] = message.text if has("text") else None
    if "vector" in include:
        hit["vector"] = np.frombuffer(message.vector, "<f4").tolist()
    if has("highlight"):
        hit["highlight"] = message.highlight
    return hit


# --- records ----------------------------------------------------------------------------------------------


def _record_message(record: Record) -> pb.Record:
    return pb.Record(
        id=id_message(record.id),
        metadata=None if record.metadata is None else orjson.dumps(record.metadata),
        vector=None if record.vector is None else np.asarray(record.vector, "<f4").tobytes(),
        text=record.text,
        cursor=record.cursor,
    )


def record_of(message: pb.Record) -> Record:
    """One record."""
    has = message.HasField
    id_ = id_of(message.id)
    assert id_ is not None
    return Record(
        id_,
        orjson.loads(message.metadata) if has("metadata") else None,
        np.frombuffer(message.vector, "<f4").copy() if has("vector") else None,
        message.text if has("text") else None,
        message.cursor if has("cursor") else None,
    )


def records_message(result: Records) -> pb.GetReply:
    """Records by id, and where there are none."""
    return pb.GetReply(
        found=[pb.Found() if item is None else pb.Found(record=_record_message(item)) for item in result.records]
    )


def records_of(reply: pb.GetReply) -> Records:
    """The same again."""
    return Records([record_of(item.record) if item.HasField("record") else None for item in reply.found], False)


def page_message(records: Sequence[Record]) -> pb.ScanReply:
    """A page of a scan."""
    return pb.ScanReply(records=map(_record_message, records))


# --- the small ones ---------------------------------------------------------------------------------------


def ids_message(result: Written) -> pb.IdsReply:
    """Ids of what was written."""
    return pb.IdsReply(ids=map(id_message, result.ids))


def ids_of(reply: pb.IdsReply) -> Written:
    """The same again."""
    return Written([id_ for item in reply.ids if (id_ := id_of(item)) is not None])


def facets_message(result: Facets) -> pb.FacetReply:
    """Values and how many records have each."""
    return pb.FacetReply(values=[pb.FacetValue(value=orjson.dumps(value), count=n) for value, n in result.values])


def facets_of(reply: pb.FacetReply) -> Facets:
    """The same again."""
    return Facets([(orjson.loads(item.value), item.count) for item in reply.values])


def counted_message(result: Counted) -> pb.CountReply:
    return pb.CountReply(count=result.count)


def counted_of(reply: pb.CountReply) -> Counted:
    return Counted(reply.count)


def done_message(result: Done) -> pb.DoneReply:
    return pb.DoneReply(done=result.done)


def done_of(reply: pb.DoneReply) -> Done:
    return Done(reply.done)


def embedded_message(result: Embedded) -> pb.EmbedReply:
    return pb.EmbedReply(vectors=vectors_message(result.vectors))


def embedded_of(reply: pb.EmbedReply) -> Any:
    """Vectors of shape (n, dim)."""
    return vectors_of(reply.vectors)


def created_message(result: Created) -> pb.CreateCollectionReply:
    return pb.CreateCollectionReply(name=result.name, dim=result.dim, space=result.space, created=result.created)


def created_of(reply: pb.CreateCollectionReply) -> Created:
    return Created(reply.name, reply.dim, reply.space, reply.created)


def collection_message(result: Collection) -> pb.CollectionReply:
    return pb.CollectionReply(
        name=result.name,
        dim=result.dim,
        space=result.space,
        index=result.index,
        embed=result.embed,
        count=result.count,
        indexed_fields=result.indexed_fields,
        M=result.M,
        ef_construction=result.ef_construction,
        text_language=result.text_language,
    )


def collection_of(reply: pb.CollectionReply) -> Collection:
    return Collection(
        reply.name,
        reply.dim,
        reply.space,
        reply.index,
        reply.embed,
        reply.count,
        list(reply.indexed_fields),
        reply.M,
        reply.ef_construction,
        reply.text_language,
    )
