"""How large a run is: the sizes of the published table, or tiny ones to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of every measurement; they are part of each result, so a result of another size is not reused."""

    seed_count: int = 20_000
    seed_dim: int = 128
    query_count: int = 200
    round_count: int = 5
    round_s: float = 0.3
    single_add_count: int = 2_000
    write_round_count: int = 3
    thread_count: int = 8
    bulk_count: int = 100_000
    bulk_dim: int = 256
    open_count: int = 5
    upsert_count: int = 1_000_000
    upsert_record_count: int = 1_000
    upsert_dim: int = 64


FULL = Scale()
QUICK = Scale(
    seed_count=2_000,
    query_count=20,
    round_count=1,
    round_s=0.0,
    single_add_count=64,
    write_round_count=1,
    bulk_count=4_000,
    open_count=1,
    upsert_count=2_000,
    upsert_record_count=200,
)

BATCH_SIZE = 1_000
K = 10
