"""Scans with a filter or in the order of a field, facets, and the ids that a filter selects: everything that reads
many records of one snapshot.

Where few records pass a filter, they are looked up and sorted; where many do, the index on ids is walked page by page.
An order by a field reads the metadata of all that pass once, and keeps one small key for each.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import orjson

from nopokedb.embedded.read_path import Position, ReadPath
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.engine import Order
from nopokedb.errors import InvalidInputError
from nopokedb.filters import Filter, Path, Scalar, elements_of, nodes_at, typed
from nopokedb.metadata_json import decode_metadata
from nopokedb.records import Id, Part, Record, check_id, id_order

_FEW = 16
"""Where less than one in so many labels passes, looking them up is cheaper than walking the index on ids."""
_PAGE = 512
_RANKS = {"number": 0, "str": 1, "bool": 2, "null": 3}
_MISSING = 3

T = TypeVar("T")
Read: TypeAlias = Callable[[Callable[[ReadPath], Any]], Any]
"""Runs a read on the stores that are open now, however often they are exchanged."""
Key: TypeAlias = tuple[int, Any]


def scan(
    read: Read,
    snapshot: Snapshot,
    where: Filter | None,
    order: Order | None,
    after: Id | str | None,
    limit: int | None,
    include: Sequence[Part],
) -> Iterator[Record]:
    """The records that pass, page by page, so that no read of the stores stays open between two of them."""
    if order is not None:
        return _in_order(read, snapshot, where, order, _decode_cursor(after), limit, include)
    if where is not None:
        few = read(lambda reads: reads.passing(snapshot, where).total) * _FEW < snapshot.label_count
        if few:
            return _few(read, snapshot, where, after, limit, include)
    return _pages(read, snapshot, where, after, limit, include)


def _pages(
    read: Read,
    snapshot: Snapshot,
    where: Filter | None,
    after: Id | None,
    limit: int | None,
    include: Sequence[Part],
) -> Iterator[Record]:
    # Behind every version of `after`: no label is as large.
    position: Position | None = None if after is None else (after, 2**62)
    while limit is None or limit > 0:
        page, position = read(
            partial(_page, snapshot=snapshot, where=where, position=position, limit=limit, include=include)
        )
        yield from page
        if position is None:
            return
        if limit is not None:
            limit -= len(page)


def _page(reads: ReadPath, **arguments: Any) -> Any:
    return reads.scan_page(**arguments)


def _few(
    read: Read, snapshot: Snapshot, where: Filter, after: Id | None, limit: int | None, include: Sequence[Part]
) -> Iterator[Record]:
    found: list[tuple[tuple[int, Any], int]] = read(
        lambda reads: [
            (id_order(item.id), item.label) for item in _stored(reads, reads.passing(snapshot, where).labels())
        ]
    )
    found.sort()
    first = 0 if after is None else bisect_right(found, (id_order(after), 2**62))
    labels = [label for _, label in found[first:]]
    yield from _by_labels(read, snapshot, labels[:limit], include)


def _by_labels(read: Read, snapshot: Snapshot, labels: list[int], include: Sequence[Part]) -> Iterator[Record]:
    for at in range(0, len(labels), _PAGE):
        page = labels[at : at + _PAGE]
        yield from read(partial(_records, snapshot=snapshot, labels=page, include=include))


def _records(reads: ReadPath, snapshot: Snapshot, labels: list[int], include: Sequence[Part]) -> list[Record]:
    return reads.records(snapshot, labels, include)


def _stored(reads: ReadPath, labels: Any) -> Iterator[Any]:
    """The verified versions with these labels; not kept in the cache, which is for answers."""
    for at in range(0, len(labels), _PAGE):
        yield from reads.reader.fetch_all(labels[at : at + _PAGE].tolist())


def _labels_of(reads: ReadPath, snapshot: Snapshot, where: Filter | None) -> Any:
    if where is None:
        return snapshot.live.members(0, snapshot.label_count)
    return reads.passing(snapshot, where).labels()


# --- the order of a field ---------------------------------------------------------------------------------


def _in_order(
    read: Read,
    snapshot: Snapshot,
    where: Filter | None,
    order: Order,
    after: tuple[Key, Id] | None,
    limit: int | None,
    include: Sequence[Part],
) -> Iterator[Record]:
    keyed: list[tuple[Key, Id, int]] = read(
        lambda reads: [
            (_key(order.path, item.id, item.metadata), item.id, item.label)
            for item in _stored(reads, _labels_of(reads, snapshot, where))
        ]
    )
    keyed.sort(key=lambda entry: id_order(entry[1]))
    present = [entry for entry in keyed if entry[0][0] != _MISSING]
    present.sort(key=lambda entry: entry[0], reverse=order.descending)  # ties stay in id order
    keyed = present + [entry for entry in keyed if entry[0][0] == _MISSING]
    if after is not None:
        keyed = [entry for entry in keyed if _behind(entry[0], entry[1], after, order.descending)]
    keyed = keyed[:limit]
    records = _by_labels(read, snapshot, [label for _, _, label in keyed], include)
    for record, (key, id_, _) in zip(records, keyed, strict=True):
        yield Record(record.id, record.metadata, record.vector, record.text, _encode_cursor(key, id_))


def _key(path: Path, id_: Id, metadata: bytes) -> Key:
    """What a record is sorted by: the kind and the value of the first value of the field."""
    nodes = [id_] if path is None else nodes_at(decode_metadata(metadata), path)
    for element in elements_of(nodes):
        found = typed(element)
        if found is not None and found[0] != "null":
            return _RANKS[found[0]], found[1]
    return _MISSING, 0


def _behind(key: Key, id_: Id, after: tuple[Key, Id], descending: bool) -> bool:
    mark, mark_id = after
    if key == mark:
        return id_order(id_) > id_order(mark_id)
    if _MISSING in (key[0], mark[0]):
        return key[0] == _MISSING
    return (key < mark) if descending else (key > mark)


def _encode_cursor(key: Key, id_: Id) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([*key, id_])).decode()


def _decode_cursor(cursor: Id | str | None) -> tuple[Key, Id] | None:
    if cursor is None:
        return None
    try:
        rank, value, id_ = orjson.loads(base64.urlsafe_b64decode(str(cursor)))
        kinds: dict[int, Any] = {0: (int, float), 1: str, 2: bool, 3: int}
        if not isinstance(value, kinds[rank]) or (rank != 2 and isinstance(value, bool)):
            raise ValueError("another kind of value")
        return (rank, value), check_id(id_)
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise InvalidInputError(
            f"expected after to be the cursor of a record from a scan with order_by, got {cursor!r:.80} ({error})"
        ) from None


# --- facets and selections --------------------------------------------------------------------------------


def facet(
    reads: ReadPath, snapshot: Snapshot, path: Path, where: Filter | None, limit: int
) -> list[tuple[Scalar, int]]:
    """How many records have each value."""
    labels = _labels_of(reads, snapshot, where)
    counts: Counter[tuple[str, Any]] = Counter()
    shown: dict[tuple[str, Any], Scalar] = {}
    grouped = None if path is None else reads.reader.groups(path, snapshot.label_count)
    if grouped is not None:
        wanted = np.zeros(snapshot.label_count, np.bool_)
        wanted[labels] = True
        for elements, group in grouped:
            number = int(np.count_nonzero(wanted[group]))
            if number:
                _count(elements, number, counts, shown)
    else:
        for item in _stored(reads, labels):
            nodes = [item.id] if path is None else nodes_at(decode_metadata(item.metadata), path)
            _count(list(elements_of(nodes)), 1, counts, shown)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], _RANKS[entry[0][0]], entry[0][1]))
    return [(shown[value], count) for value, count in ranked[:limit]]


def _count(
    elements: list[Any], number: int, counts: Counter[tuple[str, Any]], shown: dict[tuple[str, Any], Scalar]
) -> None:
    for value in {typed(element): element for element in elements}.items():
        found, element = value
        if found is not None and found[0] != "null":
            counts[found] += number
            shown.setdefault(found, element)


def selected_ids(reads: ReadPath, snapshot: Snapshot, where: Filter) -> list[Id]:
    """The ids of the records that pass; each record's bytes are verified, since something is done to them."""
    return [item.id for item in _stored(reads, reads.passing(snapshot, where).labels())]
