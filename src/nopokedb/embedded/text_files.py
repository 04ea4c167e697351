"""The saved text index: which files it consists of, what they say, and whether they are still what was saved.

    text/state        what the saved files equal, see below
    text/saved-<n>/   tantivy's files as they were at `save`
    text/work-<n>/    the index in use; no later open reads anything in here

tantivy writes a file once and never changes it, so `saved` and `work` are hard links of the same files (copies where
the file system has no links). A crash therefore costs only the texts that came after the last save: the next open
links the saved files into a new `work` and adds those. All of it is derived and may be deleted between two opens.

The state file, little-endian: magic "NPDBTEXT", u32 length of the JSON that follows, JSON (`_Header`), the bitmap of
the labels that are in the index, CRC-32C (u32) of everything before it. The JSON names size and CRC-32C of every
file. All are compared before tantivy sees one of them, because native code must not be fed damaged bytes.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import struct
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import google_crc32c
import orjson

from nopokedb.embedded.search.analysis import ANALYSIS_VERSION
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.files import sync_folder, write_durably

STATE_FORMAT = 1
_MAGIC = b"NPDBTEXT"
_U32 = struct.Struct("<I")
_STATE = "state"
_LOCK_SUFFIX = ".lock"
_REPLACED = frozenset({"meta.json", ".managed.json"})
"""The only names that tantivy gives to a new file when it already has an old one."""
_READ_BYTES = 2**20


class Unusable(Exception):
    """The saved index cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What the saved files equal."""

    lsn: int
    label_count: int
    indexed: Bitmap
    """Labels whose texts are in the index."""


@dataclass(frozen=True, slots=True)
class _Header:
    format: int
    analysis: int
    tantivy: str
    language: str
    identity: int
    lsn: int
    label_count: int
    folder: str
    files: dict[str, list[int]]


@functools.cache
def _tantivy_version() -> str:
    """Read from the installed package's metadata, which takes 2 ms."""
    return version("tantivy")


class TextFiles:
    """The folder `text` of one collection. One thread at a time loads, saves or removes; any may make work folders."""

    def __init__(self, folder: Path, language: str, identity: int) -> None:
        self._folder = folder
        self._language = language
        self._identity = identity
        self._tantivy = _tantivy_version()
        self._numbers = itertools.count(1)
        self._cleaned = False
        self._nothing_saved = False
        """What is in the folder is of the generation before."""
        self._known: dict[str, list[int]] = {}
        """Size and CRC-32C of files that never change."""

    def successor(self, identity: int) -> TextFiles:
        """The same folder for the next generation, while this one is still in use: no name is given twice, and no
        `work` folder taken for one of an earlier process."""
        files = TextFiles(self._folder, self._language, identity)
        files._numbers, files._cleaned, files._nothing_saved = self._numbers, self._cleaned, True
        return files

    def new_work(self) -> Path:
        """An empty folder for an index."""
        work = self._folder / f"work-{next(self._numbers)}"
        work.mkdir(parents=True)
        return work

    def remove_leftovers(self) -> None:
        """Remove the `work` folders of earlier processes. Only the first call does, before any folder of our own."""
        if not self._cleaned:
            for path in self._folder.glob("work-*"):
                shutil.rmtree(path)
            self._cleaned = True

    def load(self, work: Path) -> Saved | None:
        """Fill `work` with the saved files after comparing them. None if nothing was ever saved; `Unusable` if what
        is there is damaged, incomplete, or of another collection, language or version."""
        if self._nothing_saved:
            return None
        try:
            data = (self._folder / _STATE).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unusable(f"its state cannot be read ({error})") from error
        header, bitmap = _parsed(data)
        for name, mine, theirs in (
            ("analysis", ANALYSIS_VERSION, header.analysis),
            ("tantivy", self._tantivy, header.tantivy),
            ("language", self._language, header.language),
            ("collection", self._identity, header.identity),
        ):
            if mine != theirs:
                raise Unusable(f"it was made with {name} {theirs}, not {mine}")
        saved = self._folder / header.folder
        for name, expected in header.files.items():
            if Path(name).name != name:
                raise Unusable(f"it names a file elsewhere: {name!r}")
            try:
                if _fingerprint(saved / name) != expected:
                    raise Unusable(f"{name} is damaged")
            except OSError as error:
                raise Unusable(f"{name} cannot be read ({error})") from error
        self._known = {name: expected for name, expected in header.files.items() if name not in _REPLACED}
        for name in header.files:
            _link(saved / name, work / name)
        return Saved(header.lsn, header.label_count, Bitmap.from_bytes(bitmap))

    def save(self, work: Path, saved: Saved) -> None:
        """Make the files of `work`, which nobody changes meanwhile, what the next open finds. Durable on return."""
        older = list(self._folder.glob("saved-*"))
        number = max((int(path.name[6:]) for path in older if path.name[6:].isdecimal()), default=0) + 1
        target = self._folder / f"saved-{number}"
        target.mkdir()
        files: dict[str, list[int]] = {}
        for path in work.iterdir():
            if path.name.endswith(_LOCK_SUFFIX):
                continue
            _link(path, target / path.name)
            files[path.name] = self._known.get(path.name) or _fingerprint(path)
        header = _Header(
            STATE_FORMAT,
            ANALYSIS_VERSION,
            self._tantivy,
            self._language,
            self._identity,
            saved.lsn,
            saved.label_count,
            target.name,
            files,
        )
        encoded = orjson.dumps(asdict(header))
        body = b"".join((_MAGIC, _U32.pack(len(encoded)), encoded, saved.indexed.to_bytes()))
        sync_folder(target)
        # The state names its folder: a crash on either side of this line leaves the old pair or the new one.
        write_durably(self._folder / _STATE, body + _U32.pack(google_crc32c.value(body)))
        sync_folder(self._folder)
        self._known = {name: value for name, value in files.items() if name not in _REPLACED}
        self._nothing_saved = False
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def forget_saved(self) -> None:
        """Remove the saved index."""
        self._known = {}
        forget_saved(self._folder)

    def drop_work(self, work: Path) -> None:
        """Remove a `work` folder. Searches that still use it keep its files by their maps."""
        shutil.rmtree(work, ignore_errors=True)


def forget_saved(folder: Path) -> None:
    """Remove the saved index in the folder `text`, if there is one."""
    (folder / _STATE).unlink(missing_ok=True)
    for path in folder.glob("saved-*"):
        shutil.rmtree(path, ignore_errors=True)


def _parsed(data: bytes) -> tuple[_Header, bytes]:
    """Header and bitmap of a state file."""
    head = len(_MAGIC) + _U32.size
    body = data[: -_U32.size]
    if not data.startswith(_MAGIC) or len(data) < head + _U32.size:
        raise Unusable("its state is not one")
    if _U32.unpack(data[-_U32.size :])[0] != google_crc32c.value(body):
        raise Unusable("its state is damaged")
    (length,) = _U32.unpack_from(data, len(_MAGIC))
    fields: dict[str, Any] = orjson.loads(body[head : head + length])
    if fields.get("format") != STATE_FORMAT:
        raise Unusable(f"its state has format {fields.get('format')}, not {STATE_FORMAT}")
    return _Header(**fields), body[head + length :]


def _fingerprint(path: Path) -> list[int]:
    """Size and CRC-32C of a file, read in pieces."""
    size = crc = 0
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            size += len(piece)
            crc = google_crc32c.extend(crc, piece)
    return [size, crc]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links here (FAT, some network file systems): a copy is as good, only slower
        shutil.copyfile(source, target)
