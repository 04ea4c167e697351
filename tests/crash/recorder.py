"""A file system in memory that writes down every change and every sync. Run as a program: mount point, trace.

Reads go through the kernel's page cache, so files can be mapped and SQLite's shared memory works; writes come through
at once (FUSE without writeback cache). The file called `marks` in the root takes what the workload says, so that
acknowledgements stand in the same order as the operations. SQLite's `-shm` is memory that happens to have a name: it is
kept and not written down.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mfusepy

from crash import trace
from crash.trace import Op

ROOT = 1
MARKS = "marks"
FAIL = b"fail "
"""A mark of the workload that begins so has the n-th sync from then on fail."""


@dataclass(slots=True)
class _Inode:
    number: int
    children: dict[str, _Inode] | None = None
    data: bytearray = field(default_factory=bytearray)
    recorded: bool = True


class Recorder(mfusepy.Operations):
    """Files by their number; the number is the handle too, so an unlinked file that is still open keeps working."""

    use_ns = True

    def __init__(self, file: Any) -> None:
        self._file = file
        self._inodes = {ROOT: _Inode(ROOT, {})}
        self._mark = b""
        """The beginning of a mark: the kernel hands a long write over in parts."""
        self._syncs_left: int | None = None
        """So many syncs from now one fails, once."""

    def init_with_config(self, connection: Any, config: Any) -> None:
        config.hard_remove = 1  # an unlink is an unlink, also of an open file
        config.kernel_cache = 1  # nobody else changes the files: cached pages stay right
        config.use_ino = 1
        print("mounted", flush=True)

    def _record(self, op: Op) -> None:
        if op.inode == 0 or self._inodes[op.inode].recorded:
            trace.append(self._file, op)

    def _find(self, path: str) -> _Inode:
        inode = self._inodes[ROOT]
        for name in path.strip("/").split("/"):
            if name:
                if inode.children is None or name not in inode.children:
                    raise mfusepy.FuseOSError(errno.ENOENT)
                inode = inode.children[name]
        return inode

    def _place(self, path: str) -> tuple[_Inode, dict[str, _Inode], str]:
        folder, _, name = path.rpartition("/")
        parent = self._find(folder)
        if parent.children is None:
            raise mfusepy.FuseOSError(errno.ENOTDIR)
        return parent, parent.children, name

    def _make(self, path: str, kind: str) -> _Inode:
        parent, children, name = self._place(path)
        inode = _Inode(len(self._inodes) + 1, {} if kind == "mkdir" else None)
        inode.recorded = not name.endswith("-shm") and path != f"/{MARKS}"
        self._inodes[inode.number] = children[name] = inode
        self._record(Op(kind, inode.number, parent.number, name))
        return inode

    # --- names ---------------------------------------------------------------------------------------------

    def create(self, path: str, mode: int, flags: int) -> int:
        return self._make(path, "create").number

    def mkdir(self, path: str, mode: int) -> int:
        self._make(path, "mkdir")
        return 0

    def unlink(self, path: str) -> int:
        parent, children, name = self._place(path)
        if name not in children:
            raise mfusepy.FuseOSError(errno.ENOENT)
        self._record(Op("unlink", children.pop(name).number, parent.number, name))
        return 0

    def link(self, target: str, source: str) -> int:
        parent, children, name = self._place(target)
        if name in children:
            raise mfusepy.FuseOSError(errno.EEXIST)
        inode = children[name] = self._find(source)
        self._record(Op("link", inode.number, parent.number, name))
        return 0

    def rmdir(self, path: str) -> int:
        if self._find(path).children:
            raise mfusepy.FuseOSError(errno.ENOTEMPTY)
        return self.unlink(path)

    def rename(self, old: str, new: str) -> int:
        parent, children, name = self._place(old)
        new_parent, new_children, new_name = self._place(new)
        inode = children.pop(name)
        new_children[new_name] = inode
        if parent is new_parent:
            self._record(Op("rename", inode.number, parent.number, name, new_name))
        else:
            self._record(Op("link", inode.number, new_parent.number, new_name))
            self._record(Op("unlink", inode.number, parent.number, name))
        return 0

    # --- bytes ---------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        inode = self._find(path)
        if flags & os.O_TRUNC:
            self.truncate(path, 0, inode.number)
        return inode.number

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._inodes[fh].data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        inode = self._inodes[fh]
        inode.data.extend(bytes(max(0, offset - len(inode.data))))
        inode.data[offset : offset + len(data)] = data
        if path == f"/{MARKS}":
            *marks, self._mark = (self._mark + data).split(b"\n")
            for mark in marks:
                self._record(Op("mark", data=mark))
                if mark.startswith(FAIL):
                    self._syncs_left = int(mark[len(FAIL) :])
        for at, piece in trace.pieces(offset, data):
            self._record(Op("write", fh, offset=at, data=piece))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        inode = self._inodes[fh] if fh else self._find(path)
        if length != len(inode.data):
            del inode.data[length:]
            inode.data.extend(bytes(length - len(inode.data)))
            self._record(Op("truncate", inode.number, offset=length))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return self._sync("fsync", fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return self._sync("fsyncdir", self._find(path).number)

    def _sync(self, kind: str, number: int) -> int:
        if self._syncs_left is not None:
            self._syncs_left -= 1
            if self._syncs_left == 0:
                self._syncs_left = None
                self._record(Op("failed", number))
                raise mfusepy.FuseOSError(errno.EIO)
        self._record(Op(kind, number))
        return 0

    # --- the rest of a file system ---------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        inode = self._inodes[fh] if fh else self._find(path)
        mode = stat.S_IFREG | 0o644 if inode.children is None else stat.S_IFDIR | 0o755
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        return {"st_mode": mode, "st_ino": inode.number, "st_nlink": 1, "st_size": len(inode.data), **owner}

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        # With numbers: an entry with number 0 passes for a removed one.
        entries = {".": self._find(path), **(self._find(path).children or {})}
        return [(name, {"st_ino": inode.number}, 0) for name, inode in entries.items()]

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        return 0


def main() -> None:
    """Serve until unmounted, then leave the trace behind."""
    with Path(sys.argv[2]).open("wb") as file:
        mfusepy.FUSE(Recorder(file), sys.argv[1], foreground=True, nothreads=True)


if __name__ == "__main__":
    main()
