"""`backup` and `restore`: one consistent moment in one file, and back; what a hostile file can do is raise."""

from __future__ import annotations

import copy
import shutil
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import orjson
import pytest
from model import Model, dump, dump_model

from nopokedb import (
    ArchiveError,
    Backup,
    CorruptionError,
    InvalidInputError,
    NoPokeDB,
    NoPokeError,
    check,
    restore,
)
from nopokedb.embedded import archive as archives
from nopokedb.embedded.archive import ArchiveReader, ArchiveWriter

DIM = 6


def fill(db: NoPokeDB, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((300, DIM)).astype(np.float32)
    texts = [f"text é {n}" if n % 3 else None for n in range(300)]
    db.add_many(vectors, [{"n": n, "f": n / 7, "deep": [None, {"é": n}]} for n in range(300)], texts=texts)
    db.add_many(vectors[:3], ids=["a", "1", -7], texts=["of a", None, "of -7"])
    db.delete_many([5, 6])
    db.upsert(8, metadata={"m": 1e16}, merge=True)
    db.upsert(9, vectors[10])


def restored(source: Any, path: Path) -> list[tuple[Any, ...]]:
    count = restore(source, path)
    assert check(path) == []
    with NoPokeDB(path=path) as db:
        assert count == len(db)
        return dump(db)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_backup_restores_every_byte(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path, read_only: bool
) -> None:
    """Vectors, metadata, texts, ids, settings, and automatic ids that are never used twice; from a reader too."""
    db = open_db(dim=DIM, space="l2", index="hnsw", M=8)
    fill(db, rng)
    last = db.add(np.ones(DIM))
    db.delete(last)
    content = dump(db)
    if read_only:
        with NoPokeDB(path=tmp_path / "db", read_only=True) as reader:
            made = reader.backup(tmp_path / "file.npkb")
    else:
        made = db.backup(str(tmp_path / "file.npkb"))
    size = (tmp_path / "file.npkb").stat().st_size
    assert made == Backup(str(tmp_path / "file.npkb"), db.stats().lsn, None, len(db), 0, size)
    assert restored(tmp_path / "file.npkb", tmp_path / "again") == content
    with NoPokeDB(path=tmp_path / "again") as again:
        assert (again.space, again.stats().index) == ("l2", "hnsw")
        assert again.add(np.ones(DIM)) == db.add(np.ones(DIM))
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".restoring*"))


def test_an_empty_collection_is_backed_up_too(open_db: Callable[..., NoPokeDB], tmp_path: Path) -> None:
    db = open_db(dim=DIM)
    db.backup(tmp_path / "file")
    assert restored([tmp_path / "file"], tmp_path / "again") == []


def test_a_backup_beside_writers_is_one_moment(open_db: Callable[..., NoPokeDB], seed: int, tmp_path: Path) -> None:
    """Whatever is written meanwhile, checkpoints included, each backup equals the model at exactly one lsn: its own."""
    rng = np.random.default_rng(seed)
    db = open_db(dim=DIM, durability="os")
    model = Model(DIM, "cosine")
    at_lsn: dict[int, list[tuple[Any, ...]]] = {0: []}
    done = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for n in range(400):
                key = int(rng.integers(60))
                if n % 5 == 4 and key in model.records:
                    db.delete(key)
                    del model.records[key]
                else:
                    vector = rng.standard_normal(DIM).astype(np.float32)
                    old = model.records.get(key)
                    db.upsert(key, vector, {"n": n}, text=f"t{n}" if n % 2 else None)
                    model.put(key, vector, {"n": n}, f"t{n}" if n % 2 else (old[2] if old else None))
                at_lsn[db.stats().lsn] = dump_model(copy.copy(model))
                if n % 90 == 0:
                    db.save()
        except BaseException as error:  # noqa: BLE001  # shown by the test
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=write)
    thread.start()
    made = []
    while not done.is_set():
        previous = made[-1].path if made else None
        made.append(db.backup(tmp_path / f"{len(made)}.full"))
        made.append(db.backup(tmp_path / f"{len(made)}.inc", since=previous))
        made.append(made.pop())
    thread.join()
    assert not failed, failed
    assert len({backup.lsn for backup in made}) > 2
    for backup in made[:6]:
        if backup.since_lsn is None:
            assert (
                restored(backup.path, tmp_path / f"restored{backup.lsn}{Path(backup.path).name}") == at_lsn[backup.lsn]
            )


def test_a_chain_of_incremental_backups(open_db: Callable[..., NoPokeDB], seed: int, tmp_path: Path) -> None:
    """A full one and any number of incremental ones give the state of the last; each holds only what changed."""
    rng = np.random.default_rng(seed)
    db = open_db(dim=DIM)
    fill(db, rng)
    files = [db.backup(tmp_path / "0").path]
    contents = [dump(db)]
    for n in range(1, 5):
        db.upsert(3, metadata={"round": n})
        db.delete("a")
        db.add(rng.standard_normal(DIM), {"again": n}, id="a")  # its text is gone, an upsert would have kept it
        db.delete(10 + n)
        db.add_many(rng.standard_normal((2, DIM)), texts=["x", None])
        db.upsert("b", rng.standard_normal(DIM), text="b")
        if n == 3:
            db.delete("b")
        if n % 2:
            db.save()
        made = db.backup(tmp_path / str(n), since=files[-1])
        assert made.count in (4, 5) and made.deleted_count in (1, 2)
        files.append(made.path)
        contents.append(dump(db))
    for n in range(1, 5):
        assert restored(files[: n + 1], tmp_path / f"restored{n}") == contents[n]
    for wrong in (files[1:], [files[0], files[2]], files[::-1], [files[0], files[0]], []):
        with pytest.raises((ArchiveError, InvalidInputError)):
            restore(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_an_incremental_backup_since_an_lsn_of_the_log(open_db: Callable[..., NoPokeDB], rng: np.random.Generator,
                                                      tmp_path: Path) -> None:  # fmt: skip
    """While the log has the batches; afterwards the message asks for the earlier file."""
    db = open_db(dim=DIM)
    fill(db, rng)
    full = db.backup(tmp_path / "full")
    db.delete(0)
    db.upsert(1, metadata={"new": 1})
    db.undo()
    db.add(np.ones(DIM), id="x")
    made = db.backup(tmp_path / "inc", since=full.lsn)
    assert (made.since_lsn, made.deleted_count) == (full.lsn, 1)
    assert restored([full.path, made.path], tmp_path / "again") == dump(db)
    db.save()
    with pytest.raises(InvalidInputError, match="earlier backup file"):
        db.backup(tmp_path / "late", since=full.lsn)
    with pytest.raises(InvalidInputError, match="lsn"):
        db.backup(tmp_path / "late", since=10**6)
    assert restored([full.path, db.backup(tmp_path / "late", since=full.path).path], tmp_path / "more") == dump(db)


def test_since_a_backup_of_another_collection_is_refused(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path
) -> None:
    db = open_db(dim=DIM)
    fill(db, rng)
    with NoPokeDB(dim=DIM, path=tmp_path / "other") as other:
        other.backup(tmp_path / "theirs")
    with pytest.raises(ArchiveError, match="another collection"):
        db.backup(tmp_path / "mine", since=tmp_path / "theirs")
    assert not (tmp_path / "mine").exists()


def test_wrong_targets_are_refused(open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path) -> None:
    """Nothing is overwritten, by backup or restore."""
    db = open_db(dim=DIM)
    fill(db, rng)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InvalidInputError, match="exists"):
        db.backup(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(InvalidInputError, match="existing folder"):
        db.backup(tmp_path / "none" / "file")
    with pytest.raises(InvalidInputError):
        db.backup("http://somewhere/file")
    made = db.backup(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for target in ("full", "there", "db", "link"):
        with pytest.raises(InvalidInputError, match="empty or absent"):
            restore(made.path, tmp_path / target)
    assert restored(made.path, tmp_path / "empty") == dump(db)


def test_a_damaged_collection_gives_no_backup(
    open_db: Callable[..., NoPokeDB], rng: np.random.Generator, tmp_path: Path
) -> None:
    """Wrong bytes do not get into a backup."""
    db = open_db(dim=DIM)
    fill(db, rng)
    with (tmp_path / "db" / "vectors-1.f32").open("r+b") as file:
        file.seek(20 * DIM * 4)
        file.write(b"\1\2\3")
    with pytest.raises(CorruptionError, match="row 20"):
        db.backup(tmp_path / "file")
    assert not (tmp_path / "file").exists() and not (tmp_path / "file.tmp").exists()


@pytest.fixture
def sound(tmp_path: Path, rng: np.random.Generator) -> Path:
    with NoPokeDB(dim=DIM, path=tmp_path / "db") as db:
        db.add_many(rng.standard_normal((20, DIM)), [{"n": n} for n in range(20)], texts=["t"] * 20)
        full = db.backup(tmp_path / "base")
        db.delete(3)
        db.add(np.ones(DIM), id="new")
        db.backup(tmp_path / "file")
        db.backup(tmp_path / "inc", since=full.path)
    return tmp_path / "file"


def refuses(file: Path, tmp_path: Path, data: bytes | None = None) -> None:
    """The file raises a typed error, quickly, and leaves nothing behind."""
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(NoPokeError) as caught:
        restore(file, tmp_path / "out")
    assert isinstance(caught.value, ArchiveError), caught.value
    assert str(file) in str(caught.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".restoring*"))


def test_every_cut_and_every_flip_is_refused(sound: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """Cut at every 7th byte, flipped at random places, extended: never a partial collection."""
    data = sound.read_bytes()
    for length in range(0, len(data), 7):
        refuses(sound, tmp_path, data[:length])
    for _ in range(150):
        at = int(rng.integers(len(data)))
        refuses(sound, tmp_path, data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :])
    refuses(sound, tmp_path, data + b"x")
    refuses(sound, tmp_path, b"")
    refuses(sound, tmp_path, b"NPKBACK1" + bytes(100))
    sound.unlink()
    refuses(sound, tmp_path)


def rewritten(
    source: Path, target: Path, block: Callable[[int, bytes, bytes], Any] = lambda *b: b, **fields: Any
) -> Path:
    """A copy whose checksums all hold, with other fields in its description or other blocks."""
    reader = ArchiveReader(source)
    settings = replace(reader.description.settings, **fields.pop("settings", {}))
    with target.open("wb") as file:
        writer = ArchiveWriter(file, replace(reader.description, settings=settings, **fields))
        for item in reader.blocks():
            changed = block(item.kind, item.head, item.vectors)
            if changed is not None:
                writer.write(*changed)
        writer.finish()
    return target


HOSTILE: dict[str, dict[str, Any]] = {
    "a count that is too small": {"count": 3},
    "a huge count": {"count": 2**31},
    "a negative count": {"count": -1},
    "dim as text": {"settings": {"dim": "../../etc"}},
    "a huge dim": {"settings": {"dim": 2**40}},
    "another dim": {"settings": {"dim": 7}},
    "an unknown space": {"settings": {"space": "../x"}},
    "an unknown index": {"settings": {"index": "pickle"}},
    "a float lsn": {"lsn": 1.5},
    "an incremental one": {"since_lsn": 0},
    "next automatic id past 64 bits": {"next_auto_id": 2**63 + 5},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_descriptions_are_refused(sound: Path, tmp_path: Path, name: str) -> None:
    """Checksums hold, contents lie."""
    refuses(rewritten(sound, tmp_path / "hostile", **HOSTILE[name]), tmp_path)


def payload_with(head: bytes, vectors: bytes, **fields: Any) -> tuple[bytes, bytes]:
    from nopokedb.embedded.storage.frames import decode_frame, encode_frame

    payload = encode_frame(replace(decode_frame(head + vectors, 0), **fields))
    border = len(payload) - len(vectors)
    return payload[:border], payload[border:]


def records(change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Callable[[int, bytes, bytes], Any]:
    return lambda kind, head, vectors: (
        (kind, *change(head, vectors)) if kind == archives.RECORDS else (kind, head, vectors)
    )


HOSTILE_BLOCKS: dict[str, Callable[[int, bytes, bytes], Any]] = {
    "no records": lambda kind, *rest: None if kind == archives.RECORDS else (kind, *rest),
    "an id twice": records(lambda h, v: payload_with(h, v, ids=[1, 1, *range(2, 20)])),
    "an empty id": records(lambda h, v: payload_with(h, v, ids=["", *range(1, 20)])),
    "metadata that are no object": records(lambda h, v: payload_with(h, v, metadatas=[b"[]"] * 20)),
    "metadata that are no JSON": records(lambda h, v: payload_with(h, v, metadatas=[b"{"] * 20)),
    "metadata with a huge number": records(lambda h, v: payload_with(h, v, metadatas=[b'{"a":1e999}'] * 20)),
    "deep metadata": records(lambda h, v: payload_with(h, v, metadatas=[b'{"a":' + b"[" * 99 + b"]" * 99 + b"}"] * 20)),
    "rows out of range": records(lambda h, v: payload_with(h, v, rows=np.full(20, 2**31, np.uint32))),
    "a retired label": records(lambda h, v: payload_with(h, v, retired=np.array([1], np.uint32))),
    "NaN": records(lambda h, v: (h, np.full(len(v) // 4, np.nan, "<f4").tobytes())),
    "zero vectors under cosine": records(lambda h, v: (h, bytes(len(v)))),
    "fewer vectors": records(lambda h, v: (h, v[: -DIM * 4])),
    "bytes that belong to nothing": records(lambda h, v: (h + bytes(4), v)),
    "an empty payload": records(lambda h, v: (b"", b"")),
    "random bytes": records(lambda h, v: (np.random.default_rng(1).bytes(len(h)), v)),
    "lengths past the end": records(lambda h, v: (h[:60] + b"\xff" * (len(h) - 60), v)),
}


@pytest.mark.parametrize("name", HOSTILE_BLOCKS)
def test_hostile_records_are_refused(sound: Path, tmp_path: Path, name: str) -> None:
    """What could not be written through the API cannot be restored either."""
    refuses(rewritten(tmp_path / "base", tmp_path / "hostile", HOSTILE_BLOCKS[name]), tmp_path)


def test_a_compressed_bomb_is_refused_before_it_unpacks(sound: Path, tmp_path: Path) -> None:
    """A block that unpacks to more than it declares, and one that declares more than the limit."""
    reader = ArchiveReader(sound)
    for declared in (100, archives.MAX_HEAD_BYTES + 1, 2**63):
        packed = zlib.compress(bytes(300 * 2**20), 9) if declared == 100 else zlib.compress(b"x")
        with (tmp_path / "bomb").open("wb") as file:
            ArchiveWriter(file, reader.description)
            block = struct.pack(
                "<IIQQQI", 0x424B504E, archives.RECORDS, declared, len(packed), 0, google_crc32c.value(packed)
            )
            file.write(block + struct.pack("<I", google_crc32c.value(block)) + packed)
        refuses(tmp_path / "bomb", tmp_path)
    head = struct.pack("<8sIII", b"NPKBACK1", 1, 2**31, 0)
    refuses(tmp_path / "bomb", tmp_path, head + struct.pack("<I", google_crc32c.value(head)))


def test_a_restore_that_fails_leaves_nothing(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk known beforehand, or an error in the middle."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("U", (), {"free": 10, "total": 1000})())
    with pytest.raises(OSError, match="free bytes"):
        restore(sound, tmp_path / "out")
    monkeypatch.undo()
    from nopokedb.embedded.engine import EmbeddedEngine

    def fail(self: EmbeddedEngine, next_auto_id: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(EmbeddedEngine, "raise_auto_ids", fail)
    with pytest.raises(OSError, match="disk full"):
        restore(sound, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".restoring*"))
    monkeypatch.undo()
    assert restore(sound, tmp_path / "out") == 20


def test_wrong_arguments_of_restore_are_refused(tmp_path: Path) -> None:
    for wrong in (5, None, b"x", [5], []):
        with pytest.raises(InvalidInputError):
            restore(wrong, tmp_path / "out")  # type: ignore[arg-type]
    assert orjson.loads(b"[]") == [] and not (tmp_path / "out").exists()


def test_indexes_on_fields_and_computed_vectors_come_back(tmp_path: Path) -> None:
    """What is restored indexes the same fields, has its model, and knows which vectors were computed from texts."""

    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[len(text), text.count("a") + 1] for text in texts], np.float32)

    with NoPokeDB(path=tmp_path / "db", embed=embed, indexed_fields=("year",), text_language="de") as db:
        db.add(metadata={"year": 1}, text="aaa", id="computed")
        db.add([5, 5], {"year": 2}, text="aaa", id="hand")
        db.backup(tmp_path / "full")
        db.upsert("more", text="a")
        db.backup(tmp_path / "more", since=tmp_path / "full")
    assert restore([tmp_path / "full", tmp_path / "more"], tmp_path / "again") == 3
    with NoPokeDB(path=tmp_path / "again", embed=embed, text_language="de") as db:
        assert db.stats().indexed_fields == ("year",) and db.count({"year": 2}) == 1
        db.upsert_many(["computed", "hand", "more"], texts=["bb", "bb", "bb"])
        vectors = [record.vector.tolist() for record in db.get_many(["computed", "hand", "more"], include=("vector",))]
        assert vectors == [[2, 1], [5, 5], [2, 1]]
