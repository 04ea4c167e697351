"""Writes `tests/data/legacy-0.5.1.tar.gz`: folders as the original nopokedb 0.5.1 leaves them. Run it with that
package (and hnswlib) installed in an environment of its own; what it wrote is kept for ever.

    python tests/make_legacy_folder.py

    cosine/   saved, then changed: deletes, upserts, metadata without a vector, an operation log cut in its last line
    l2/       closed cleanly, with records that were deleted and replaced before
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nopokedb import NoPokeDB

DIM = 8


def vectors_of(count: int) -> np.ndarray:
    """The same numbers on every machine and version."""
    grid = np.arange(count * DIM, dtype=np.float64).reshape(count, DIM)
    return (np.sin(grid * 0.37 + 1) + np.cos(grid * 0.011) * 0.5).astype(np.float32)


def line(id_: int, vector: np.ndarray, metadata: dict[str, Any]) -> str:
    return json.dumps({"t": "add", "id": id_, "vec": vector.tolist(), "md": metadata}) + "\n"


def main() -> None:
    vectors = vectors_of(60)
    with tempfile.TemporaryDirectory() as folder:
        cosine = Path(folder, "cosine")
        db = NoPokeDB(DIM, 16, str(cosine), "cosine", 8, 50)  # type: ignore[arg-type]
        db.add_many(vectors[:40], [{"n": n, "é": [n, None]} for n in range(40)])
        db.delete(3)
        db.upsert(4, vector=vectors[50])
        db.upsert(5, metadata={"replaced": True})
        db.upsert(1000, vector=vectors[51], metadata={"far": 1})
        db.save()
        # From here on the index on the disk is behind the metadata, as after a crash.
        db.delete(7)
        db.add(vectors[52], {"vector": "lost with the process"})
        db.conn.close()
        # As a process leaves it that was killed right after it had synced its operation log, and in the next one.
        log = line(1002, vectors[53], {"late": 1}) + line(1001, vectors[52], {"late": 0}) + "not json\n"
        log += line(1003, vectors[54], {"cut": 1})[:40]
        (cosine / "oplog.jsonl").write_text(log)
        l2 = Path(folder, "l2")
        db = NoPokeDB(DIM, 100, str(l2), "l2")
        for n in range(10):
            db.add(vectors[n] * 3, {"n": n})
        db.delete(2)
        db.upsert(6, vector=vectors[20])
        db.close()
        target = Path(__file__).parent / "data" / "legacy-0.5.1.tar.gz"
        with tarfile.open(target, "w:gz") as archive:
            for name in ("cosine", "l2"):
                archive.add(Path(folder, name), arcname=name)
        print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
