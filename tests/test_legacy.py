"""Folders of the original package: ids, vectors and metadata come over, and no file of it can do harm."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nopokedb import ArchiveError, InvalidInputError, LegacyFolderError, NoPokeDB, NoPokeError
from nopokedb.legacy import import_legacy, read_index

DIM = 8
ARCHIVE = Path(__file__).parent / "data" / "legacy-0.5.1.tar.gz"


def vectors_of(count: int) -> np.ndarray:
    """As `make_legacy_folder.py` made them."""
    grid = np.arange(count * DIM, dtype=np.float64).reshape(count, DIM)
    return (np.sin(grid * 0.37 + 1) + np.cos(grid * 0.011) * 0.5).astype(np.float32)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector.astype(np.float64))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_crashed_folder_of_the_original(folders: Path, tmp_path: Path) -> None:
    """Saved, changed, killed: what the index, the metadata and the log say together, each id with its own content."""
    before = files_of(folders / "cosine")
    dry = import_legacy(folders / "cosine", tmp_path / "new", dry_run=True)
    assert dry.dry_run and not (tmp_path / "new").exists()
    report = import_legacy(folders / "cosine", tmp_path / "new")
    assert files_of(folders / "cosine") == before
    assert (report.imported, report.from_log, report.deleted, report.log_lines_skipped) == (41, 2, 1, 2)
    assert (report.without_metadata, report.without_vector, report.refused) == ([7], [40], {})
    vectors = vectors_of(60)
    want: dict[int, tuple[np.ndarray, dict[str, Any]]] = {
        n: (vectors[n], {"n": n, "é": [n, None]}) for n in range(40) if n not in (3, 7)
    }
    want[4] = (vectors[50], want[4][1])
    want[5] = (vectors[5], {"replaced": True})
    want[1000] = (vectors[51], {"far": 1})
    want[1001] = (vectors[52], {"late": 0})
    want[1002] = (vectors[53], {"late": 1})
    with NoPokeDB(8, 16, str(tmp_path / "new"), "cosine", 8, 50) as db:  # the original's own line opens it
        records = list(db.scan(include=("metadata", "vector")))
        assert [record.id for record in records] == list(want)
        for record in records:
            vector, metadata = want[record.id]  # type: ignore[index]
            assert record.metadata == metadata
            assert record.vector is not None
            stored = vector if record.id in (1001, 1002) else unit(vector)  # the log has them as given
            assert np.allclose(record.vector, stored, rtol=1e-6)
        assert db.query(vectors[50], k=1)[0].id == 4
        assert db.add(vectors[0]) == 1003


def test_a_closed_folder_under_l2(folders: Path, tmp_path: Path) -> None:
    """Raw vectors come over to the last bit; a wrong space is noticed where it can be."""
    with pytest.raises(ArchiveError, match="l2 or ip"):
        import_legacy(folders / "l2", tmp_path / "new")
    report = import_legacy(folders / "l2", tmp_path / "new", space="l2")
    assert (report.imported, report.deleted, report.from_log, report.dim) == (9, 1, 0, DIM)
    vectors = vectors_of(60)
    with NoPokeDB(path=tmp_path / "new") as db:
        assert db.space == "l2"
        for record in db.scan(include=("metadata", "vector")):
            n = int(record.id)
            assert record.metadata == {"n": n} and record.vector is not None
            assert np.array_equal(record.vector, vectors[20] if n == 6 else vectors[n] * np.float32(3))


def test_vectors_without_metadata_can_be_kept(folders: Path, tmp_path: Path) -> None:
    """Deleted ones may be among them, so it has to be asked for."""
    report = import_legacy(folders / "cosine", tmp_path / "new", keep_bare=True)
    assert report.imported == 42
    with NoPokeDB(path=tmp_path / "new") as db:
        assert db.get(7) == {}


def test_the_refusal_names_the_command(folders: Path) -> None:
    """Who opens an old folder learns what to do."""
    with pytest.raises(LegacyFolderError, match=r"nopokedb import-legacy .*cosine NEW_FOLDER"):
        NoPokeDB(dim=DIM, path=folders / "cosine")


def test_only_metadata_are_left(folders: Path, tmp_path: Path) -> None:
    """The index was never saved: every vector is lost, and the report names the ids."""
    (folders / "l2" / "hnsw_index.bin").unlink()
    report = import_legacy(folders / "l2", tmp_path / "new", space="l2", dry_run=True)
    assert report.imported == 0 and report.without_vector == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(ArchiveError, match="nothing to import"):
        import_legacy(folders / "l2", tmp_path / "new", space="l2")
    assert not (tmp_path / "new").exists()


def test_wrong_folders_are_refused(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").write_text("x")
    with pytest.raises(ArchiveError, match="none of its files"):
        import_legacy(tmp_path / "some", tmp_path / "new")
    for target in (tmp_path / "some", folders / "l2", tmp_path / "some" / "file"):
        with pytest.raises(InvalidInputError, match="empty or absent"):
            import_legacy(folders / "l2", target, space="l2")
    with pytest.raises(InvalidInputError, match="space"):
        import_legacy(folders / "l2", tmp_path / "new", space="euclid")  # type: ignore[arg-type]


def test_cut_and_flipped_index_files(folders: Path, tmp_path: Path, seed: int) -> None:
    """A typed error, or only records that are as they were: the file has no checksum, but every cut is noticed."""
    rng = np.random.default_rng(seed)
    path = folders / "cosine" / "hnsw_index.bin"
    data = path.read_bytes()
    for length in (*range(0, 200, 3), *rng.integers(0, len(data), 60).tolist()):
        path.write_bytes(data[:length])
        with pytest.raises(ArchiveError):
            read_index(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ArchiveError):
        read_index(path)
    for _ in range(300):
        at = int(rng.integers(len(data)))
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :])
        try:
            report = import_legacy(folders / "cosine", tmp_path / "new", dry_run=True)
        except NoPokeError as error:
            assert isinstance(error, ArchiveError), error
        else:
            assert report.imported <= 43


def header(**fields: Any) -> bytes:
    values = {
        "offset0": 0, "room": 10, "count": 1, "width": 4 + 8 * 2 + 4 * DIM + 8, "label_at": 4 + 8 * 2 + 4 * DIM,
        "vector_at": 4 + 8 * 2, "level": 0, "entry": 0, "links": 2, "links0": 4, "M": 2, "factor": 1.0, "ef": 10,
    } | fields  # fmt: skip
    return struct.pack("<6QiI3QdQ", *values.values())


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 2**63},
        {"count": 2**64 - 1, "room": 2**64 - 1},
        {"width": 0},
        {"width": 2**64 - 8},
        {"label_at": 2**64 - 1},
        {"label_at": 0},
        {"vector_at": 2**63},
        {"M": 0, "links": 0, "links0": 0, "vector_at": 4, "label_at": 4 + 4 * DIM, "width": 12 + 4 * DIM},
        {"M": 2**61, "links": 2**61, "links0": 2**62},
        {"offset0": 96},
        {"room": 0},
    ],
)
def test_hostile_headers(tmp_path: Path, fields: dict[str, int]) -> None:
    """Sizes that overflow, point outside, or ask for the whole memory."""
    path = tmp_path / "hnsw_index.bin"
    element = bytes(20) + np.ones(DIM, "<f4").tobytes() + struct.pack("<Q", 5) + bytes(4)
    path.write_bytes(header() + element)
    assert list(read_index(path).vectors) == [5]
    path.write_bytes(header(**fields) + element)
    with pytest.raises(ArchiveError):
        read_index(path)
    path.write_bytes(header(count=2) + element[:-4] * 2 + bytes(8))
    with pytest.raises(ArchiveError, match="twice"):
        read_index(path)
    path.write_bytes(header() + element[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(ArchiveError, match="links"):
        read_index(path)


def test_hostile_metadata_and_logs(folders: Path, tmp_path: Path) -> None:
    """Rows and lines that cannot be stored are named with their reason; a file that is no database is refused."""
    l2 = folders / "l2"
    connection = sqlite3.connect(l2 / "metadata.db")
    connection.execute("UPDATE metadata SET data='[1]' WHERE id=0")
    connection.execute("UPDATE metadata SET data='{\"a\": NaN}' WHERE id=1")
    connection.execute("UPDATE metadata SET data=? WHERE id=3", ("[" * 100_000,))
    connection.execute("UPDATE metadata SET data=x'00ff' WHERE id=4")
    connection.commit()
    connection.close()
    lines = ["{", "[]", '{"t":"add"}', '{"t":"add","id":"x","vec":[],"md":{}}', json.dumps({"t": "del", "id": 1})]
    lines += [json.dumps({"t": "add", "id": 50 + n, "vec": v, "md": {}}) for n, v in enumerate(
        [[1] * 7, ["a"] * DIM, [float("nan")] * DIM, [[1]] * DIM, [1e300] * DIM, [1.0] * DIM]
    )]  # fmt: skip
    (l2 / "oplog.jsonl").write_text("\n".join([*lines, "[" * 100_000]))
    report = import_legacy(l2, tmp_path / "new", space="l2")
    assert set(report.refused) == {"0", "1", "3", "4", "50", "51", "52", "53", "54"}
    assert report.log_lines_skipped == 6 and report.from_log == 1 and report.imported == 6
    shutil.rmtree(tmp_path / "new")
    for content in (b"", b"SQLite format 3\0" + bytes(500), b"no database at all" * 100):
        (l2 / "metadata.db").write_bytes(content)
        with pytest.raises(ArchiveError):
            import_legacy(l2, tmp_path / "new", space="l2")
    (l2 / "metadata.db").unlink()
    connection = sqlite3.connect(l2 / "metadata.db")
    connection.execute("CREATE VIEW metadata AS SELECT 1 AS id, '{}' AS data")
    connection.close()
    with pytest.raises(ArchiveError, match="table"):
        import_legacy(l2, tmp_path / "new", space="l2")
    assert not (tmp_path / "new").exists()
