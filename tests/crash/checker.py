"""A process that opens folders and says what is in them. Reads one JSON line per folder (its path, what it is, planted
bugs), answers with one.

A process of its own because the folder's code is native in part: it may hang or die, and whoever asked has to survive
that. It is started afresh, not forked: FAISS hangs in a forked child.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from next_format import NEXT, PRESENT, format_is

from crash import plants
from crash.records import (
    BEFORE,
    COPIED,
    DIM,
    MODEL,
    State,
    Versions,
    digest,
    id_of,
    metadata_of,
    read_record,
    text_of,
    vector_of,
)
from crash.workload import recall_of
from nopokedb import CollectionNotFoundError, NoPokeDB, View, restore
from nopokedb.database import engine_of
from nopokedb.embedded.engine import EmbeddedEngine
from nopokedb.embedded.snapshot import Snapshot
from nopokedb.embedded.storage import metadata
from nopokedb.filters import Test, elements_of, holds, nodes_at

COLLECTION, BACKUPS, OLDER = "collection", "backups", "older"
"""What folders are: a collection; backups of one; a collection of an older format, or of the next one by now."""
FULL, MORE = "full", "more"
"""Names of a backup and of the incremental one after it."""
_NEW_KEY = 1_000_000
"""A key that no workload uses: the folder has to go on as any other."""
_NEW: Versions = (0, 0, 0)
_ASKED = 4
"""Records that are asked for by id and by vector, of the first and the last."""


def check(folder: Path, *, read_only: bool) -> dict[str, Any]:
    """What is found: `state` (a digest, or "absent"), `count`, `recall`, and `problem` where a promise is broken."""
    answer: dict[str, Any] = {"state": None, "count": 0, "recall": None, "problem": None}
    try:
        try:
            db = NoPokeDB(path=folder)
        except CollectionNotFoundError:
            answer["state"] = "absent"
            db = NoPokeDB(dim=DIM, path=folder)
        state = _read(db)
        _agree(db)
        answer["count"] = len(state)
        answer["state"] = answer["state"] or digest(state)
        assert answer["state"] != "absent" or not state, "a new collection has records"
        _ask(db, state)
        snapshots = db.snapshots()
        if engine_of(db).embed_name == MODEL:
            assert BEFORE in [kept.name for kept in snapshots], "the state before the switch is not kept"
        for kept in snapshots:
            then = _read(db.at(kept.name))
            assert len(then) == kept.count, f"the snapshot {kept.name} has {len(then)} records, not {kept.count}"
        if _snapshot(db).segments and len(state) > 100:
            answer["recall"] = recall_of(db, state)
        db.close()
        if read_only:
            db = NoPokeDB(path=folder, read_only=True)
            assert _read(db) == state, "a read-only handle shows another state"
            assert db.stats().count == len(state), "stats() of a read-only handle has another number of records"
            db.close()
        db = NoPokeDB(path=folder)
        assert _read(db) == state, "the second opening shows another state than the first"
        db.upsert(id_of(_NEW_KEY), vector_of(_NEW_KEY, 0), metadata_of(_NEW_KEY, _NEW), text=text_of(_NEW_KEY, 0))
        assert len(db) == len(state) + 1, "a new record changed the number of others"
        _ask(db, {_NEW_KEY: _NEW})
        db.close()
    except Exception as error:  # noqa: BLE001  # whatever it is, a folder that a crash left must not raise it
        answer["problem"] = f"{type(error).__name__}: {error}"
    return answer


def check_backups(folder: Path, *, read_only: bool) -> dict[str, Any]:
    """The same of the collection that these backups give back."""
    made = folder.with_name(f"{folder.name}-restored")
    backups = [folder / name for name in (FULL, MORE) if (folder / name).exists()]
    try:
        if backups:
            restore(backups, made)
        return check(made, read_only=read_only)
    except Exception as error:  # noqa: BLE001  # as above
        return {"state": None, "count": 0, "recall": None, "problem": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_migrated(folder: Path, *, read_only: bool) -> dict[str, Any]:
    """The same by a version with the next format. Where the folder has come to that format already, what it was is
    kept, and this version opens it."""
    manifest = folder / "manifest.json"
    done = manifest.exists() and json.loads(manifest.read_bytes())["manifest"]["format"] == NEXT
    kept = folder / f"before-format-{NEXT}"
    with format_is(NEXT):
        answer = check(folder, read_only=read_only)
    if done and answer["problem"] is None:
        try:
            with format_is(PRESENT), NoPokeDB(path=kept) as db:
                copied = _read(db)  # of the state that is there, or of the one before the batches of the later version
                assert digest(copied) == answer["state"] or len(copied) == COPIED, "the copy of before lacks records"
        except Exception as error:  # noqa: BLE001  # as above
            answer["problem"] = f"the copy of before the migration: {type(error).__name__}: {error}"
    return answer


_CHECKS = {COLLECTION: check, BACKUPS: check_backups, OLDER: check_migrated}


def _snapshot(db: NoPokeDB) -> Snapshot:
    engine = db._engine
    assert isinstance(engine, EmbeddedEngine)
    return engine.snapshot()


def _read(db: NoPokeDB | View) -> State:
    """Everything, each record verified."""
    state: State = {}
    for record in db.scan(include=("metadata", "vector", "text")):
        key, versions = read_record(record)
        assert key not in state, f"two records of {record.id!r}"
        state[key] = versions
    assert len(db) == len(state), f"count() is {len(db)}, a scan finds {len(state)}"
    return state


def _ask(db: NoPokeDB, state: State) -> None:
    """The first and the last records are found by id and by vector."""
    keys = list(state)
    chosen = list(dict.fromkeys([*keys[:_ASKED], *keys[-_ASKED:]]))
    records = db.get_many([id_of(key) for key in chosen], include=("metadata", "vector", "text"))
    for key, record in zip(chosen, records, strict=True):
        assert record is not None and read_record(record) == (key, state[key]), f"get({key}) differs from the scan"
        hit = db.query(vector_of(key, state[key][1]), k=1)[0]
        assert hit.id == id_of(key) and hit.distance < 1e-6, f"the vector of {key} finds {hit.id!r}"
        word = (text_of(key, state[key][2]) or "").split(" ")[0]
        if word and (Path(db.path) / "text").is_dir():  # the workload searches texts
            assert [hit.id for hit in db.query(text="+" + word)] == [id_of(key)], f"{word} does not find {key}"


def _agree(db: NoPokeDB) -> None:
    """Live labels, live rows, labels and metadata name the same records."""
    snapshot = _snapshot(db)
    reader = snapshot.store.reader
    labels = snapshot.live.members(0, snapshot.label_count).tolist()
    stored = reader.fetch(labels)
    assert sorted(stored) == labels, "a live label has no metadata"
    newest = reader.newest([stored[label].id for label in labels], snapshot.label_count)
    assert newest == labels, "a live label is not the newest of its id"
    rows = snapshot.labels.view(snapshot.label_count)["row"][labels].tolist() if labels else []
    assert rows == [stored[label].row for label in labels], "labels and metadata name different rows"
    assert snapshot.live_rows.members(0, snapshot.row_count).tolist() == sorted(rows), "live rows and labels differ"
    assert np.array_equal(snapshot.row_labels[rows], labels), "a row does not lead back to its label"
    for field in reader.fields():
        # The index on a field, asked for everything that it has, against the records themselves.
        assert field.ready, f"a field under construction is left: {field.path}"
        values = {
            value for label in labels for value in elements_of(nodes_at(json.loads(stored[label].metadata), field.path))
        }
        for value in values:
            test = Test(field.path, "any_of", (value,))
            expected = [label for label in labels if holds(test, stored[label].id, json.loads(stored[label].metadata))]
            found, _ = reader.matching(test, 0, snapshot.label_count)
            assert sorted(set(found.tolist()) & set(labels)) == expected, f"the index on {field.path} misses {value!r}"
    for segment in snapshot.segments:
        assert segment.stop <= snapshot.row_count, "an index covers rows that are not there"


def main() -> None:
    """Serve until the input ends."""
    logging.getLogger("nopokedb").setLevel(logging.CRITICAL)
    metadata._SCAN_LABELS = 0  # indexes on fields are asked however few records there are
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        with ExitStack() as stack:
            for plant in filter(None, asked["planted"].split(",")):
                stack.enter_context(plants.planted(plant))
            answer = _CHECKS[asked["kind"]](Path(asked["folder"]), read_only=asked["read_only"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
