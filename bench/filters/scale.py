"""How large a run is: the sizes of the published tables, or tiny ones to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass

TARGET_RECALL = 0.99


@dataclass(frozen=True)
class Scale:
    """Sizes of every measurement; they are part of each result, so a result of another size is not reused."""

    count: int = 100_000
    large_count: int = 700_000
    query_count: int = 200
    round_count: int = 5
    round_s: float = 0.25
    """How long one setting is asked in one round."""
    recall_s: float = 4.0
    """How long one pass over the queries may take while the search width is looked for."""
    fresh_count: int = 20
    """Filters never seen before, per kind and round."""
    document_count: int = 100_000
    load_round_count: int = 3
    added_count: int = 20
    """Single records added, each looked for at once."""
    relevance_count: int = 2_000
    """Queries of the retrieval set."""


FULL = Scale()
QUICK = Scale(
    count=4_000,
    large_count=5_000,
    query_count=20,
    round_count=2,
    round_s=0.02,
    recall_s=0.5,
    fresh_count=3,
    document_count=2_000,
    load_round_count=1,
    added_count=2,
    relevance_count=100,
)
