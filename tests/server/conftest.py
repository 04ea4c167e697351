"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .process import ServerProcess


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers on `tmp_path / "collections"`; whatever still runs is stopped at the end."""
    started: list[ServerProcess] = []

    def start(*flags: str, **options: object) -> ServerProcess:
        server = ServerProcess(tmp_path / "collections", *flags, **options)  # type: ignore[arg-type]
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server without keys for the tests of a module, each with collections of its own."""
    server = ServerProcess(tmp_path_factory.mktemp("shared") / "collections")
    yield server
    assert server.stop() == 0
