"""How large a run is: the sizes of the published tables, or tiny ones to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass

TARGETS = (0.95, 0.99)


@dataclass(frozen=True)
class Scale:
    """Sizes of every measurement; those that a result depends on are kept with it."""

    gaussian_count: int = 20_000
    gaussian_dim: int = 128
    real_counts: tuple[int, ...] = (20_000, 100_000, 300_000, 700_000, 1_000_000)
    query_count: int = 400
    round_count: int = 4
    round_s: float = 0.25
    """How long one setting is asked in one round."""
    recall_s: float = 6.0
    """How long one pass over the queries may take while a search width is looked for."""
    ingest_round_count: int = 3
    ingest_s: float = 1.5
    """How long a database is filled in one round, in each way."""
    thread_count: int = 8
    while_s: float = 4.0
    """How long is asked while vectors are added, and as long before that."""
    seal_round_count: int = 2

    @property
    def main_count(self) -> int:
        """The size at which everything but search is measured."""
        return self.real_counts[1]


FULL = Scale()
QUICK = Scale(
    gaussian_count=2_000,
    gaussian_dim=32,
    real_counts=(1_000, 3_000, 4_000, 5_000, 6_000),
    query_count=20,
    round_count=2,
    round_s=0.02,
    recall_s=0.5,
    ingest_round_count=1,
    ingest_s=0.05,
    thread_count=2,
    while_s=0.3,
    seal_round_count=1,
)
