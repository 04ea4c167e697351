"""Carrying what is sound into a new generation, where a collection cannot be opened or trusted as it is.

    sound records of SQLite and of every readable frame -> the newest version of each id that is live, as far as known
    -> their vectors, each compared with its checksum -> written as generation G + 1 beside the old files
    -> the manifest is renamed: THE moment at which the collection is the new one -> old files go into quarantine

A crash before the rename leaves the old folder as it was; the next repair begins again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import apsw
import google_crc32c
import numpy as np
import orjson

from nopokedb.embedded import named
from nopokedb.embedded.check import Findings
from nopokedb.embedded.check_metadata import open_raw, raw_record, read_texts, sound_records
from nopokedb.embedded.index_files import remove_segment_files
from nopokedb.embedded.quarantine import Quarantine
from nopokedb.embedded.raw_files import live_after, read_column, read_vectors, versions_in
from nopokedb.embedded.recovery import save_state
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import COMPUTED, MAX_ENTRIES, NONE, ROW_TYPE
from nopokedb.embedded.storage.frames import Frame, decode_frame
from nopokedb.embedded.storage.manifest import Manifest
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.embedded.storage.oplog import OplogWriter, log_numbers, readable_entries
from nopokedb.embedded.store import Store
from nopokedb.records import Id, Vectors

_CHUNK_BYTES = 16 * 2**20
_PAGE = 4096


@dataclass(slots=True)
class Salvaged:
    """What was carried over and what was not."""

    count: int = 0
    lost: list[str] = field(default_factory=list)
    """In words, one per record that is known to be gone."""
    revived: bool = False
    """The live set, or batches behind it, were lost: records that had been deleted may be back."""


def salvage(folder: Path, manifest: Manifest, found: Findings, quarantine: Quarantine) -> Salvaged:
    """Make generation G + 1 of what is sound, and switch to it. The caller holds the writer lock."""
    return _Salvage(folder, manifest, found, quarantine).run()


class _Salvage:
    def __init__(self, folder: Path, manifest: Manifest, found: Findings, quarantine: Quarantine) -> None:
        self._folder = folder
        self._manifest = manifest
        self._quarantine = quarantine
        self._result = Salvaged()
        self._dim = manifest.settings.dim
        self._frames = _decoded(folder, manifest)
        self._in_frame = versions_in(self._frames)
        self._live = self._live_set(found)
        generation = manifest.generation
        self._vectors = read_vectors(folder, manifest, MAX_ENTRIES)
        self._rows = read_column(folder / f"rows-{generation}.bin", ROW_TYPE, MAX_ENTRIES)
        self._connection: apsw.Connection | None = None
        try:
            self._connection = open_raw(folder / f"metadata-{generation}.db", immutable=False)
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.Error as error:
            self._connection = None
            self._result.lost.append(
                f"nothing can be read from the metadata ({error}); only the log's records are left"
            )

    def _live_set(self, found: Findings) -> Bitmap | None:
        """The labels that are live as far as it is known; None where the set of the checkpoint is lost."""
        path = self._folder / self._manifest.live_file
        live: Bitmap | None = Bitmap()
        if self._manifest.live_file:
            data = path.read_bytes() if path.exists() else b""
            live = Bitmap.from_bytes(data) if google_crc32c.value(data) == self._manifest.live_crc32c else None
        if live is None:
            self._result.revived = True
            return None
        return live_after(live, self._frames)

    def run(self) -> Salvaged:
        folder, old = self._folder, self._manifest
        fresh = replace(
            old,
            generation=old.generation + 1,
            checkpoint_lsn=0,
            label_count=0,
            row_count=0,
            live_file="",
            live_crc32c=0,
            labels_crc32c=0,
            rows_crc32c=0,
            segments=(),
        )
        for path in _files_of(folder, fresh.generation):  # of an interrupted repair
            path.unlink()
        chosen, lsn = self._choose()
        number = max([old.first_log, *log_numbers(folder / "oplog")]) + 1
        store = Store(folder, fresh, writable=True)
        try:
            snapshot = store.load(fresh)
            label = 0
            next_auto_id = max([old.next_auto_id, *(frame.next_auto_id for frame in self._frames)])
            self._declare_fields(store)
            for stored, texts, vectors in self._chunks(chosen):
                count = len(stored)
                lsn += 1
                highest = max((item.id for item in stored if isinstance(item.id, int)), default=-1)
                next_auto_id = max(next_auto_id, highest + 1)
                computed = [self._computed(item.row) for item in stored]
                frame = _frame(fresh.generation, label, next_auto_id, stored, texts, vectors, lsn, computed)
                snapshot = store.apply(snapshot, [frame])
                label += count
            # An empty batch at the end: the counter of automatic ids, and an lsn above all that were seen.
            frame = _frame(fresh.generation, label, next_auto_id, [], [], np.empty((0, self._dim), "<f4"), lsn + 1, [])
            snapshot = store.apply(snapshot, [frame])
            (folder / "oplog").mkdir(exist_ok=True)
            OplogWriter(folder / "oplog", number, snapshot.lsn + 1, durable=True).close()
            save_state(folder, fresh, snapshot, first_log=number)  # with the rename it is the new one
            assert store.writer is not None
            store.writer.shrink()
        finally:
            store.close()
            if self._connection is not None:
                self._connection.close()
        self._result.count = label
        for path in [*_files_of(folder, old.generation), *_old_logs(folder, number)]:
            self._quarantine.move(path)
        for path in sorted((folder / named.FOLDER).glob("*")):  # they speak of the labels of the old generation
            self._result.lost.append(f"the named snapshot {path.stem!r} is given up")
            self._quarantine.move(path)
        for segment in old.segments:
            remove_segment_files(folder / "index", segment)  # derived: it is built again
        return self._result

    def _choose(self) -> tuple[dict[Id, int], int]:
        """The label to carry over of each id, and the highest lsn seen."""
        newest: dict[Id, int] = {}
        lsn = max([self._manifest.checkpoint_lsn, *(frame.lsn for frame in self._frames)])
        end = max([self._manifest.label_count, *(label + 1 for label in self._in_frame)])
        sound = np.zeros(end, np.bool_)
        if self._connection is not None:
            try:
                last: Any = self._connection.execute("SELECT max(label) FROM records NOT INDEXED").get
                applied: Any = self._connection.execute("SELECT value FROM state WHERE key='applied_lsn'").get
                if isinstance(applied, int):
                    lsn = max(lsn, applied)
                    # What a batch deleted stands in its frame only.
                    in_log = {frame.lsn for frame in self._frames}
                    missing = set(range(self._manifest.checkpoint_lsn + 1, applied + 1)) - in_log
                    self._result.revived = self._result.revived or bool(missing)
                if isinstance(last, int) and end <= last < MAX_ENTRIES:
                    sound = np.concatenate([sound, np.zeros(last + 1 - end, np.bool_)])
            except apsw.Error as error:
                self._quarantine.note("report.jsonl", {"sqlite": str(error)})
            for stored in sound_records(self._connection, range(len(sound))):
                sound[stored.label] = True
                newest[stored.id] = max(newest.get(stored.id, -1), stored.label)
        for label, (stored, _) in self._in_frame.items():
            sound[label] = True
            newest[stored.id] = max(newest.get(stored.id, -1), label)
        if self._live is not None:
            # Labels that neither the checkpoint nor a frame knows come from batches that only SQLite has: the newest
            # version of an id among them counts as live.
            count, live = self._manifest.label_count, self._live
            newest = {
                id_: label
                for id_, label in newest.items()
                if label in live or not (label < count or label in self._in_frame)
            }
            for label in live.members(0, max([count, *(label + 1 for label in self._in_frame)])).tolist():
                if not sound[label]:
                    self._lose(label, f"the record of label {label} is damaged or missing")
        return newest, lsn

    def _chunks(self, chosen: dict[Id, int]) -> Iterator[tuple[list[Stored], list[str | None], Vectors]]:
        labels = np.sort(np.fromiter(chosen.values(), np.int64, len(chosen)))
        per_chunk = max(1, min(_PAGE, _CHUNK_BYTES // (self._dim * 4)))
        for start in range(0, len(labels), per_chunk):
            part = labels[start : start + per_chunk].tolist()
            records: list[Stored] = []
            texts: list[str | None] = []
            vectors: list[Vectors] = []
            for stored, text in self._versions(part):
                vector = self._vector(stored.row)
                if vector is None:
                    self._lose(stored.label, f"the vector of id {stored.id!r} is damaged or cannot be verified")
                    if stored.row < len(self._vectors):
                        self._quarantine.vector(stored.row, stored.label, self._vectors[stored.row])
                    continue
                records.append(stored)
                texts.append(text)
                vectors.append(vector)
            if records:
                yield records, texts, np.stack(vectors)

    def _versions(self, labels: list[int]) -> Iterator[tuple[Stored, str | None]]:
        """The sound versions with their texts, from SQLite or else from a frame."""
        wanted = set(labels)
        span = range(labels[0], labels[-1] + 1)
        from_sqlite: dict[int, Stored] = {}
        texts: dict[int, str | None] = {}
        if self._connection is not None:
            from_sqlite = {item.label: item for item in sound_records(self._connection, span) if item.label in wanted}
            texts = read_texts(self._connection, span)
        for label in labels:
            if label in self._in_frame:
                yield self._in_frame[label]
                continue
            stored = from_sqlite[label]
            text = texts.get(label) if stored.has_text else None
            if stored.has_text and text is None:
                self._lose(label, f"the text of id {stored.id!r} is damaged or missing; the record is kept without it")
            yield stored, text

    def _vector(self, row: int) -> Vectors | None:
        """The vector if something vouches for it: a frame, or the checksum of its row."""
        for frame in self._frames:
            if frame.first_row <= row < frame.first_row + len(frame.vectors):
                vouched: Vectors = frame.vectors[row - frame.first_row]
                return vouched
        if row < min(len(self._vectors), len(self._rows)):
            vector: Vectors = np.array(self._vectors[row])
            if google_crc32c.value(vector.tobytes()) == int(self._rows["crc"][row]):
                return vector
        return None

    def _computed(self, row: int) -> bool:
        """Whether the vector of the row is known to be computed from the text."""
        for frame in self._frames:
            if frame.first_row <= row < frame.first_row + len(frame.vectors):
                return frame.computed is not None and bool(frame.computed[row - frame.first_row])
        return row < len(self._rows) and bool(self._rows["flags"][row] & COMPUTED)

    def _declare_fields(self, store: Store) -> None:
        """Index the fields that had an index, as far as the old tables can be read."""
        assert store.writer is not None
        try:
            rows: list[Any] = (
                []
                if self._connection is None
                else self._connection.execute("SELECT path FROM fields WHERE ready AND NOT automatic").fetchall()
            )
            paths = [tuple(orjson.loads(path)) for (path,) in rows]
        except (apsw.Error, UnicodeDecodeError, orjson.JSONDecodeError, TypeError) as error:
            self._result.lost.append(f"which fields have an index cannot be read ({error}); make them again")
            return
        for path in dict.fromkeys(paths):
            store.writer.finish_field(store.writer.add_field(path, automatic=False))

    def _lose(self, label: int, words: str) -> None:
        self._result.lost.append(words)
        line = {"label": label} if self._connection is None else raw_record(self._connection, label)
        self._quarantine.note("records.jsonl", line)


def _decoded(folder: Path, manifest: Manifest) -> list[Frame]:
    frames = []
    oplog = folder / "oplog"
    for entry in readable_entries(oplog, manifest.checkpoint_lsn) if oplog.is_dir() else []:
        try:
            frame = decode_frame(entry.payload, entry.lsn)
        except (ValueError, IndexError, ArithmeticError):  # whole by its checksum, and yet no batch: nothing to save
            continue
        if frame.generation == manifest.generation and frame.vectors.shape[1] == manifest.settings.dim:
            frames.append(frame)
    return frames


def _frame(
    generation: int,
    first: int,
    next_auto_id: int,
    stored: list[Stored],
    texts: list[str | None],
    vectors: Vectors,
    lsn: int,
    computed: list[bool],
) -> Frame:
    count = len(stored)
    return Frame(
        generation,
        first,
        first,
        next_auto_id,
        np.arange(first, first + count, dtype=np.uint32),
        np.full(count, NONE, np.uint32),
        np.empty(0, np.uint32),
        [item.id for item in stored],
        [item.metadata for item in stored],
        texts,
        vectors,
        lsn,
        np.array(computed, np.uint8) if any(computed) else None,
    )


def _files_of(folder: Path, generation: int) -> list[Path]:
    patterns = (f"vectors-{generation}.f32", f"rows-{generation}.bin", f"labels-{generation}.bin",
                f"metadata-{generation}.db*", f"live-{generation}-*.bits")  # fmt: skip
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _old_logs(folder: Path, below: int) -> list[Path]:
    oplog = folder / "oplog"
    return [oplog / f"{number:010d}.log" for number in log_numbers(oplog) if number < below]
