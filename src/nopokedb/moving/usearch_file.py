"""Index files of USearch 2, read without its code. Little-endian:

    u32 vectors, u32 bytes of one; the vectors
    head, 64 bytes: "usearch", u16[3] version, u8 metric, u8 kind of scalars, u8 kind of keys, u8 kind of numbers,
        u64 keys, u64 deleted, u64 dim, u8 1 if keys come more than once
    u64 nodes, u64 M, u64 links at level 0, u64 highest level, u64 entry
    i16[nodes] levels
    nodes, each: u64 key, i16 level, u32 and u32[links at level 0], then for each level u32 and u32[M]

A vector of a removed key stays, under the largest number there is. Only float32 is read: of narrower kinds what was
given is not in the file.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb.errors import ArchiveError
from nopokedb.moving.origin import LOST, BareIndex, damaged
from nopokedb.records import MAX_DIM, Space

_HEAD = struct.Struct("<7s3H4BQQQB")
_HEAD_BYTES = 64
_GRAPH = struct.Struct("<5Q")
_METRICS: dict[str, Space] = {"c": "cosine", "i": "ip", "e": "l2"}
_FLOAT32, _KEYS = 11, 14
_REMOVED = 2**64 - 1


def open_usearch(path: Path, space: Space | None) -> BareIndex:
    """A file that `usearch.index.Index.save` wrote."""
    size = path.stat().st_size
    with path.open("rb") as file:
        count, width = _unpack(struct.Struct("<II"), file.read(8), path)
        after = 8 + count * width
        if after + _HEAD_BYTES + _GRAPH.size > size:
            raise damaged(path, f"expected {count} vectors of {width} bytes, but the file ends early")
        file.seek(after)
        head = _unpack(_HEAD, file.read(_HEAD_BYTES)[: _HEAD.size], path)
        magic, version, metric, scalars, keys, dim, multiple = (*head[:2], *head[4:7], head[10], head[11])
        if magic != b"usearch" or version != 2:
            raise damaged(path, "expected a file of USearch 2, got something else", after)
        if scalars != _FLOAT32 or width != 4 * dim:
            raise ArchiveError(
                f"expected vectors of float32, got USearch's kind {scalars} in {path}: {LOST}",
                file=str(path),
                offset=after,
            )
        own = _METRICS.get(chr(metric))
        if own is None or keys != _KEYS or multiple or not 1 <= dim <= MAX_DIM:
            raise damaged(path, f"expected cos, ip or l2sq and one vector for each int, got {head}", after)
        nodes, m, m0, _, _ = _unpack(_GRAPH, file.read(_GRAPH.size), path)
        start = after + _HEAD_BYTES + _GRAPH.size
        if nodes != count or start + 2 * nodes > size:
            raise damaged(path, f"expected {count} nodes, got {nodes}", start)
        levels = np.frombuffer(file.read(2 * nodes), "<i2").astype(np.int64)
        lengths = 14 + 4 * m0 + levels * (4 + 4 * m)
        if m > 2**16 or m0 > 2**16 or (levels < 0).any() or start + 2 * nodes + int(lengths.sum()) != size:
            raise damaged(path, "its nodes do not fit into the file", start)
        offsets: dict[int, int] = {}
        at = start + 2 * nodes
        for number, length in enumerate(lengths.tolist()):
            file.seek(at)
            key = int.from_bytes(file.read(8), "little")
            at += length
            if key in offsets:
                raise damaged(path, f"the key {key} stands in it twice", at)
            if key != _REMOVED:
                offsets[key] = 8 + number * width
    return BareIndex("usearch", path, dim, space or own, offsets)


def _unpack(layout: struct.Struct, data: bytes, path: Path) -> tuple[Any, ...]:
    if len(data) != layout.size:
        raise damaged(path, "the file ends early")
    return layout.unpack(data)
