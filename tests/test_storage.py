"""Columns, metadata, manifest and lock by themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nopokedb import NoPokeDB
from nopokedb.embedded.storage.columns import Column
from nopokedb.embedded.storage.frames import Frame
from nopokedb.embedded.storage.lock import SERVING, Published, ReaderLock, WriterLock, read_published
from nopokedb.embedded.storage.manifest import Manifest, SegmentFile, Settings, read_manifest, write_manifest
from nopokedb.embedded.storage.metadata import MetadataReader, MetadataWriter
from nopokedb.errors import CorruptionError, DatabaseLockedError
from nopokedb.metadata_json import encode_metadata


def frame_of(metadatas: list[bytes], ids: list[int | str], texts: list[str | None], label: int, lsn: int) -> Frame:
    """A frame without vectors."""
    n = len(ids)
    u32 = np.arange(n, dtype=np.uint32)
    return Frame(1, label, 0, 0, u32, u32, u32[:0], ids, metadatas, texts, np.empty((0, 1), np.float32), lsn)


def test_a_column_keeps_old_views_while_it_grows(tmp_path: Path) -> None:
    """A view handed out earlier stays valid and right after many growths and after closing."""
    column = Column(tmp_path / "c", np.dtype(("<f4", (5,))), writable=True)
    data = np.arange(100_000, dtype=np.float32).reshape(-1, 5)
    column.write(0, data[:3])
    early = column.view(3)
    for at in range(3, len(data), 777):
        column.write(at, data[at : at + 777])
    assert np.array_equal(column.view(len(data)), data)
    column.close()
    assert np.array_equal(early, data[:3])
    with pytest.raises(ValueError, match="read-only"):
        early[0] = 1


def test_a_short_column_is_reported(tmp_path: Path) -> None:
    """More entries than the file holds are not invented."""
    (tmp_path / "c").write_bytes(b"\0" * 40)
    column = Column(tmp_path / "c", np.dtype(("<f4", (5,))), writable=False)
    assert column.view(2).shape == (2, 5)
    with pytest.raises(EOFError):
        column.view(3)
    column.close()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def test_json_survives_sqlite_byte_for_byte(tmp_path: Path) -> None:
    """Metadata come back from JSONB as the very bytes that were hashed, for any JSON, id and text."""
    writer = MetadataWriter(tmp_path / "m.db")
    reader = MetadataReader(tmp_path / "m.db")
    state = {"label": 0, "lsn": 0}

    @given(
        st.lists(
            st.tuples(
                st.dictionaries(st.text(), json_values, max_size=4),
                st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=20)),
                st.none() | st.text(),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def round_trip(rows: list[tuple[dict[str, object], int | str, str | None]]) -> None:
        metadatas = [encode_metadata(metadata) for metadata, _, _ in rows]
        state["lsn"] += 1
        first = state["label"]
        writer.write([frame_of(metadatas, [i for _, i, _ in rows], [t for *_, t in rows], first, state["lsn"])])
        state["label"] += len(rows)
        labels = list(range(first, state["label"]))
        stored = reader.fetch(labels)
        texts = reader.texts(stored.values())
        for label, (metadata, id_, text), encoded in zip(labels, rows, metadatas, strict=True):
            assert stored[label].metadata == encoded
            assert orjson.loads(encoded) == json.loads(json.dumps(metadata))
            assert stored[label].id == id_ and type(stored[label].id) is type(id_)
            assert texts.get(label) == text

    round_trip()
    reader.close()
    writer.close()


def test_frames_are_applied_once(tmp_path: Path) -> None:
    """Replaying a frame that is in already changes nothing; a new one behind it is applied."""
    writer = MetadataWriter(tmp_path / "m.db")
    frames = [frame_of([b"{}"], [n], [None], n, n + 1) for n in range(3)]
    writer.write(frames[:2])
    writer.write(frames)
    reader = MetadataReader(tmp_path / "m.db")
    assert reader.applied() == (3, 3)
    assert sorted(reader.fetch(range(5))) == [0, 1, 2]
    reader.close()
    writer.close()


def test_a_changed_row_in_sqlite_is_noticed(tmp_path: Path) -> None:
    """SQLite's own pages may be sound while a record in them is not: its CRC tells, for every column."""
    import apsw

    writer = MetadataWriter(tmp_path / "m.db")
    writer.write([frame_of([b'{"a":1}', b"{}"], [7, "x"], ["text", None], 0, 1)])
    changes = (
        "UPDATE records SET id=8 WHERE label=0",
        "UPDATE records SET id='7' WHERE label=0",
        "UPDATE records SET row=9 WHERE label=0",
        "UPDATE records SET metadata=jsonb('{\"a\":2}') WHERE label=0",
        "UPDATE records SET crc=crc+1 WHERE label=0",
        "UPDATE texts SET text='other' WHERE label=0",
    )
    other = apsw.Connection(str(tmp_path / "m.db"))
    for change in changes:
        reader = MetadataReader(tmp_path / "m.db")
        other.execute("SAVEPOINT s")
        other.execute(change)
        other.execute("RELEASE s")
        with pytest.raises(CorruptionError, match="label 0"):
            reader.texts(reader.fetch([0]).values())
        with_old = {
            "id": "id=7",
            "row": "row=0",
            "metadata": "metadata=jsonb('{\"a\":1}')",
            "crc": "crc=crc-1",
            "text": "text='text'",
        }
        name = change.split("SET ")[1].split("=")[0]
        table = "texts" if name == "text" else "records"
        other.execute(f"UPDATE {table} SET {with_old[name]} WHERE label=0")  # noqa: S608  # constants of this test
        assert reader.fetch([0])[0].id == 7
        reader.close()
    other.close()
    writer.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda db: list(db.scan(order_by="n")),
        lambda db: list(db.scan({"n": 1})),
        lambda db: db.facet("$id"),
        lambda db: db.delete_many(where={"n": {"$gte": 0}}),
        lambda db: db.update_many(metadata={"seen": True}, where={"n": {"$gte": 0}}),
        lambda db: db.query([1.0, 2.0], 3),
        lambda db: db.backup(Path(db.path) / "new.backup"),
        lambda db: db.compact(),
        lambda db: db.undo(),
    ],
    ids=["order", "filter", "facet", "delete", "update", "query", "backup", "compact", "undo"],
)
def test_a_live_record_that_sqlite_lost_is_damage(
    open_db: Callable[..., NoPokeDB], use: Callable[[NoPokeDB], object]
) -> None:
    """Whatever needs a record that is live and not there says which one, and does nothing else."""
    import apsw

    db = open_db(dim=2)
    db.add_many(np.ones((40, 2)), [{"n": n} for n in range(40)])
    db.delete(5)
    db.upsert(1, metadata={"n": 1})
    for where in ({"n": 1}, {"n": {"$gte": 0}}):
        db.count(where)  # from now on filters remember that it passes
    connection = apsw.Connection(str(Path(db.path) / "metadata-1.db"))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("DELETE FROM records WHERE label=40")
    connection.close()
    with pytest.raises(CorruptionError, match=r"^label 40 has no record$") as caught:
        use(db)
    assert caught.value.file == str(Path(db.path) / "metadata-1.db")
    assert db.count() == 39


SEGMENT = SegmentFile("segment-1-0-8-scan.npk", "scan", 0, 8, 5, 6, 7, 8, 0.5)
MANIFEST = Manifest(Settings(3, "l2", 16, 200, "auto"), 11, 1, 2, 3, 4, 5, 6, "live", 7, 8, 9, (SEGMENT,))


def test_a_manifest_is_read_back_and_any_flip_is_noticed(tmp_path: Path) -> None:
    """What is read equals what was written; no changed byte passes."""
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    path = tmp_path / "manifest.json"
    data = path.read_bytes()
    for at in range(len(data)):
        image = bytearray(data)
        image[at] ^= 0x08
        path.write_bytes(bytes(image))
        try:
            assert read_manifest(tmp_path) == MANIFEST, at  # a changed blank between tokens
        except CorruptionError as error:
            assert error.file == str(path)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptionError):
            read_manifest(tmp_path)


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    """A second writer, of this or another process, is refused at once with the pid; a killed holder's lock is free."""
    path = tmp_path / "LOCK"
    lock = WriterLock(path)
    lock.publish(3)
    with pytest.raises(DatabaseLockedError) as caught:
        WriterLock(path)
    assert caught.value.pid == os.getpid() and str(os.getpid()) in str(caught.value)
    published = read_published(path)
    assert published is not None and published == Published(os.getpid(), lock.session, 3, SERVING)
    reader = ReaderLock(path)
    assert not reader.alone
    reader.release()
    lock.release(3)
    code = (
        "import sys,os;from pathlib import Path;from nopokedb.embedded.storage.lock import WriterLock;"
        "l=WriterLock(Path(sys.argv[1]));l.publish(9);print(os.getpid(),flush=True);sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    pid = int(child.stdout.readline())
    with pytest.raises(DatabaseLockedError) as caught:
        WriterLock(path)
    assert caught.value.pid == pid
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    WriterLock(path).abandon()


def test_a_reader_that_is_just_opening_delays_a_writer_but_does_not_refuse_it(tmp_path: Path) -> None:
    """The shared lock of a read-only open is held for moments; a writer that meets it waits."""
    import threading

    path = tmp_path / "LOCK"
    WriterLock(path).release(0)
    reader = ReaderLock(path)
    assert reader.alone
    got: list[WriterLock] = []
    thread = threading.Thread(target=lambda: got.append(WriterLock(path)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive() and not got
    reader.release()
    thread.join(10)
    assert got
    got[0].abandon()
