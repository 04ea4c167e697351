"""Numbers for Prometheus: requests, latencies, and what the open collections hold."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nopokedb.server.collections import Collections, free_bytes

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one server."""

    def __init__(self, collections: Collections) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "nopokedb_requests",
            "Requests that were answered.",
            ("transport", "operation", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "nopokedb_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("transport", "operation"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.active = Gauge("nopokedb_requests_active", "Requests at work or waiting.", registry=self._registry)
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry.register(_OfCollections(collections))

    def observe(self, transport: str, operation: str, status: int, seconds: float) -> None:
        """Count one request. Operations are those of the tables, so the labels are few."""
        key = (transport, operation, status)
        found = self._known.get(key)
        if found is None:
            found = (
                self._requests.labels(transport, operation, str(status)),
                self._seconds.labels(transport, operation),
            )
            self._known[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads it."""
        return generate_latest(self._registry)


class _OfCollections(Collector):
    """What the open collections hold, looked up when it is asked for."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        gauges = {name: GaugeMetricFamily(f"nopokedb_{name}", words, labels=("collection",)) for name, words in _GAUGES}
        counters = {
            name: CounterMetricFamily(f"nopokedb_{name}", words, labels=("collection",)) for name, words in _COUNTERS
        }
        handles = self._collections.open_handles()
        for name, db in handles:
            try:
                stats = db.stats()
            except (RuntimeError, OSError):
                continue  # closed meanwhile, or damaged: whoever uses it is told
            values = {
                "records": stats.count,
                "segments": len(stats.segments),
                "tail_rows": stats.tail_count,
                "index_memory_bytes": stats.index_memory_bytes,
                "cache_bytes": stats.cache_bytes,
                "disk_bytes": stats.disk_bytes,
                "log_bytes": stats.log_bytes,
                "damaged_vectors": stats.damaged_count,
            }
            for key, value in values.items():
                gauges[key].add_metric((name,), value)
            for key in counters:
                counters[key].add_metric((name,), getattr(stats, key))
        yield from gauges.values()
        yield from counters.values()
        yield GaugeMetricFamily("nopokedb_collections_open", "Collections that are open.", value=len(handles))
        failed = len(self._collections.failures())
        yield GaugeMetricFamily("nopokedb_collections_failed", "Collections whose writing has failed.", value=failed)
        yield GaugeMetricFamily(
            "nopokedb_disk_free_bytes", "Free space of the disk.", value=free_bytes(self._collections.root)
        )


_GAUGES = (
    ("records", "Live records."),
    ("segments", "Indexes over ranges of rows."),
    ("tail_rows", "Rows that no index covers yet."),
    ("index_memory_bytes", "Memory that indexes hold."),
    ("cache_bytes", "Records and filters kept in memory."),
    ("disk_bytes", "Size of the folder."),
    ("log_bytes", "Size of the operation log."),
    ("damaged_vectors", "Damaged vectors that the scrub knows of."),
)
_COUNTERS = (
    ("sync_count", "Syncs of the operation log since the collection was opened."),
    ("sync_seconds", "Seconds that these took."),
    ("cache_hits", "Records that were found in the cache."),
    ("cache_misses", "Records that had to be read."),
)
