"""A process that holds one database and does what it is told, one line of JSON at a time.

The driver keeps one such process for each database and asks them in turn, so that a slow minute of the machine falls
on all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class ChildError(RuntimeError):
    """A child process reported an error or ended."""


class Conversation:
    """The driver's end. `python` is the interpreter that has the database's packages, `options` its own."""

    def __init__(
        self,
        python: Path,
        module: str,
        arguments: list[str],
        options: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        # Models and data would be looked for on the network by some libraries; nothing here may go there. A warning
        # with every query would count as part of its time.
        offline = {"ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        environment = {
            **os.environ,
            **offline,
            "LANCE_LOG": "error",
            "LANCEDB_LOG": "error",
            "RUST_LOG": "error",
            **(variables or {}),
        }
        command = [str(python), *options, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str, **arguments: Any) -> Any:
        """The child's answer; raises `ChildError` with the child's own report if it failed."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"the child ended before it was asked to {what}") from None
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"the child ended with {self._process.wait()} when asked to {what}")
        reply = json.loads(line)
        if "error" in reply:
            raise ChildError(reply["error"])
        return reply["answer"]

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Closes the child's input, upon which it ends, and waits for that."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, with something unread
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(make: Callable[[], dict[str, Callable[..., Any]]]) -> None:
    """The child's end: makes its actions when it is first asked, and answers until its input is closed.

    A library that is not installed is an answer, too. What libraries print goes to the standard error.
    """
    actions: dict[str, Callable[..., Any]] = {}
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            actions = actions or make()
            reply = {"answer": actions[arguments.pop("do")](**arguments)}
        except Exception:  # noqa: BLE001  # whatever it was, the driver gets it and goes on without this database
            reply = {"error": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
