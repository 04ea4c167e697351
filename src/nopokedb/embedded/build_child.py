"""A build in a process of its own: the half in the child (`child_build.py` has the other).

Standard input holds the job: a line of JSON, the bitmap of the live rows, recent queries as float32; and then nothing
until the parent is gone. The result is written last, by a rename.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson

from nopokedb.embedded.child_build import RESULT, TRYING
from nopokedb.embedded.index_files import segment_name, write_segment
from nopokedb.embedded.search.construction import Recipe, Source, construct
from nopokedb.embedded.storage.columns import ROW_TYPE
from nopokedb.embedded.storage.files import write_durably

_LOOK_S = 1.0


def main() -> int:
    """Build what standard input asks for; 0 if there is a result, which may say that all recipes were refused."""
    job: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
    bits_bytes, recent_bytes = (sys.stdin.buffer.read(job[name]) for name in ("bits_bytes", "recent_bytes"))
    threading.Thread(target=_end_with_parent, args=(job["parent"],), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(job["nice"])
    faiss.omp_set_num_threads(job["threads"])
    out = Path(job["out"])
    recipes = [Recipe(kind, fine) for kind, fine in job["recipes"]]
    segment = construct(
        _source_of(job, bits_bytes, recent_bytes),
        recipes,
        job["M"],
        job["ef_construction"],
        on_recipe=lambda recipe: _note(out / TRYING, recipe.kind),
    )
    result: dict[str, Any] = {"file": None}
    if segment is not None:
        name = segment_name(job["generation"], segment.start, segment.stop, segment.kind)
        result["file"] = asdict(write_segment(out, segment, name))
    write_durably(out / RESULT, orjson.dumps(result))
    return 0


def _source_of(job: dict[str, Any], bits_bytes: bytes, recent_bytes: bytes) -> Source:
    folder, generation, dim = Path(job["folder"]), job["generation"], job["dim"]
    start, stop = job["start"], job["stop"]
    vectors = np.memmap(folder / f"vectors-{generation}.f32", "<f4", "r", shape=(stop, dim)).view(np.ndarray)
    rows = np.memmap(folder / f"rows-{generation}.bin", ROW_TYPE, "r", shape=(stop,)).view(np.ndarray)
    bits, live = None, np.arange(start, stop)
    if bits_bytes:
        bits = np.frombuffer(bits_bytes, np.uint8)
        live = np.flatnonzero(np.unpackbits(bits, bitorder="little", count=stop - start)) + start
    recent = np.frombuffer(recent_bytes, "<f4").reshape(-1, dim) if recent_bytes else None
    return Source(job["space"], start, stop, vectors, rows["norm"], live, bits, recent)


def _note(path: Path, kind: str) -> None:
    path.write_text(kind)


def _end_with_parent(parent: int) -> None:
    """Standard input ends with the parent; that a fork of the parent holds it open is noticed by its number."""
    ended = threading.Event()

    def wait() -> None:
        os.read(0, 1)  # not by the buffered reader, whose lock the interpreter takes when it ends
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while not ended.wait(_LOOK_S):
        if os.name != "nt" and os.getppid() != parent:
            break
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
