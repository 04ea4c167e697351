"""`check` of a folder that nobody has open, and its repair.

Repairs go from the cheapest to the dearest, each followed by a new look:

    mend      files whose right content a checksum proves: one changed byte, tables that follow from others
    reindex   SQLite's index on ids, from its records
    salvage   where the folder cannot be opened or trusted: what is sound becomes a new generation (salvage.py)
    retire    a damaged record in a folder that opens: one batch through the normal write path retires its label, and
              brings back what is sound of it
    open      what an open for writing does anyway: unfinished ends, leftovers, damaged search indexes

What cannot be saved goes to `quarantine-<n>/` first.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw
import google_crc32c
import numpy as np
import orjson

from nopokedb.distances import squared_norms
from nopokedb.embedded.check import Findings, check_earlier, inspect, manifest_problem
from nopokedb.embedded.check_metadata import open_raw, raw_record, rebuild_fields, sound_records
from nopokedb.embedded.engine import EmbeddedEngine
from nopokedb.embedded.mending import mend_one_byte
from nopokedb.embedded.quarantine import Quarantine
from nopokedb.embedded.raw_files import read_column, read_vectors, vectors_path, versions_in
from nopokedb.embedded.recovery import require_collection
from nopokedb.embedded.salvage import salvage
from nopokedb.embedded.storage import manifest as manifests
from nopokedb.embedded.storage.bitmap import Bitmap
from nopokedb.embedded.storage.columns import LABEL_TYPE, NONE, ROW_TYPE
from nopokedb.embedded.storage.files import open_file, sync, sync_folder, write_at, write_durably
from nopokedb.embedded.storage.lock import ReaderLock, WriterLock, read_published
from nopokedb.embedded.storage.manifest import Manifest, parse_manifest
from nopokedb.embedded.storage.metadata import Stored
from nopokedb.errors import CorruptionError, DatabaseLockedError
from nopokedb.problems import Problem

_ROUNDS = 4
"""A repair may bring to light what a worse damage hid; more rounds than kinds of repair are never needed."""


def check_folder_alone(folder: Path, *, repair: bool, deep: bool) -> list[Problem]:
    """See `nopokedb.check`."""
    if repair:
        return _repair(folder)
    try:
        manifest = require_collection(folder)
    except CorruptionError as error:
        return [manifest_problem(folder, error)]
    lock = ReaderLock(folder / "LOCK")
    try:
        if not lock.alone:
            holder = read_published(folder / "LOCK")
            who = f"process {holder.pid}" if holder else "another process"
            locked = DatabaseLockedError(
                f"expected a folder that nobody writes, but {who} has {folder} open for writing; call check() on a "
                "handle (a read-only one will do), or close the writer"
            )
            locked.pid = holder.pid if holder else None
            raise locked
        return inspect(folder, manifest, deep=deep).problems + check_earlier(folder, manifest, deep=deep)
    finally:
        lock.release()


def is_clean(problems: list[Problem]) -> bool:
    """Whether nothing but notes was found."""
    return all(problem.severity == "note" for problem in problems)


def _repair(folder: Path) -> list[Problem]:
    if not (folder / manifests.NAME).exists():
        require_collection(folder)  # raises: nothing is made here
    quarantine = Quarantine(folder)
    lock = WriterLock(folder / "LOCK")
    plan = _Plan()
    words: list[Problem] = []
    first: list[Problem] | None = None
    try:
        mended = _mend_manifest(folder, quarantine)
        try:
            manifest = require_collection(folder)
        except CorruptionError as error:
            problem = manifest_problem(folder, error)
            return [replace(problem, message=problem.message + "; nothing else can be understood without it, and "
                            "nothing was changed: restore the folder from a backup")]  # fmt: skip
        if mended is not None:
            words.append(mended)
        for _ in range(_ROUNDS):
            found = inspect(folder, manifest, deep=True)
            first = found.problems if first is None else first
            if _mend(folder, manifest, found, quarantine) or _reindex(folder, manifest, found):
                continue
            if not found.broken:
                plan = _to_retire(folder, manifest, found, quarantine)
                words += plan.words
                break
            result = salvage(folder, manifest, found, quarantine)
            name = str(quarantine.path)
            words += [Problem("record", "error", text, name, None, True) for text in result.lost]
            if result.revived:
                text = "which records were deleted was lost with the live set or the log: deleted ones may be back"
                words.append(Problem("live_set", "error", text, name, None, True))
            manifest = require_collection(folder)
        for problem in found.problems:
            if problem.kind == "snapshot":
                quarantine.move(Path(problem.file))
        quarantine.finish()
    finally:
        lock.abandon()
    engine = EmbeddedEngine(folder, settings=None, durability="full", read_only=False, max_memory=None)
    try:
        if plan.retire:
            engine.exchange_versions(plan.retire, plan.versions)
    finally:
        engine.close()
    if plan.forget:
        _forget(folder, plan.forget)
    again = check_folder_alone(folder, repair=False, deep=True)
    left = Counter(_key(problem) for problem in again)
    reported = [replace(problem, repaired=_key(problem) not in left) for problem in first or ()]
    known = {_key(problem) for problem in reported}
    return [*reported, *words, *(problem for problem in again if _key(problem) not in known)]


def _key(problem: Problem) -> tuple[str, str, str, int | None]:
    return problem.kind, problem.file, problem.message, problem.offset


# --- mending: only what a checksum proves ----------------------------------------------------------------------------


def _mend_manifest(folder: Path, quarantine: Quarantine) -> Problem | None:
    """Try every byte of an unreadable manifest: the one whose change makes it match its checksum is put right."""
    path = folder / manifests.NAME
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        parse_manifest(folder, data)
        return None
    except CorruptionError as error:
        problem = manifest_problem(folder, error)
    for at in range(len(data)):
        for value in (32, 10, *range(33, 127)):  # what `orjson` writes of it
            mended = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                orjson.loads(mended)
                parse_manifest(folder, mended)
            except (orjson.JSONDecodeError, CorruptionError):
                continue
            quarantine.copy(path)
            write_durably(path, mended)
            sync_folder(folder)
            return replace(
                problem, offset=at, message=problem.message + "; the changed byte was put right", repaired=True
            )
    return None


def _mend(folder: Path, manifest: Manifest, found: Findings, quarantine: Quarantine) -> bool:
    """Put right what can be proved; whether anything was."""
    kinds = {problem.kind for problem in found.problems if problem.severity == "error"}
    done = False
    if "live_set" in kinds and found.live is None:
        done = _mend_live_set(folder, manifest, quarantine) or done
    if found.row_of is None:
        done = _mend_labels(folder, manifest, quarantine) or done
    if not found.rows_sound:
        done = _mend_rows(folder, manifest, quarantine) or done
    elif found.damaged_rows:
        done = _mend_vectors(folder, manifest, found, quarantine) or done
    return done


def _mend_live_set(folder: Path, manifest: Manifest, quarantine: Quarantine) -> bool:
    path = folder / manifest.live_file
    data = path.read_bytes() if path.exists() else b""

    def plausible(mended: bytes) -> bool:
        return not Bitmap.from_bytes(mended).members(manifest.label_count, len(mended) * 8).size

    mended = mend_one_byte(data, manifest.live_crc32c, plausible)
    if mended is None:
        return False
    _replace(path, mended[0], quarantine)
    return True


def _mend_labels(folder: Path, manifest: Manifest, quarantine: Quarantine) -> bool:
    """The table of labels follows from the records; its checksum says whether that succeeded."""
    entries = np.full(2 * manifest.label_count, NONE, "<u4").view(LABEL_TYPE)
    newest: dict[int, int] = {}
    try:
        with closing(open_raw(folder / f"metadata-{manifest.generation}.db", immutable=False)) as connection:
            for stored in sound_records(connection, range(manifest.label_count)):
                entries[stored.label] = (stored.row, newest.get(stored.row, NONE))
                newest[stored.row] = stored.label
    except apsw.Error:  # SQLite is damaged too: the caller carries over what is sound
        return False
    if google_crc32c.value(entries.tobytes()) != manifest.labels_crc32c:
        return False
    _replace(folder / f"labels-{manifest.generation}.bin", entries.tobytes(), quarantine)
    return True


def _mend_rows(folder: Path, manifest: Manifest, quarantine: Quarantine) -> bool:
    """The table of rows follows from the vectors; its checksum says whether that succeeded."""
    count = manifest.row_count
    vectors = read_vectors(folder, manifest, count)
    path = folder / f"rows-{manifest.generation}.bin"
    if len(vectors) < count:
        return False
    entries = np.zeros(count, ROW_TYPE)
    with np.errstate(all="ignore"):  # damaged vectors may hold anything
        entries["norm"] = np.sqrt(squared_norms(np.asarray(vectors)))
    entries["crc"] = [google_crc32c.value(vector.tobytes()) for vector in vectors]
    if google_crc32c.value(entries.tobytes()) != manifest.rows_crc32c:
        return False
    _replace(path, entries.tobytes(), quarantine)
    return True


def _mend_vectors(folder: Path, manifest: Manifest, found: Findings, quarantine: Quarantine) -> bool:
    """Vectors whose right bytes the log still has, or whose checksum and norm together point to one changed byte."""
    dim = manifest.settings.dim
    vectors = read_vectors(folder, manifest, manifest.row_count)
    rows = read_column(folder / f"rows-{manifest.generation}.bin", ROW_TYPE, manifest.row_count)
    right: dict[int, bytes] = {}
    for row in found.damaged_rows:
        crc, norm = int(rows["crc"][row]), float(rows["norm"][row])

        def same_norm(mended: bytes, norm: float = norm) -> bool:
            with np.errstate(all="ignore"):
                value = float(np.sqrt(squared_norms(np.frombuffer(mended, "<f4")[None, :])[0]))
            return abs(value - norm) <= 1e-12 * norm

        mended = mend_one_byte(vectors[row].tobytes(), crc, same_norm)
        if mended is not None:
            right[row] = mended[0]
    if not right:
        return False
    owners = {int(row): label for label, row in enumerate(found.row_of)} if found.row_of is not None else {}
    for row in right:
        quarantine.vector(row, owners.get(row), np.array(vectors[row]))
    descriptor = open_file(vectors_path(folder, manifest), os.O_RDWR)
    try:
        for row, data in right.items():
            write_at(descriptor, data, row * dim * 4)
        sync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _replace(path: Path, data: bytes, quarantine: Quarantine) -> None:
    if path.exists():
        quarantine.copy(path)
    write_durably(path, data)
    sync_folder(path.parent)


def _reindex(folder: Path, manifest: Manifest, found: Findings) -> bool:
    """Rebuild the index on ids, and those on fields, from the records; whether one needed that."""
    metadata = found.metadata
    if metadata is None or metadata.messages or not (metadata.index_messages or metadata.wrong_fields):
        return False
    try:
        with closing(apsw.Connection(str(folder / f"metadata-{manifest.generation}.db"))) as connection:
            connection.execute("PRAGMA synchronous=FULL").fetchall()
            connection.execute("CREATE INDEX IF NOT EXISTS records_id ON records(id)")
            connection.execute("REINDEX records_id")
            rebuild_fields(connection, metadata.wrong_fields, len(metadata.sound))
    except apsw.Error as error:  # the pages of the index are beyond that
        metadata.messages.append(str(error))
        found.broken = True
        return False
    return True


# --- retiring: what is damaged and cannot be put right ---------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """Live labels to retire, versions to write in their place, labels whose records nobody can read, and what that
    loses, in words."""

    retire: list[int] = field(default_factory=list)
    versions: list[tuple[Stored, str | None]] = field(default_factory=list)
    forget: list[int] = field(default_factory=list)
    words: list[Problem] = field(default_factory=list)


def _to_retire(folder: Path, manifest: Manifest, found: Findings, quarantine: Quarantine) -> _Plan:
    metadata = found.metadata
    if metadata is None or found.row_of is None or found.live is None:
        return _Plan()
    row_of, path = found.row_of, folder / f"metadata-{manifest.generation}.db"
    alive = found.live.members(0, len(row_of))
    known = found.known_to_sqlite(len(row_of))
    alive_known = alive[alive < known]
    unsound = alive_known[~metadata.sound[alive_known]].tolist()
    textless = alive_known[metadata.sound[alive_known] & metadata.lost_text[alive_known]].tolist()
    bad_rows = set(found.damaged_rows)
    vectorless = [label for label in alive.tolist() if int(row_of[label]) in bad_rows]
    ghosts = np.flatnonzero(metadata.present[:known] & ~metadata.sound[:known])
    if not (unsound or textless or vectorless or len(ghosts)):
        return _Plan()
    in_frame = versions_in(found.frames)
    versions: list[tuple[Stored, str | None]] = []
    words: list[Problem] = []
    connection = open_raw(path, immutable=False)
    try:
        for label in {*unsound, *textless, *vectorless, *ghosts.tolist()}:
            quarantine.note("records.jsonl", raw_record(connection, label))
        vectors = read_vectors(folder, manifest, manifest.row_count)
        for label in sorted({*unsound, *textless, *vectorless}):
            if label in vectorless:
                row = int(row_of[label])
                quarantine.vector(row, label, np.array(vectors[row]))
                words.append(_lost(f"the record of label {label} was retired: its vector is lost", quarantine))
            elif label in in_frame:
                versions.append(in_frame[label])
            elif label in textless:
                (stored,) = sound_records(connection, range(label, label + 1))
                versions.append((replace(stored, has_text=False), None))
                words.append(_lost(f"the text of id {stored.id!r} is lost; the record is kept without it", quarantine))
            else:
                words.append(_lost(f"the record of label {label} was retired: its id or metadata are lost", quarantine))
    finally:
        connection.close()
    return _Plan(sorted({*unsound, *textless, *vectorless}), versions, [*ghosts.tolist(), *textless], words)


def _lost(message: str, quarantine: Quarantine) -> Problem:
    return Problem("record", "error", f"{message}; what is left of it is in {quarantine.path.name}",
                   str(quarantine.path), None, True)  # fmt: skip


def _forget(folder: Path, labels: list[int]) -> None:
    """Take records out of SQLite that nobody can read; their bytes are in the quarantine. (`scan` would meet them.)"""
    lock = WriterLock(folder / "LOCK")
    try:
        manifest = require_collection(folder)
        with closing(apsw.Connection(str(folder / f"metadata-{manifest.generation}.db"))) as connection:
            connection.execute("PRAGMA synchronous=FULL").fetchall()
            with connection:
                # Rebuilt first: SQLite refuses to delete a record whose entry in the index it cannot find.
                connection.execute("REINDEX records_id")
                for label in labels:
                    connection.execute("DELETE FROM records WHERE label=?", (label,))
                    connection.execute("DELETE FROM texts WHERE label=?", (label,))
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        lock.abandon()
