"""Servers that load the application before they fork their workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from preforking_server import COUNT, DIM, MORE, WORKERS, fill

from nopokedb import NoPokeDB

SERVER = Path(__file__).with_name("preforking_server.py")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with an index."""
    folder = tmp_path_factory.mktemp("filled") / "db"
    with NoPokeDB(dim=DIM, path=folder) as db:
        fill(db, 0, COUNT)
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("what", ["closes", "reads", "writes"])
def test_workers_of_a_server_that_forks(tmp_path: Path, filled: Path, what: str) -> None:
    """Whatever the parent did before: a handle of the parent says that it is the parent's, every worker opens one of
    its own and gets right answers from all kinds of queries without a hang, one may write if the parent does not, and
    the parent goes on as before."""
    folder = tmp_path / "db"
    shutil.copytree(filled, folder)
    command = [sys.executable, "-W", "ignore", str(SERVER), str(folder), what]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    told = [json.loads(line) for line in run.stdout.splitlines()]
    workers = told[:WORKERS]
    assert [worker["reads"] for worker in workers] == ["right"] * WORKERS
    if what in ("reads", "writes"):
        for worker in workers:
            assert (
                worker["parents handle"].startswith("ForkedHandleError")
                and "open a new one" in worker["parents handle"]
            )
            assert worker["closing it"] == "None"
        assert told[WORKERS]["parent"] == "right"
    if what == "writes":
        assert workers[0]["writes"].startswith("DatabaseLockedError") and told[WORKERS]["pid"] in workers[0]["writes"]
    else:
        assert workers[0]["writes"] == f"{COUNT + MORE} records, 100 answers"
    with NoPokeDB(path=folder) as db:
        assert len(db) == COUNT + (1 if what == "writes" else MORE)
        assert db.check(deep=True) == []
