"""A real server process on a free port, and a client for it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

_START_S = 60


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a state, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"


class ServerProcess:
    """`nopokedb serve` on a folder; `client` speaks to it."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        environment: dict[str, str] | None = None,
        key: str | None = None,
        trust: Path | None = None,
    ) -> None:
        self.log = folder.parent / f"{folder.name}.log"
        command = [
            sys.executable,
            "-m",
            "nopokedb",
            "serve",
            str(folder),
            "--port",
            "0",
            "--grpc-port",
            "0",
            "--json",
            *flags,
        ]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NOPOKEDB_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=inherited | (environment or {})
            )
        self.addresses = self._announced()
        self.url: str = self.addresses["rest"]
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        verify = ssl.create_default_context(cafile=str(trust)) if trust else False
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=_START_S, verify=verify)
        self.bare = httpx.Client(base_url=self.url, timeout=_START_S, verify=verify)
        """Without a key."""

    def _announced(self) -> dict[str, Any]:
        """What the server prints once it takes requests: one JSON document."""
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line.rstrip() == "}":
                return json.loads(text)  # type: ignore[no-any-return]
        raise AssertionError(f"the server did not start ({self.process.wait()}): {text}{self.log.read_text()}")

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """One request below /v1/collections."""
        return self.client.request(method, f"/v1/collections{path}", json=body, **options)

    def call(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """The JSON of a request that is answered with this status; None: any that tells of success."""
        answer = self.request(method, path, body)
        expected = answer.is_success if status is None else answer.status_code == status
        assert expected, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it by a signal; its exit code."""
        self.client.close()
        self.bare.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code
