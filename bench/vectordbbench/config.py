"""What the harness needs to know to reach a collection, and to make and search it."""

from __future__ import annotations

from pydantic import BaseModel
from vectordb_bench.backend.clients.api import DBCaseConfig, DBConfig, MetricType

SPACES = {MetricType.COSINE: "cosine", MetricType.L2: "l2", MetricType.IP: "ip"}


class NoPokeDBConfig(DBConfig):  # type: ignore[misc]  # the harness has no types
    """Where the collection lies: a folder for this harness alone, which it may empty."""

    path: str

    def to_dict(self) -> dict[str, str]:
        """The arguments that a client is made with."""
        return {"path": self.path}


class NoPokeDBIndexConfig(BaseModel, DBCaseConfig):  # type: ignore[misc]
    """The kind of index, and the recall that queries ask for."""

    metric_type: MetricType | None = None
    index: str = "auto"
    target_recall: float = 0.99

    def index_param(self) -> dict[str, str]:
        """What a collection is created with."""
        return {"index": self.index, "space": SPACES.get(self.metric_type, "cosine")}

    def search_param(self) -> dict[str, float]:
        """What every query is asked with."""
        return {"target_recall": self.target_recall}
