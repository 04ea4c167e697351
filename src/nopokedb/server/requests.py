"""What operations are asked: one dataclass per request, the same for every transport.

Only the names of fields are checked here; the library judges the values, so every surface refuses alike. Annotations
and docstrings become the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar

from nopokedb.errors import InvalidInputError
from nopokedb.records import Id, IndexKind, Part, Space, shown


@dataclass(frozen=True, slots=True)
class Packed:
    """Little-endian float32 in base64: a vector, or several one behind the other."""

    base64: str


Vector: TypeAlias = list[float] | Packed
Filter: TypeAlias = dict[str, Any]
VectorFormat: TypeAlias = Literal["list", "base64"]
R = TypeVar("R")


@dataclass(slots=True)
class CreateCollection:
    """Settings of a collection. If it exists with these settings, nothing happens."""

    dim: int | None = None
    """Components of a vector; may be left out with `embed`."""
    space: Space = "cosine"
    M: int = 16
    ef_construction: int = 200
    index: IndexKind = "auto"
    indexed_fields: list[str] | tuple[str, ...] = ()
    text_language: str = "en"
    embed: str | None = None
    """Name of a model of the server that turns texts into vectors."""
    durability: Literal["full"] = "full"
    """A server syncs each batch before it answers."""
    max_elements: int | None = None


@dataclass(slots=True)
class RecordInput:
    """One record to write."""

    id: Id | None = None
    """An int of 64 bits or a str; without, the next automatic int."""
    vector: Vector | None = None
    metadata: dict[str, Any] | None = None
    text: str | None = None


@dataclass(slots=True)
class WriteRecords:
    """Records to write, in one atomic batch."""

    records: list[RecordInput]
    mode: Literal["insert", "upsert"] = "insert"
    """"insert" refuses ids that exist; "upsert" adds records, or replaces the parts that are given."""
    merge: bool = False
    """With "upsert": metadata are merge patches (RFC 7396)."""


@dataclass(slots=True)
class UpdateRecords:
    """Change the metadata of these records, or of all that pass the filter."""

    metadata: dict[str, Any]
    ids: list[Id] | None = None
    where: Filter | None = None
    merge: bool = True
    """`metadata` is a merge patch (RFC 7396), not the new metadata."""


@dataclass(slots=True)
class DeleteRecords:
    """Delete these records, or all that pass the filter: exactly one of both."""

    ids: list[Id] | None = None
    where: Filter | None = None


@dataclass(slots=True)
class Change:
    """One part of a batch."""

    op: Literal["add", "upsert", "delete"]
    id: Id | None = None
    vector: Vector | None = None
    metadata: dict[str, Any] | None = None
    text: str | None = None
    merge: bool = False


@dataclass(slots=True)
class WriteBatch:
    """Changes of several kinds, in one atomic batch."""

    changes: list[Change]


@dataclass(slots=True)
class ReserveIds:
    """Automatic ids that nobody else gets."""

    count: int = 1
    above: int = -1
    """Smaller than all of them."""


@dataclass(slots=True)
class GetRecords:
    """The records of these ids, in order, null where there is none."""

    ids: list[Id]
    include: list[Part] | tuple[Part, ...] = ("metadata",)
    vector_format: VectorFormat = "list"
    at: str | None = None
    """Name of a snapshot to read."""


@dataclass(slots=True)
class Query:
    """The k best records by vector, by text, or by both; for `vectors` one answer each."""

    vector: Vector | str | None = None
    """Or a text, which the collection's model turns into one."""
    vectors: list[list[float]] | list[str] | Packed | None = None
    k: int = 5
    ef: int | None = None
    text: str | list[str] | None = None
    where: Filter | None = None
    target_recall: float | None = None
    max_distance: float | None = None
    like: list[Id] | None = None
    unlike: list[Id] | None = None
    fusion: Literal["rrf", "weighted"] = "rrf"
    alpha: float = 0.5
    diversity: float | None = None
    group_by: str | None = None
    group_size: int = 1
    highlight: bool = False
    include: list[Part] | tuple[Part, ...] = ("metadata",)
    vector_format: VectorFormat = "list"
    at: str | None = None
    """Name of a snapshot to read."""


@dataclass(slots=True)
class Scan:
    """One page of the records that pass the filter, in order."""

    where: Filter | None = None
    order_by: str | None = None
    """A field; `-` in front for descending. Without: by id."""
    after: Id | None = None
    """The last id of the page before; with `order_by` its last `cursor`."""
    limit: int = 100
    include: list[Part] | tuple[Part, ...] = ("metadata",)
    vector_format: VectorFormat = "list"
    at: str | None = None
    """Name of a snapshot to read."""


@dataclass(slots=True)
class ScanAll:
    """All records that pass the filter, as a stream of one state of the collection."""

    where: Filter | None = None
    order_by: str | None = None
    """A field; `-` in front for descending. Without: by id."""
    after: Id | None = None
    """An id, or with `order_by` a `cursor`, behind which to begin."""
    limit: int | None = None
    include: list[Part] | tuple[Part, ...] = ("metadata",)
    vector_format: VectorFormat = "list"
    at: str | None = None
    """Name of a snapshot to read."""


@dataclass(slots=True)
class Count:
    """How many records there are, or pass the filter."""

    where: Filter | None = None
    at: str | None = None
    """Name of a snapshot to read."""


@dataclass(slots=True)
class Facet:
    """How many records have each value of a field."""

    field: str
    where: Filter | None = None
    limit: int = 100
    at: str | None = None
    """Name of a snapshot to read."""


@dataclass(slots=True)
class MeasureRecall:
    """Recall of default queries against exact search."""

    sample: int = 200
    k: int = 10
    where: Filter | None = None
    queries: list[list[float]] | Packed | None = None
    ef: int | None = None
    """Candidates of a query; without, as many as default queries take."""


@dataclass(slots=True)
class Sample:
    """Records that pass the filter, chosen by chance, in no order."""

    size: int = 100
    """How many, at most."""
    where: Filter | None = None
    include: list[Part] | tuple[Part, ...] = ("metadata",)
    vector_format: VectorFormat = "list"


@dataclass(slots=True)
class Texts:
    """Texts for the collection's model to turn into vectors."""

    texts: list[str]


@dataclass(slots=True)
class Field:
    """A field of the metadata."""

    field: str


@dataclass(slots=True)
class Name:
    """The name of a snapshot."""

    name: str


@dataclass(slots=True)
class Nothing:
    """An operation that is asked nothing more."""


@dataclass(slots=True)
class Backup:
    """Write a backup into the server's folder of backups."""

    name: str
    """A name, never a path."""
    since: str | None = None
    """Name of an earlier backup: only what changed since."""


@dataclass(slots=True)
class Restore:
    """Make a collection of backups in the server's folder: a full one, then those that continue it, in order."""

    backups: list[str]
    """Names, never paths."""
    backup_of: str | None = None
    """Name of the collection that was backed up, if it is another than the one to be made."""


@dataclass(slots=True)
class Check:
    """Compare what is stored with its checksums and with everything else."""

    deep: bool = True


def build(kind: type[R], values: object, where: str = "the body") -> R:
    """The request of that kind; its fields are known, and those without a default are there."""
    if not isinstance(values, Mapping):
        raise InvalidInputError(f"expected {where} to be a JSON object, got {_json_type(values)}")
    try:
        return kind(**values)
    except TypeError:
        known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise InvalidInputError(
                    f"expected only the fields {', '.join(known)} in {where}, got {name!r:.80}"
                ) from None
        missing = [name for name, item in known.items() if name not in values and _needed(item)]
        raise InvalidInputError(f"expected {', '.join(missing)} in {where}, got none") from None


def flag(name: str, value: object) -> bool:
    """A boolean; "false" and 0 are none."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"expected {name} to be true or false, got {shown(value)}")
    return value


def _needed(item: Any) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _json_type(value: object) -> str:
    names = {
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
