"""A writer to be killed: acknowledges every batch on stdout after the call returned. Run as a script.

Every record can be checked by itself: the vector and the metadata follow from its id and a version.
"""

from __future__ import annotations

import sys
import threading

import numpy as np

from nopokedb import NoPokeDB
from nopokedb.embedded import compaction, sealing, upkeep

DIM = 6


def vector_of(key: int, version: int) -> np.ndarray:
    """The vector of a record version."""
    return np.random.default_rng([key, version]).standard_normal(DIM).astype(np.float32)


def main(path: str, seed: int, threads: int) -> None:
    """Write until killed. Lines on stdout: `begin ...` before a call, `ack ...` after it returned."""
    # Small limits, so that sealing, log rotation, checkpoints and compactions happen all the time.
    sealing.SEAL_ROWS, upkeep.URGENT_ROWS, upkeep.CHECKPOINT_BYTES, upkeep.PAUSE_S = 256, 512, 20_000, 0.0
    compaction.RETIRED_LABELS, compaction.RETIRED_SHARE, compaction._PAUSE_S = 20, 0.1, 0.0
    db = NoPokeDB(dim=DIM, path=path)
    out = threading.Lock()

    def say(line: str) -> None:
        with out:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def write(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        start = 1_000_000 * (number + 1) + 1000 * int(rng.integers(1, 900))
        live: dict[int, int] = {}
        step = 0
        while True:
            step += 1
            kind = rng.choice(["add", "many", "upsert", "meta", "delete"], p=[0.35, 0.25, 0.15, 0.15, 0.1])
            if kind in ("add", "many") or not live:
                keys = [start + i for i in range(1 if kind == "add" else int(rng.integers(2, 40)))]
                start += len(keys)
                say(f"begin {step} {number} put {','.join(f'{k}:0' for k in keys)}")
                db.add_many(
                    np.array([vector_of(k, 0) for k in keys]),
                    [{"k": k, "v": 0} for k in keys],
                    ids=keys,
                    texts=[f"{k}/0" for k in keys],
                )
                live.update(dict.fromkeys(keys, 0))
            else:
                keys = rng.choice(list(live), min(len(live), int(rng.integers(1, 6))), replace=False).tolist()
                if kind == "delete":
                    say(f"begin {step} {number} del {','.join(map(str, keys))}")
                    assert db.delete_many(keys) == len(keys)
                    for key in keys:
                        del live[key]
                else:
                    news = {key: live[key] + (100 if kind == "upsert" else 1) for key in keys}
                    say(f"begin {step} {number} put {','.join(f'{k}:{v}' for k, v in news.items())}")
                    vectors = np.array([vector_of(k, v // 100) for k, v in news.items()])
                    db.upsert_many(
                        list(news),
                        vectors if kind == "upsert" else None,
                        [{"k": k, "v": v} for k, v in news.items()],
                        texts=[f"{k}/{v}" for k, v in news.items()],
                    )
                    live.update(news)
            say(f"ack {step} {number}")

    workers = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
