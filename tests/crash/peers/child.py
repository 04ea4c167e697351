"""The process whose power is cut: opens a folder, says what is in it, then writes until it is killed.

    python -m crash.peers.child PEER FOLDER SEED FIRST DUMP [BATCHES]

It runs in the environment of that database, so it imports nothing but NumPy and the one module. Output: `read N` once
the records are in the file DUMP, then `begin FIRST COUNT` before each batch and `ack FIRST COUNT` after its call
returned.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

DIM = 16


def vector_of(key: int) -> np.ndarray:
    """float32 (DIM,), never the same for two keys, the same in every version of NumPy."""
    dice = random.Random(key)
    return np.array([dice.uniform(-1, 1) for _ in range(DIM)], np.float32)


def text_of(key: int) -> str:
    """Something to read beside the vector."""
    return f"text {key} " + "x" * (key % 300)


def digest_of(vector: Any, text: str | None) -> int:
    """What a record comes to. A database without texts gives None."""
    raw = np.asarray(vector, np.float32).tobytes()
    return zlib.crc32(raw if text is None else raw + text.encode())


def main() -> None:
    name, folder, seed, first, dump, *rest = sys.argv[1:]
    peer = importlib.import_module(f"crash.peers.{name}").Peer()
    peer.open(Path(folder))
    found = {key: digest_of(vector, text) for key, (vector, text) in peer.read().items()}
    Path(dump).write_text(json.dumps(found))
    print(f"read {len(found)}", flush=True)
    dice, key = random.Random(int(seed)), int(first)
    batches = int(rest[0]) if rest else sys.maxsize
    while batches > 0:
        batches -= 1
        count = dice.choice((1, 1, 1, 5, 20))
        keys = list(range(key, key + count))
        vectors = np.array([vector_of(each) for each in keys])
        print(f"begin {key} {count}", flush=True)
        peer.add(keys, vectors, [text_of(each) for each in keys])
        print(f"ack {key} {count}", flush=True)
        key += count
    sys.stdout.flush()
    os._exit(0)  # closing would sync what adding did not


if __name__ == "__main__":
    main()
