"""Folders of every format ever released open and answer."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from make_frozen_folder import vectors_of
from model import dump

from nopokedb import NoPokeDB

ARCHIVES = sorted((Path(__file__).parent / "data").glob("format-*.tar.gz"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_a_frozen_folder_opens(tmp_path: Path, archive: Path) -> None:
    """A folder that was written by the first version of its format, and never closed, has all its records."""
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    vectors = vectors_of(1300)
    for _ in range(2):  # the second time it is a clean folder
        with NoPokeDB(path=tmp_path / "collection") as db:
            assert (db.dim, db.space, len(db)) == (16, "cosine", 1203)
            assert db.stats().segments, "the stored index is used"
            assert db[0].metadata == {"n": 0, "deep": {"list": [0, None, "é"]}}
            assert db[3].metadata == {"n": 3, "deep": {"list": [3, None, "é"]}, "changed": True}
            assert np.array_equal(db[3].vector, vectors[3]) and np.array_equal(db[4].vector, vectors[1210])
            assert db["café"].text == "a text with “quotes”"
            assert 5 not in db and "1" not in db and -4 in db and 10**15 in db
            assert [record.id for record in db.scan(limit=3)] == [-5, -4, 0]
            assert [record.id for record in db.scan(after=10**14)] == [10**15, "café"]
            assert db.query(vectors[700], k=1)[0].id == 700
            assert db.query(vectors[1203], k=1)[0].id == 10**15
    with NoPokeDB(path=tmp_path / "collection") as db:
        assert db.add(vectors[0]) == 10**15 + 1
        for record in db.scan(include=("vector",)):
            if isinstance(record.id, int) and 6 < record.id < 1200:
                assert np.array_equal(record.vector, vectors[record.id])


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_a_frozen_folder_can_be_compacted(tmp_path: Path, archive: Path) -> None:
    """A new generation of an old folder has the same records, and so has the next open."""
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    with NoPokeDB(path=tmp_path / "collection") as db:
        before = dump(db)
        db.compact()
        assert db.stats().generation == 2 and dump(db) == before
    with NoPokeDB(path=tmp_path / "collection") as db:
        assert dump(db) == before and not db.stats().notes


def test_there_is_a_frozen_folder_of_every_format() -> None:
    """A new format comes with its archive."""
    from nopokedb.embedded.storage.manifest import FORMAT_VERSION

    assert [path.name for path in ARCHIVES] == [f"format-{n}.tar.gz" for n in range(1, FORMAT_VERSION + 1)]
