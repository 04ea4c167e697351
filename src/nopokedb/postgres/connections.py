"""Connections to the server: the pool, the settings of each session, what is tried again, and errors in words.

Reads and writes are tried again while the server cannot be reached, until the handle's `timeout_s` has passed: a
restart or a failover is then a slow call, not an error. Whether a write may be repeated is decided in writing.py.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from nopokedb.errors import (
    ClosedError,
    ForkedHandleError,
    InvalidInputError,
    QueryTimeoutError,
    ReadOnlyError,
    UnavailableError,
)

Connection: TypeAlias = psycopg.Connection[TupleRow]
T = TypeVar("T")

_MAX_CONNECTIONS = 64
"""Opened as they are needed. Each unfinished scan of more than a page holds one."""
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts; the last one repeats. Each is stretched by chance, so that handles do not come at once."""
_RETRIED_STATES = frozenset(
    {
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now: starting up, recovering
        "25006",  # read_only_sql_transaction: the primary has become a standby
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
    }
)


class Raw(bytes):
    """A value in PostgreSQL's binary form; the server takes its type from where it stands."""


class _RawDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: bytes) -> Buffer:
        return bytes(obj)


class _RawLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _RawJsonbLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)[1:]  # the first byte is the version


class TryAgain(Exception):
    """What was read has changed before it was written: the whole transaction starts again."""


class Connections:
    """The pool of one handle. Any number of threads may use it."""

    def __init__(self, uri: str, *, collection: str = "", timeout_s: float, read_only: bool) -> None:
        self.conninfo = make_conninfo(uri, **_defaults(uri, timeout_s))
        self.timeout_s = timeout_s
        self.read_only = read_only
        self.shown = f"{redacted(uri)}#{collection}" if collection else redacted(uri)
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Connection] | None = None

    # --- use -----------------------------------------------------------------------------------------------

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection of the pool, in autocommit mode."""
        connection = self.take()
        try:
            yield connection
        finally:
            self.give_back(connection)

    def take(self) -> Connection:
        """A connection of the pool, which `give_back` has to get back."""
        self.check_usable()
        pool = self._pool or self._open_pool()
        try:
            return pool.getconn(timeout=self.timeout_s)
        except PoolTimeout as error:
            raise psycopg.OperationalError(str(error)) from error

    def give_back(self, connection: Connection) -> None:
        """Return a connection; one in the middle of a transaction is closed."""
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
        pool = self._pool
        if pool is None:  # the handle was closed meanwhile
            connection.close()
        else:
            pool.putconn(connection)

    def run(self, work: Callable[[Connection], T]) -> T:
        """The result of a read, tried again while the server cannot be reached."""
        return self.persist(lambda: self._once(work))

    def persist(self, attempt: Callable[[], T], limit_s: float | None = None) -> T:
        """Call until it succeeds, fails for good, or the time is up (`timeout_s`, or a shorter limit)."""
        self.check_usable()
        deadline = time.monotonic() + (self.timeout_s if limit_s is None else min(limit_s, self.timeout_s))
        for pause in self._pauses():
            try:
                return attempt()
            except TryAgain as again:
                error: Exception = again
            except psycopg.Error as failed:
                if not lost(failed):
                    raise self.translated(failed) from failed
                error = failed
                self._forget_idle()
            if time.monotonic() + pause > deadline:
                raise self.translated(error) from error
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def _once(self, work: Callable[[Connection], T]) -> T:
        with self.connection() as connection:
            return work(connection)

    def dedicated(self) -> Connection:
        """A connection outside of the pool, for work that takes long; the caller closes it."""
        self.check_usable()
        connection = psycopg.connect(self.conninfo, autocommit=True)
        self._configure(connection)
        return connection

    def close(self) -> None:
        """Close all connections. In a child of the opening process they are the parent's and are left alone."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None and os.getpid() == self._pid:
            pool.close()

    @property
    def closed(self) -> bool:
        return self._closed

    # --- inside --------------------------------------------------------------------------------------------

    def check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedHandleError(
                f"this handle of {self.shown} was opened before a fork and cannot be used in the child; open a new one"
            )
        if self._closed:
            raise ClosedError(f"the database {self.shown} is closed; open it again")

    def _open_pool(self) -> ConnectionPool[Connection]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.conninfo,
                    min_size=0,
                    max_size=_MAX_CONNECTIONS,
                    num_workers=1,
                    kwargs={"autocommit": True},
                    configure=self._configure,
                    reconnect_timeout=self.timeout_s,
                    open=True,
                )
            return self._pool

    def _configure(self, connection: Connection) -> None:
        """Settings of a session. Distributed collections set what their workers need in each transaction as well."""
        adapters = connection.adapters
        adapters.register_dumper(Raw, _RawDumper)
        adapters.register_loader("json", _RawLoader)
        adapters.register_loader("jsonb", _RawJsonbLoader)
        milliseconds = str(max(1, int(self.timeout_s * 1000)))
        connection.execute(
            # Plans of vector queries depend on the values. Compiling a plan takes longer than most of the queries.
            "SELECT set_config('plan_cache_mode', 'force_custom_plan', false), set_config('jit', 'off', false), "
            "set_config('hnsw.iterative_scan', 'relaxed_order', false), "
            "set_config('client_min_messages', 'warning', false), set_config('statement_timeout', %s, false), "
            "set_config('default_transaction_read_only', %s, false)",
            (milliseconds, "on" if self.read_only else "off"),
        )

    def _forget_idle(self) -> None:
        """After a lost connection the others of the pool are most likely lost too."""
        pool = self._pool
        if pool is not None:
            pool.drain()

    @staticmethod
    def _pauses() -> Iterator[float]:
        at = 0
        while True:
            yield _PAUSES[min(at, len(_PAUSES) - 1)] * random.uniform(0.5, 1.5)
            at += 1

    def translated(self, error: Exception) -> Exception:
        """The library's error for one of the driver's."""
        if isinstance(error, TryAgain):
            return UnavailableError(f"other writers of {self.shown} were always first for {self.timeout_s:g} s")
        if isinstance(error, psycopg.errors.QueryCanceled):
            return QueryTimeoutError(
                f"{self.shown} did not finish within timeout_s={self.timeout_s:g} seconds ({_words(error)}); "
                "give more, or ask for less"
            )
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) and self.read_only:
            return ReadOnlyError(f"{self.shown} was opened with read_only=True; open it without to write")
        if isinstance(error, psycopg.Error) and lost(error):
            return UnavailableError(
                f"{self.shown} could not be reached within timeout_s={self.timeout_s:g}: {_words(error)}"
            )
        return error


def lost(error: Exception) -> bool:
    """Whether the same may succeed on another connection, or a little later."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _RETRIED_STATES or state.startswith("08")


def redacted(uri: str) -> str:
    """The address without its password, as it may be opened again where none is needed."""
    parts = conninfo_to_dict(uri)
    host, user = str(parts.get("host") or "localhost"), f"{parts['user']}@" if parts.get("user") else ""
    database = quote(str(parts.get("dbname") or ""))
    port = str(parts.get("port") or "")
    if "/" in host:  # the folder of a socket
        return f"postgresql://{user}/{database}?host={quote(host)}" + (f"&port={port}" if port else "")
    hosts, ports = host.split(","), port.split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = [f"{name}:{number}" if number else name for name, number in zip(hosts, ports, strict=False)]
    return f"postgresql://{user}{','.join(places)}/{database}"


def check_uri(uri: str) -> None:
    """The address is one that PostgreSQL's own library understands."""
    try:
        conninfo_to_dict(uri)
    except psycopg.ProgrammingError:  # its words repeat parts of the address, which may be the password
        raise InvalidInputError(
            "expected a PostgreSQL URI like postgresql://user@host/database, got one that libpq refuses; special "
            "characters of a password are written %xx"
        ) from None


def table(kind: str, number: int) -> sql.Identifier:
    """One of the tables of a collection."""
    return sql.Identifier("nopokedb", f"{kind}_{number}")


def _defaults(uri: str, timeout_s: float) -> dict[str, Any]:
    """What the address leaves open."""
    given = conninfo_to_dict(uri)
    wanted = {
        "application_name": "nopokedb",
        "client_encoding": "UTF8",
        "connect_timeout": max(2, min(10, int(timeout_s))),
        # A server that vanished without a word is noticed in about 15 s instead of two hours.
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 15_000,
    }
    return {name: value for name, value in wanted.items() if name not in given}


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
