"""What a server is told: its folder, addresses, limits.

The command line makes these of flags and NOPOKEDB_* variables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for. More is refused, with the limit in the message."""

    max_body_bytes: int = 64 * 2**20
    """Body of a request that is read into memory."""
    max_upload_bytes: int = 8 * 2**30
    """Body of an upload, which is read in parts (NDJSON, Arrow, Parquet)."""
    max_k: int = 10_000
    max_batch: int = 10_000
    """Records, ids or operations in one JSON request."""
    max_queries: int = 1_000
    """Vectors in one query."""
    max_page: int = 10_000
    """Records of one page of a scan, values of a facet."""
    max_filter_bytes: int = 64 * 2**10
    """A filter as JSON."""
    max_concurrent: int = 1_000
    """Requests at work or waiting at once; more are told to come back (429)."""
    timeout_s: float = 30.0
    """For receiving and answering a request. What was begun is not cut off: a write that is answered with 503 may have
    taken place."""
    upload_timeout_s: float = 3_600.0
    """The same for uploads."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server."""

    root: Path
    """The folder of collections."""
    host: str = "127.0.0.1"
    port: int = 7331
    """0: any free one."""
    grpc_port: int | None = 7332
    """0: any free one; None: no gRPC."""
    keys: Path | None = None
    """The keys file (`nopokedb keys`)."""
    api_key: str | None = None
    """One admin key beside those of the file (NOPOKEDB_API_KEY)."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients may call the server, beside its address and, on a loopback address, localhost."""
    backups: Path | None = None
    """Where backups are written; None: `.backups` in the root."""
    models: tuple[str, ...] = ("wordllama",)
    """Models that `embed` may name when a collection is created, as `NoPokeDB` takes them. Clients know them by the
    names that collections remember ("model2vec:potion" for "model2vec:/models/potion"), so they see no path."""
    max_memory: int = 2 * 2**30
    """Bytes that indexes and caches of all open collections may hold together."""
    max_open: int = 256
    """Collections open at once."""
    min_free_bytes: int = 64 * 2**20
    """With less free disk space the server is not ready, and opens no collection again after a failed write."""
    threads: int = field(default_factory=lambda: 4 + 2 * (os.cpu_count() or 1))
    """Threads that do the work of requests; uploads and jobs have their own."""
    job_threads: int = 2
    shutdown_timeout_s: float = 60.0
    """How long requests in flight may take to finish once the server is told to stop."""
    log_requests: bool = False
    """Log every request, not only those that fail or are slow."""
    opentelemetry: bool = False
    """Record a span per request."""
    limits: Limits = Limits()

    @property
    def backup_folder(self) -> Path:
        return self.root / ".backups" if self.backups is None else self.backups

    @property
    def upload_folder(self) -> Path:
        """Where uploads wait until they are read."""
        return self.root / ".uploads"
