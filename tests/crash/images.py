"""From operations to folders: what a disk may hold after a power cut.

A disk keeps everything that was synced, and of the rest any part. What a sync covers is the difference of the models:

    ordered   a sync of any file or folder makes all earlier names durable, as the journals of ext4 and XFS do
    strict    a name is durable once the folder that holds it was synced, as POSIX says

A `Disk` follows the operations. What is durable is folded into `base`; the rest waits in `loose`, in order. A sync that
failed dooms the bytes it should have written: the kernel may have dropped them, and later syncs succeed without them,
until somebody writes the same place again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from crash.trace import Op

MODELS = ("ordered", "strict")
WINDOW = 12
"""So many of the last operations that were not synced are dropped, and kept, one by one."""
SUBSETS = 4
"""Random parts of what was not synced, per point."""
_NAMES = frozenset(("create", "mkdir", "link", "unlink", "rename"))
_TORN = (1, 512)
_ROOT = 1
_VERSIONS = 64
"""Contents of one file that are remembered; neighbouring images share most of theirs."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file of an image."""

    data: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """One folder that may be left."""

    kind: str
    """How it was made, enough to make it again at the same point."""
    files: dict[str, Content | None]
    """By path; None is a folder."""
    digest: str

    def write(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir()
        for name, content in sorted(self.files.items()):
            if content is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content.data)


Loose = list[tuple[int, Op]]
"""Operations with their numbers."""


@dataclass(slots=True)
class _File:
    base: bytearray = field(default_factory=bytearray)
    version: int = 0
    seen: dict[tuple[object, ...], Content] = field(default_factory=dict)


class Disk:
    """One model of a disk, told one operation after the other."""

    def __init__(self, model: str) -> None:
        assert model in MODELS
        self._ordered = model == "ordered"
        self._files: dict[int, _File] = {}
        self._folders: dict[int, dict[str, int]] = {_ROOT: {}}
        self.loose: Loose = []
        self._doomed: set[int] = set()
        """Operations that no sync makes durable any more."""

    def tell(self, number: int, op: Op) -> None:
        """The next operation was done."""
        if op.kind == "fsync":
            self._settle(lambda o: o.inode == op.inode if o.kind not in _NAMES else self._ordered)
        elif op.kind == "fsyncdir":
            self._settle(lambda o: o.kind in _NAMES and (self._ordered or o.folder == op.inode))
        elif op.kind == "failed":
            self._doomed.update(at for at, o in self.loose if o.inode == op.inode and o.kind == "write")
        elif op.kind != "mark":
            self.loose.append((number, op))

    def settle_all(self) -> None:
        """Everything so far is durable: the start of a recovery from a given folder."""
        self._settle(lambda o: True)

    def _settle(self, covered: object) -> None:
        assert callable(covered)
        rest: Loose = []
        for number, op in self.loose:
            if number in self._doomed or not covered(op):
                rest.append((number, op))
            elif op.kind in _NAMES:
                _name(self._folders, op)
            else:
                file = self._files.setdefault(op.inode, _File())
                _change(file.base, op, "")
                if self._doomed:
                    rest = [(at, part) for at, o in rest for part in (_outside(o, op) if at in self._doomed else (o,))]
                file.version += 1
                file.seen.clear()
        self.loose = rest

    def image(self, kind: str, kept: Iterable[tuple[int, Op]], root: str, odd: dict[int, str] | None = None) -> Image:
        """The folder `root` with what is durable and these operations; `odd` ones are done in a special way."""
        folders = self._folders
        changes: dict[int, Loose] = {}
        copied = False
        for number, op in kept:
            if op.kind in _NAMES:
                if not copied:
                    folders = {inode: dict(names) for inode, names in folders.items()}
                    copied = True
                _name(folders, op)
            else:
                changes.setdefault(op.inode, []).append((number, op))
        files: dict[str, Content | None] = {}
        if (top := folders[_ROOT].get(root)) is not None:
            for path, inode in _walk(folders, top):
                files[path] = None if inode in folders else self._content(inode, changes.get(inode, []), odd or {})
            files = dict(sorted(files.items()))
        total = hashlib.blake2b(digest_size=12)
        total.update(b"there" if top is not None else b"absent")
        for path, content in files.items():
            total.update(path.encode() + b"\0" + (content.digest if content else b"/"))
        return Image(kind, files, total.hexdigest())

    def _content(self, inode: int, changes: Loose, odd: dict[int, str]) -> Content:
        file = self._files.setdefault(inode, _File())
        key = (file.version, *((number, odd.get(number, "")) for number, _ in changes))
        found = file.seen.get(key)
        if found is None:
            data = bytearray(file.base)
            for number, op in changes:
                _change(data, op, odd.get(number, ""))
            found = Content(bytes(data), hashlib.blake2b(data, digest_size=12).digest())
            if len(file.seen) >= _VERSIONS:
                file.seen.pop(next(iter(file.seen)))
            file.seen[key] = found
        return found

    def images(self, number: int, root: str, seed: int) -> Iterator[Image]:
        """Every image of this point, which is the one after operation `number`; some are equal."""
        loose = self.loose
        yield self.image("all", loose, root)
        if not loose:
            return
        yield self.image("synced", (), root)
        for at, _ in _window(loose):
            yield self.image(f"drop:{at}", [item for item in loose if item[0] != at], root)
            yield self.image(f"keep:{at}", [item for item in loose if item[0] == at], root)
        yield self.image("sizes", loose, root, {at: "size" for at, op in loose if op.kind == "write"})
        at, last = loose[-1]
        if last.kind == "write":
            lengths = {*_TORN, len(last.data) // 2, len(last.data) - 1}
            for length in sorted(n for n in lengths if 0 < n < len(last.data)):
                yield self.image(f"torn:{length}", loose, root, {at: f"{length}"})
        for subset in range(SUBSETS):
            dice = random.Random(f"{seed}/{number}/{subset}")
            chance = dice.choice((0.2, 0.5, 0.8))
            yield self.image(f"random:{subset}", [item for item in loose if dice.random() < chance], root)


def _window(loose: Loose) -> Loose:
    """The last operations; of bytes written to the same place only the last time (`LOCK` is written all the time)."""
    chosen: dict[object, tuple[int, Op]] = {}
    for number, op in reversed(loose):
        place = (op.inode, op.offset, len(op.data)) if op.kind == "write" else number
        chosen.setdefault(place, (number, op))
        if len(chosen) == WINDOW:
            break
    return list(chosen.values())


def _name(folders: dict[int, dict[str, int]], op: Op) -> None:
    """Apply a change of names. One whose predecessors were lost still has its own effect, as far as it has one."""
    names = folders.setdefault(op.folder, {})
    if op.kind in ("create", "mkdir", "link"):
        names[op.name] = op.inode
        if op.kind == "mkdir":
            folders.setdefault(op.inode, {})
    elif op.kind == "unlink":
        if names.get(op.name) == op.inode:
            del names[op.name]
    else:
        if names.get(op.name) == op.inode:
            del names[op.name]
        names[op.new_name] = op.inode


def _outside(op: Op, later: Op) -> Iterator[Op]:
    """What a later change of the same file leaves of this write."""
    if op.inode != later.inode:
        yield op
        return
    end = op.offset + len(op.data)
    until = min(end, later.offset)
    since = end if later.kind == "truncate" else max(op.offset, later.offset + len(later.data))
    for start, stop in ((op.offset, until), (since, end)):
        if start < stop:
            yield replace(op, offset=start, data=op.data[start - op.offset : stop - op.offset])


def _change(data: bytearray, op: Op, odd: str) -> None:
    """Apply a change of bytes; `odd`: "size" for the length alone, a number for so many bytes of it."""
    if op.kind == "truncate":
        del data[op.offset :]
        data.extend(bytes(op.offset - len(data)))
        return
    written = op.data
    if odd == "size":
        data.extend(bytes(max(0, op.offset + len(written) - len(data))))
        return
    if odd:
        written = written[: int(odd)]
    data.extend(bytes(max(0, op.offset - len(data))))
    data[op.offset : op.offset + len(written)] = written


def _walk(folders: dict[int, dict[str, int]], top: int, prefix: str = "") -> Iterator[tuple[str, int]]:
    for name, inode in folders.get(top, {}).items():
        yield prefix + name, inode
        if inode in folders:
            yield from _walk(folders, inode, f"{prefix}{name}/")
