from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Id(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: str
    def __init__(self, number: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Words(_message.Message):
    __slots__ = ("words",)
    WORDS_FIELD_NUMBER: _ClassVar[int]
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, words: _Optional[_Iterable[str]] = ...) -> None: ...

class Vectors(_message.Message):
    __slots__ = ("values", "dim")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    dim: int
    def __init__(self, values: _Optional[bytes] = ..., dim: _Optional[int] = ...) -> None: ...

class RecordInput(_message.Message):
    __slots__ = ("id", "vector", "metadata", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: Id
    vector: bytes
    metadata: bytes
    text: str
    def __init__(self, id: _Optional[_Union[Id, _Mapping]] = ..., vector: _Optional[bytes] = ..., metadata: _Optional[bytes] = ..., text: _Optional[str] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("op", "id", "vector", "metadata", "text", "merge")
    OP_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    op: str
    id: Id
    vector: bytes
    metadata: bytes
    text: str
    merge: bool
    def __init__(self, op: _Optional[str] = ..., id: _Optional[_Union[Id, _Mapping]] = ..., vector: _Optional[bytes] = ..., metadata: _Optional[bytes] = ..., text: _Optional[str] = ..., merge: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("id", "metadata", "vector", "text", "cursor")
    ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    id: Id
    metadata: bytes
    vector: bytes
    text: str
    cursor: str
    def __init__(self, id: _Optional[_Union[Id, _Mapping]] = ..., metadata: _Optional[bytes] = ..., vector: _Optional[bytes] = ..., text: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "score", "distance", "metadata", "vector", "text", "sides", "highlight")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SIDES_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHT_FIELD_NUMBER: _ClassVar[int]
    id: Id
    score: float
    distance: float
    metadata: bytes
    vector: bytes
    text: str
    sides: Sides
    highlight: str
    def __init__(self, id: _Optional[_Union[Id, _Mapping]] = ..., score: _Optional[float] = ..., distance: _Optional[float] = ..., metadata: _Optional[bytes] = ..., vector: _Optional[bytes] = ..., text: _Optional[str] = ..., sides: _Optional[_Union[Sides, _Mapping]] = ..., highlight: _Optional[str] = ...) -> None: ...

class Sides(_message.Message):
    __slots__ = ("vector_score", "vector_rank", "text_score", "text_rank")
    VECTOR_SCORE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_RANK_FIELD_NUMBER: _ClassVar[int]
    TEXT_SCORE_FIELD_NUMBER: _ClassVar[int]
    TEXT_RANK_FIELD_NUMBER: _ClassVar[int]
    vector_score: float
    vector_rank: int
    text_score: float
    text_rank: int
    def __init__(self, vector_score: _Optional[float] = ..., vector_rank: _Optional[int] = ..., text_score: _Optional[float] = ..., text_rank: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("key", "hits")
    KEY_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, key: _Optional[bytes] = ..., hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("hits", "groups")
    HITS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection", "dim", "space", "M", "ef_construction", "index", "indexed_fields", "text_language", "embed", "durability", "max_elements")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    M_FIELD_NUMBER: _ClassVar[int]
    EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    EMBED_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    MAX_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    dim: int
    space: str
    M: int
    ef_construction: int
    index: str
    indexed_fields: _containers.RepeatedScalarFieldContainer[str]
    text_language: str
    embed: str
    durability: str
    max_elements: int
    def __init__(self, collection: _Optional[str] = ..., dim: _Optional[int] = ..., space: _Optional[str] = ..., M: _Optional[int] = ..., ef_construction: _Optional[int] = ..., index: _Optional[str] = ..., indexed_fields: _Optional[_Iterable[str]] = ..., text_language: _Optional[str] = ..., embed: _Optional[str] = ..., durability: _Optional[str] = ..., max_elements: _Optional[int] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("collection", "vector", "vector_text", "vectors", "vector_texts", "k", "ef", "text", "where", "target_recall", "max_distance", "like", "unlike", "fusion", "alpha", "diversity", "group_by", "group_size", "highlight", "include", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    VECTOR_TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_TEXTS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    TARGET_RECALL_FIELD_NUMBER: _ClassVar[int]
    MAX_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    LIKE_FIELD_NUMBER: _ClassVar[int]
    UNLIKE_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    vector: bytes
    vector_text: str
    vectors: Vectors
    vector_texts: Words
    k: int
    ef: int
    text: Words
    where: bytes
    target_recall: float
    max_distance: float
    like: _containers.RepeatedCompositeFieldContainer[Id]
    unlike: _containers.RepeatedCompositeFieldContainer[Id]
    fusion: str
    alpha: float
    diversity: float
    group_by: str
    group_size: int
    highlight: bool
    include: Words
    at: str
    def __init__(self, collection: _Optional[str] = ..., vector: _Optional[bytes] = ..., vector_text: _Optional[str] = ..., vectors: _Optional[_Union[Vectors, _Mapping]] = ..., vector_texts: _Optional[_Union[Words, _Mapping]] = ..., k: _Optional[int] = ..., ef: _Optional[int] = ..., text: _Optional[_Union[Words, _Mapping]] = ..., where: _Optional[bytes] = ..., target_recall: _Optional[float] = ..., max_distance: _Optional[float] = ..., like: _Optional[_Iterable[_Union[Id, _Mapping]]] = ..., unlike: _Optional[_Iterable[_Union[Id, _Mapping]]] = ..., fusion: _Optional[str] = ..., alpha: _Optional[float] = ..., diversity: _Optional[float] = ..., group_by: _Optional[str] = ..., group_size: _Optional[int] = ..., highlight: _Optional[bool] = ..., include: _Optional[_Union[Words, _Mapping]] = ..., at: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "include", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedCompositeFieldContainer[Id]
    include: Words
    at: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[_Union[Id, _Mapping]]] = ..., include: _Optional[_Union[Words, _Mapping]] = ..., at: _Optional[str] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("collection", "where", "order_by", "after", "limit", "include", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: bytes
    order_by: str
    after: Id
    limit: int
    include: Words
    at: str
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[bytes] = ..., order_by: _Optional[str] = ..., after: _Optional[_Union[Id, _Mapping]] = ..., limit: _Optional[int] = ..., include: _Optional[_Union[Words, _Mapping]] = ..., at: _Optional[str] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "where", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: bytes
    at: str
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[bytes] = ..., at: _Optional[str] = ...) -> None: ...

class FacetRequest(_message.Message):
    __slots__ = ("collection", "field", "where", "limit", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    field: str
    where: bytes
    limit: int
    at: str
    def __init__(self, collection: _Optional[str] = ..., field: _Optional[str] = ..., where: _Optional[bytes] = ..., limit: _Optional[int] = ..., at: _Optional[str] = ...) -> None: ...

class MeasureRecallRequest(_message.Message):
    __slots__ = ("collection", "sample", "k", "where", "queries", "ef")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    collection: str
    sample: int
    k: int
    where: bytes
    queries: Vectors
    ef: int
    def __init__(self, collection: _Optional[str] = ..., sample: _Optional[int] = ..., k: _Optional[int] = ..., where: _Optional[bytes] = ..., queries: _Optional[_Union[Vectors, _Mapping]] = ..., ef: _Optional[int] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("collection", "size", "where", "include")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    size: int
    where: bytes
    include: Words
    def __init__(self, collection: _Optional[str] = ..., size: _Optional[int] = ..., where: _Optional[bytes] = ..., include: _Optional[_Union[Words, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("collection", "texts")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("collection", "records", "mode", "merge")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    records: _containers.RepeatedCompositeFieldContainer[RecordInput]
    mode: str
    merge: bool
    def __init__(self, collection: _Optional[str] = ..., records: _Optional[_Iterable[_Union[RecordInput, _Mapping]]] = ..., mode: _Optional[str] = ..., merge: _Optional[bool] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("collection", "changes")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, collection: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("collection", "metadata", "ids", "where", "merge")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    metadata: bytes
    ids: _containers.RepeatedCompositeFieldContainer[Id]
    where: bytes
    merge: bool
    def __init__(self, collection: _Optional[str] = ..., metadata: _Optional[bytes] = ..., ids: _Optional[_Iterable[_Union[Id, _Mapping]]] = ..., where: _Optional[bytes] = ..., merge: _Optional[bool] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "where")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedCompositeFieldContainer[Id]
    where: bytes
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[_Union[Id, _Mapping]]] = ..., where: _Optional[bytes] = ...) -> None: ...

class ReserveIdsRequest(_message.Message):
    __slots__ = ("collection", "count", "above")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    count: int
    above: int
    def __init__(self, collection: _Optional[str] = ..., count: _Optional[int] = ..., above: _Optional[int] = ...) -> None: ...

class FieldRequest(_message.Message):
    __slots__ = ("collection", "field")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    collection: str
    field: str
    def __init__(self, collection: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class NameRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("collection", "name", "since")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    since: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ..., since: _Optional[str] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("collection", "backups", "backup_of")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BACKUPS_FIELD_NUMBER: _ClassVar[int]
    BACKUP_OF_FIELD_NUMBER: _ClassVar[int]
    collection: str
    backups: _containers.RepeatedScalarFieldContainer[str]
    backup_of: str
    def __init__(self, collection: _Optional[str] = ..., backups: _Optional[_Iterable[str]] = ..., backup_of: _Optional[str] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("data", "collection", "format", "mode", "batch_size")
    DATA_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    collection: str
    format: str
    mode: str
    batch_size: int
    def __init__(self, data: _Optional[bytes] = ..., collection: _Optional[str] = ..., format: _Optional[str] = ..., mode: _Optional[str] = ..., batch_size: _Optional[int] = ...) -> None: ...

class JobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("collection", "deep")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DEEP_FIELD_NUMBER: _ClassVar[int]
    collection: str
    deep: bool
    def __init__(self, collection: _Optional[str] = ..., deep: _Optional[bool] = ...) -> None: ...

class JobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListCollectionsReply(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collections: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateCollectionReply(_message.Message):
    __slots__ = ("name", "dim", "space", "created")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    space: str
    created: bool
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., space: _Optional[str] = ..., created: _Optional[bool] = ...) -> None: ...

class CollectionReply(_message.Message):
    __slots__ = ("name", "dim", "space", "index", "embed", "count", "indexed_fields", "M", "ef_construction", "text_language")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EMBED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    M_FIELD_NUMBER: _ClassVar[int]
    EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    space: str
    index: str
    embed: str
    count: int
    indexed_fields: _containers.RepeatedScalarFieldContainer[str]
    M: int
    ef_construction: int
    text_language: str
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., space: _Optional[str] = ..., index: _Optional[str] = ..., embed: _Optional[str] = ..., count: _Optional[int] = ..., indexed_fields: _Optional[_Iterable[str]] = ..., M: _Optional[int] = ..., ef_construction: _Optional[int] = ..., text_language: _Optional[str] = ...) -> None: ...

class QueryReply(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: _containers.RepeatedCompositeFieldContainer[Found]
    def __init__(self, found: _Optional[_Iterable[_Union[Found, _Mapping]]] = ...) -> None: ...

class Found(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: Record
    def __init__(self, record: _Optional[_Union[Record, _Mapping]] = ...) -> None: ...

class ScanReply(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class CountReply(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class FacetReply(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[FacetValue]
    def __init__(self, values: _Optional[_Iterable[_Union[FacetValue, _Mapping]]] = ...) -> None: ...

class FacetValue(_message.Message):
    __slots__ = ("value", "count")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    count: int
    def __init__(self, value: _Optional[bytes] = ..., count: _Optional[int] = ...) -> None: ...

class IdsReply(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedCompositeFieldContainer[Id]
    def __init__(self, ids: _Optional[_Iterable[_Union[Id, _Mapping]]] = ...) -> None: ...

class DoneReply(_message.Message):
    __slots__ = ("done",)
    DONE_FIELD_NUMBER: _ClassVar[int]
    done: bool
    def __init__(self, done: _Optional[bool] = ...) -> None: ...

class EmbedReply(_message.Message):
    __slots__ = ("vectors",)
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    vectors: Vectors
    def __init__(self, vectors: _Optional[_Union[Vectors, _Mapping]] = ...) -> None: ...

class DocumentReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...
