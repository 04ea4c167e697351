"""Writes `tests/data/format-1.tar.gz`: a collection as format 1 stores it, for ever. Run it only for a new format.

    python tests/make_frozen_folder.py FORMAT

The folder holds every kind of record version, a sealed segment, a checkpoint, and batches that only the log has.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from nopokedb import NoPokeDB
from nopokedb.embedded import sealing, upkeep

DIM = 16


def vectors_of(count: int) -> np.ndarray:
    """The same numbers on every machine and version: no generator is involved."""
    grid = np.arange(count * DIM, dtype=np.float64).reshape(count, DIM)
    return (np.sin(grid * 0.37) + np.cos(grid * 0.011) * 0.5).astype(np.float32)


def fill(db: NoPokeDB) -> None:
    """The records that the test knows."""
    vectors = vectors_of(1300)
    db.add_many(vectors[:1200], [{"n": n, "deep": {"list": [n, None, "é"]}} for n in range(1200)])
    db.add(vectors[1200], {"kind": "str id"}, id="café", text="a text with “quotes”")
    deadline = time.monotonic() + 60
    while db.stats().sealing and time.monotonic() < deadline:
        time.sleep(0.02)
    assert db.stats().segments
    db.save()
    db.add_many(vectors[1201:1206], ids=[-5, -4, 10**15, "1", 1_000_000])
    db.upsert(3, metadata={"changed": True}, merge=True)
    db.upsert(4, vectors[1210])
    db.delete_many([5, 6, "1"])


def main(number: str) -> None:
    sealing.SEAL_ROWS, upkeep.PAUSE_S = 512, 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "collection")
        db = NoPokeDB(dim=DIM, path=path, space="cosine")
        fill(db)
        image = Path(folder, "image")
        shutil.copytree(path, image)  # as a killed writer leaves it
        db.close()
        target = Path(__file__).parent / "data" / f"format-{number}.tar.gz"
        with tarfile.open(target, "w:gz") as archive:
            archive.add(image, arcname="collection")
        print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
