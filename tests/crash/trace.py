"""What the recording file system wrote down: one operation after the other, in the order in which they were asked for.

File: per operation u32 length of its JSON, u32 length of its data, the JSON, the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

_LENGTHS = struct.Struct("<II")
PIECES = 4
PAGE_BYTES = 4096
"""A write longer than a page is written down as up to `PIECES` of them, cut where pages end: a disk may keep any."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Files and folders are numbers (inodes); names are entries of a folder.

    create, mkdir    name in folder -> inode
    link, unlink     name in folder -> inode; a rename between two folders is a link and an unlink
    rename           name in folder becomes new_name there
    write            data at offset of inode
    truncate         inode gets offset bytes
    fsync, fsyncdir  inode
    failed           inode: a sync that said EIO
    mark             the workload says data
    """

    kind: str
    inode: int = 0
    folder: int = 0
    name: str = ""
    new_name: str = ""
    offset: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        what = f"{self.kind} #{self.inode}"
        if self.kind == "mark":
            return f"mark {self.data.decode()[:80]}"
        if self.kind == "write":
            return f"{what} {len(self.data)} bytes at {self.offset}"
        if self.kind == "truncate":
            return f"{what} to {self.offset}"
        return f"{what} {self.name} {self.new_name}".rstrip()


def append(file: BinaryIO, op: Op) -> None:
    """Write one operation down."""
    fields = {name: value for name, value in asdict(op).items() if value and name != "data"}
    head = json.dumps(fields).encode()
    file.write(_LENGTHS.pack(len(head), len(op.data)) + head + op.data)


def write(path: Path, ops: Iterable[Op]) -> None:
    """A trace file."""
    with path.open("wb") as file:
        for op in ops:
            append(file, op)


def read(path: Path) -> list[Op]:
    """All operations of a trace."""
    return list(_parse(path.read_bytes()))


def _parse(data: bytes) -> Iterator[Op]:
    at = 0
    while at < len(data):
        head, body = _LENGTHS.unpack_from(data, at)
        at += _LENGTHS.size
        fields = json.loads(data[at : at + head])
        at += head
        yield Op(**fields, data=data[at : at + body])
        at += body


def pieces(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """A write as the parts that a disk may keep one without the other."""
    size = max(PAGE_BYTES, -(-len(data) // PIECES // PAGE_BYTES) * PAGE_BYTES)
    start = 0
    while start < len(data):
        stop = min(len(data), start + size - (offset + start) % PAGE_BYTES)
        yield offset + start, data[start:stop]
        start = stop
