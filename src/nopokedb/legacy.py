"""Folders of the original nopokedb (up to 0.5.1): reading them without its code or its index library.

    hnsw_index.bin   the vectors, as hnswlib 0.7 and 0.8 save an index. Written by `save` and `close` only
    metadata.db      SQLite, table metadata(id INTEGER PRIMARY KEY, data TEXT as JSON), committed at once
    oplog.jsonl      {"t": "add", "id", "vec", "md"} per line: adds that were under way when the process stopped

The index file's layout stands in moving/hnswlib_file.py. Nothing in it is believed.

What counts as a record: an id with a vector and metadata. The operation log fills in what the index or the metadata
lack, as the original's own replay did. A vector without metadata is most likely a deleted record, since deletions
reached the metadata at once and the index only with `save`; it is left out unless asked for. Metadata without a vector
belong to records whose vectors the original lost with its process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.database import NoPokeDB
from nopokedb.errors import ArchiveError, InvalidInputError
from nopokedb.metadata_json import encode_metadata
from nopokedb.moving.hnswlib_file import HEADER, read_head
from nopokedb.moving.origin import damaged, open_sqlite
from nopokedb.opening import resolve_folder
from nopokedb.records import Id, Space, Vectors, check_choice, check_id, check_vector

INDEX_NAME, METADATA_NAME, LOG_NAME = "hnsw_index.bin", "metadata.db", "oplog.jsonl"
_UNIT_SLACK = 1e-3
"""How far a stored unit vector may be from length 1 (hnswlib divides in float32)."""
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class LegacyIndex:
    """The content of an index file."""

    dim: int
    M: int
    ef_construction: int
    vectors: dict[int, Vectors]
    """By id; deleted ones left out."""
    deleted: frozenset[int]


@dataclass(slots=True)
class LegacyReport:
    """What an import found and did. Ids are those of the original and of the new collection alike."""

    source: str
    dim: int = 0
    space: str = ""
    imported: int = 0
    from_log: int = 0
    """Of these: records whose vector or metadata only the operation log had."""
    deleted: int = 0
    """Vectors that the index marks as deleted."""
    without_metadata: list[int] = field(default_factory=list)
    """Ids with a vector and no metadata: most likely deleted."""
    without_vector: list[int] = field(default_factory=list)
    """Ids whose vector the original lost."""
    refused: dict[str, str] = field(default_factory=dict)
    """Records that cannot be stored here, and why."""
    log_lines_skipped: int = 0
    """Lines of the operation log that are cut or are no adds."""
    dry_run: bool = False


def read_index(path: Path) -> LegacyIndex:
    """The index file, every size in it checked. Raises `ArchiveError`."""
    # Read, not mapped: a file that is shortened meanwhile would kill the process.
    data = path.read_bytes()
    head = read_head(path, data)
    end = HEADER.itemsize + head.count * head.width
    if end > len(data):
        message = f"expected {head.count} elements of {head.width} bytes, but the file ends early"
        raise damaged(path, message, len(data))
    elements = np.frombuffer(data, head.element(), head.count, HEADER.itemsize)
    _check_higher_levels(path, data, end, head.count, 4 * head.M + 4)
    labels = elements["label"].tolist()
    if len(set(labels)) != len(labels):
        raise damaged(path, "an id stands in it twice", HEADER.itemsize)
    gone = (elements["mark"] & 1).astype(bool).tolist()
    vectors = elements["vector"]
    return LegacyIndex(
        head.dim,
        head.M,
        head.ef_construction,
        {label: vectors[at] for at, label in enumerate(labels) if not gone[at]},
        frozenset(label for label, dead in zip(labels, gone, strict=True) if dead),
    )


def _check_higher_levels(path: Path, data: bytes, at: int, count: int, width: int) -> None:
    """Step over the links of the higher levels; they end where the file ends."""
    for _ in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or length % width or length > len(data) - at - 4:
            raise damaged(path, "the links of an element do not fit into the file", at)
        at += 4 + length
    if at != len(data):
        raise damaged(path, f"{len(data) - at} bytes stand behind the last element", at)


def read_metadata(path: Path) -> Iterator[tuple[int, Any]]:
    """(id, what its JSON says), in id order. Raises `ArchiveError`."""
    import apsw

    with ExitStack() as opened:
        connection = open_sqlite(path, opened)
        try:
            kind = connection.execute("SELECT type FROM sqlite_schema WHERE name='metadata'").fetchone()
            if kind is None or kind[0] != "table":
                raise damaged(path, "expected the table metadata, found none")
            rows = connection.execute("SELECT id, data FROM metadata ORDER BY id")
            while (row := rows.fetchone()) is not None:
                id_, text = row
                if not isinstance(id_, int):
                    raise damaged(path, f"expected ids that are ints, got {id_!r:.80}")
                try:
                    value = json.loads(text) if isinstance(text, str) else text
                except (ValueError, RecursionError):
                    value = ValueError("its metadata are no JSON")
                yield id_, value
        except (apsw.Error, UnicodeDecodeError) as error:
            raise damaged(path, f"SQLite cannot read it: {error}") from None


def read_log(path: Path) -> tuple[dict[int, tuple[Any, Any]], int]:
    """By id the vector and the metadata of each add in the operation log, and how many lines are no such thing."""
    found: dict[int, tuple[Any, Any]] = {}
    skipped = 0
    for raw in path.read_bytes().split(b"\n"):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
            id_ = line["id"]
            good = line["t"] == "add" and type(id_) is int and isinstance(line["vec"], list)
            vector, metadata = line["vec"], line.get("md")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            good = False
        if good:
            found[id_] = (vector, {} if metadata is None else metadata)
        else:
            skipped += 1
    return found, skipped


def import_legacy(
    source: str | Path,
    path: str | Path,
    *,
    space: Space = "cosine",
    keep_bare: bool = False,
    dry_run: bool = False,
) -> LegacyReport:
    """Make a collection in the empty or absent folder `path` of a folder of the original package; all or nothing.

    Args:
        space: what the original was opened with: its files do not say. Vectors that cannot be of "cosine" are noticed.
        keep_bare: import vectors without metadata too, with `{}`.
        dry_run: read and check everything and write nothing.

    Raises: `ArchiveError` if the folder is none of the original's, or is damaged; `InvalidInputError` for wrong
    arguments.
    """
    from nopokedb.embedded.new_folder import built_beside, require_empty

    check_choice("space", space, Space)
    folder, target = resolve_folder(source, None), resolve_folder(path, None)
    require_empty(target, "import")
    report = LegacyReport(str(folder), space=space, dry_run=dry_run)
    index, records = collect(folder, space, keep_bare, report)
    report.imported = len(records)
    if dry_run:
        return report
    if not report.dim:
        raise ArchiveError(f"expected vectors in {folder}, found none: there is nothing to import", file=str(folder))
    with built_beside(target, "importing") as building:
        _write(building, index, records, report)
    return report


def collect(
    folder: Path, space: str, keep_bare: bool, report: LegacyReport
) -> tuple[LegacyIndex | None, dict[int, tuple[Vectors, Mapping[str, Any]]]]:
    """Every record that can be imported, in id order; what cannot goes into the report."""
    if not any((folder / name).is_file() for name in (INDEX_NAME, METADATA_NAME, LOG_NAME)):
        raise ArchiveError(f"expected a folder of the original nopokedb, found none of its files in {folder}",
                           file=str(folder))  # fmt: skip
    index = read_index(folder / INDEX_NAME) if (folder / INDEX_NAME).is_file() else None
    metadata: dict[int, Any] = {}
    if (folder / METADATA_NAME).is_file():
        metadata = dict(read_metadata(folder / METADATA_NAME))
    logged: dict[int, tuple[Any, Any]] = {}
    if (folder / LOG_NAME).is_file():
        logged, report.log_lines_skipped = read_log(folder / LOG_NAME)
    if index is not None:
        report.dim, report.deleted = index.dim, len(index.deleted)
        _check_space(folder, index, space)
    elif logged:
        report.dim = len(next(iter(logged.values()))[0])
    records: dict[int, tuple[Vectors, Mapping[str, Any]]] = {}
    indexed = index.vectors if index is not None else {}
    for id_ in sorted({*indexed, *metadata, *logged}):
        vector, value = indexed.get(id_), metadata.get(id_)
        in_log = id_ in logged and (vector is None or id_ not in metadata)
        if in_log:
            # Without metadata the index may still have the vector of a deleted record whose id was used again.
            vector = logged[id_][0] if vector is None or id_ not in metadata else vector
            value = logged[id_][1] if id_ not in metadata else value
        elif id_ not in metadata:
            report.without_metadata.append(id_)
            if not keep_bare:
                continue
            value = {}
        if vector is None:
            report.without_vector.append(id_)
            continue
        try:
            records[id_] = _checked(id_, vector, value, report.dim, space)
        except (InvalidInputError, ValueError) as error:
            report.refused[str(id_)] = str(error)
            continue
        report.from_log += in_log
    return index, records


def _checked(id_: int, vector: Any, value: Any, dim: int, space: str) -> tuple[Vectors, Mapping[str, Any]]:
    """The record as it can be stored, or an error that says why not."""
    if isinstance(value, ValueError):
        raise value
    check_id(id_)
    encode_metadata(value)
    checked = check_vector(vector, dim, space)
    return checked, {} if value is None else value


def _check_space(folder: Path, index: LegacyIndex, space: str) -> None:
    """Vectors of a cosine index have length 1."""
    if space != "cosine" or not index.vectors:
        return
    sample = np.stack(list(index.vectors.values())).astype(np.float64)
    with np.errstate(all="ignore"):  # a damaged one may hold anything; it is refused by itself later
        lengths = np.sqrt((sample * sample).sum(axis=1))
    unit = np.abs(lengths - 1) <= _UNIT_SLACK
    if np.count_nonzero(unit | (lengths == 0)) * 2 < len(lengths):
        raise ArchiveError(
            f"expected vectors of length 1, as an index under 'cosine' has them, got a median length of "
            f"{np.median(lengths):g} in {folder}; the original was opened with another space: give it (l2 or ip)",
            file=str(folder / INDEX_NAME),
        )
    for at, id_ in enumerate(list(index.vectors)):
        if not unit[at] and lengths[at]:
            index.vectors[id_] = np.full(index.dim, np.nan, np.float32)  # damaged: refused with its id


def _write(
    folder: Path,
    index: LegacyIndex | None,
    records: dict[int, tuple[Vectors, Mapping[str, Any]]],
    report: LegacyReport,
) -> None:
    # The graph parameters too, so that scripts that name them go on to open the collection.
    m = index.M if index is not None and 2 <= index.M <= 256 else 16
    ef_construction = index.ef_construction if index is not None and 1 <= index.ef_construction <= 10_000 else 200
    space: Any = report.space
    with NoPokeDB(report.dim, None, folder, space, m, ef_construction, durability="os") as db:
        ids: list[Id] = list(records)
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            vectors = np.stack([records[id_][0] for id_ in part])  # type: ignore[index]
            db.add_many(vectors, [records[id_][1] for id_ in part], ids=part)  # type: ignore[index]
