"""The manifest: what a collection is, how far its stores are durable, and which derived files fit to it.

`manifest.json` holds `{"crc32c": ..., "manifest": {...}}`. It is replaced by an atomic rename, and that rename is
the moment at which a checkpoint, a new segment or a new collection takes effect.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import orjson

from nopokedb.embedded.storage.files import adopt_temporary, sync_folder, write_temporary
from nopokedb.errors import CorruptionError, NeedsRecoveryError, NewerFormatError

FORMAT_VERSION = 1
NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is decided when a collection is created."""

    dim: int
    space: str
    M: int
    ef_construction: int
    index: str
    text_language: str = "en"
    embed_name: str = ""
    """The model that turns texts into vectors, "" for none."""
    embed_fingerprint: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One derived index file over the rows [start, stop)."""

    name: str
    kind: str
    start: int
    stop: int
    size_bytes: int
    crc32c: int
    ef_at_10: int
    """Candidates that reached the recall goal at k = 10 when it was sealed."""
    ef_at_100: int
    recall: float
    """Recall@10 measured when it was sealed."""
    curve_at_10: tuple[tuple[int, float, float], ...] = ()
    """Length of the candidate list, the recall@10 that it reached at least, and that of the worst decile of queries."""
    curve_at_100: tuple[tuple[int, float, float], ...] = ()
    cost: tuple[float, float, float] | tuple[()] = ()
    """Microseconds of a search without its list, of a place in the list, and of a row of exact search."""
    beside: tuple[str, int, int] | tuple[()] = ()
    """Name, size and CRC-32C of a second file, for what is not loaded from memory."""

    @property
    def parts(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and CRC-32C of each file of the index."""
        first = (self.name, self.size_bytes, self.crc32c)
        return (first, self.beside) if self.beside else (first,)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of the folder. Counts and the live set are those of `checkpoint_lsn`."""

    settings: Settings
    identity: int = 0
    """A random number given at creation: another collection in the same folder is another one."""
    generation: int = 1
    checkpoint_lsn: int = 0
    label_count: int = 0
    row_count: int = 0
    next_auto_id: int = 0
    first_log: int = 1
    """Log files with a lower number are superfluous."""
    live_file: str = ""
    live_crc32c: int = 0
    labels_crc32c: int = 0
    """CRC-32C of the first `label_count` entries of the labels file."""
    rows_crc32c: int = 0
    """CRC-32C of the first `row_count` entries of the rows file."""
    segments: tuple[SegmentFile, ...] = ()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, None where there is none. Raises `CorruptionError`, `NewerFormatError`, and
    `NeedsRecoveryError` where the folder is of an older format."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(folder, data)


def parse_manifest(folder: Path, data: bytes) -> Manifest:
    """The manifest of these bytes. Raises as `read_manifest` does."""
    version, fields = read_fields(folder, data)
    if version < FORMAT_VERSION:
        raise NeedsRecoveryError(
            f"expected a folder of format {FORMAT_VERSION}, got format {version} in {folder}; open it for writing "
            "once, which brings it to this format and keeps a copy of it as it was"
        )
    return manifest_of(folder, fields)


def read_fields(folder: Path, data: bytes) -> tuple[int, dict[str, Any]]:
    """The format version and the fields of a manifest of this format or an older one, compared with their checksum."""
    path = folder / NAME
    try:
        outer = orjson.loads(data)
        fields: dict[str, Any] = outer["manifest"]
        stored_crc = outer["crc32c"]
        version = fields["format"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptionError(f"the manifest is damaged: {path} ({error!r})", file=str(path)) from error
    if stored_crc != google_crc32c.value(orjson.dumps(fields)) or not isinstance(version, int):
        raise CorruptionError(f"the manifest is damaged: {path} does not match its checksum", file=str(path))
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"expected a folder of format {FORMAT_VERSION} or older, got format {version} in {folder}; "
            "update nopokedb to open it"
        )
    del fields["format"]
    return version, fields


def manifest_of(folder: Path, fields: dict[str, Any]) -> Manifest:
    """The manifest with these fields of the present format."""
    path = folder / NAME
    try:
        settings = dict(fields["settings"])
        settings["embed_fingerprint"] = tuple(settings.get("embed_fingerprint", ()))
        segments = tuple(parse_segment_file(segment) for segment in fields["segments"])
        return Manifest(**{**fields, "settings": Settings(**settings), "segments": segments})
    except (TypeError, KeyError, ValueError) as error:
        raise CorruptionError(f"the manifest lacks or has unknown fields: {path} ({error})", file=str(path)) from error


def parse_segment_file(fields: dict[str, Any]) -> SegmentFile:
    """One index file, from JSON."""
    for name in ("curve_at_10", "curve_at_100"):
        fields[name] = tuple((ef, recall, decile) for ef, recall, decile in fields.get(name, ()))
    for name in ("cost", "beside"):
        fields[name] = tuple(fields.get(name, ()))
    return SegmentFile(**fields)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest; durable when this returns."""
    prepare_manifest(folder, manifest)
    adopt_manifest(folder)


def prepare_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest beside the one in force. Whatever happens in here, that stays in force.

    The folder is synced too: the manifest must not become visible ahead of the names of the files that it speaks of.
    """
    fields = {**dataclasses.asdict(manifest), "format": FORMAT_VERSION}
    body = orjson.loads(orjson.dumps(fields))
    data = orjson.dumps(
        {"crc32c": google_crc32c.value(orjson.dumps(body)), "manifest": body}, option=orjson.OPT_INDENT_2
    )
    sync_folder(folder)
    write_temporary(folder / NAME, data)


def adopt_manifest(folder: Path) -> None:
    """Put the prepared manifest in force, by one rename; durable when this returns. After an error either may be."""
    adopt_temporary(folder / NAME)
    sync_folder(folder)
