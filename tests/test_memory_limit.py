"""Out of memory at any point: a call raises or the process dies; nothing that was acknowledged is lost, batches stay
whole, and the folder opens."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from memory_writer import vector_of

from nopokedb import NoPokeDB

WRITER = Path(__file__).with_name("memory_writer.py")
ROUNDS = int(os.environ.get("NOPOKEDB_MEMORY_ROUNDS", "2"))
_LIMIT_S = 600.0


def check(folder: Path, lines: Sequence[str]) -> Counter[str]:
    """Every acknowledged batch is there byte by byte, every other one whole or absent. How the calls ended."""
    ended: Counter[str] = Counter()
    batches: dict[int, tuple[int, bool]] = {}
    for line in lines:
        word, *rest = line.split()
        if word in ("begin", "ack"):
            batches[int(rest[0])] = (int(rest[1]), word == "ack")
        ended[rest[0] if word == "error" else word] += 1
    with NoPokeDB(path=folder) as db:
        found = set()
        for record in db.scan(include=("metadata", "vector", "text")):
            assert isinstance(record.id, int) and record.vector is not None
            assert record.metadata == {"k": record.id} and record.text == f"text {record.id} " + "é" * 200
            assert record.vector.tobytes() == vector_of(record.id).tobytes()
            found.add(record.id)
        for first, (count, acknowledged) in batches.items():
            there = len(found & set(range(first, first + count)))
            assert there == count or (not acknowledged and there == 0), f"{there} of {count} records from {first} on"
        assert db.check(deep=True) == []
        db.add(vector_of(0))
    return ended


def run(*arguments: object) -> tuple[list[str], int, str]:
    """The whole lines that a writer printed, how it ended, and its last words."""
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=environment)
    return [line for line in done.stdout.splitlines(keepends=True) if line.endswith("\n")], done.returncode, done.stderr


def test_any_allocation_of_python_may_fail(tmp_path: Path, seed: int) -> None:
    """A batch whose n-th allocation fails raises `MemoryError` and changes nothing, or has an unknown outcome, after
    which the handle refuses to write and reopening finds it whole or absent."""
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this Python comes without _testcapi, which makes allocations fail")
    step = 11
    first = 1 + seed % step
    ended: Counter[str] = Counter()
    for attempt in range(20):  # an interpreter that finds no memory may die
        folder = tmp_path / str(attempt)
        lines, code, words = run("points", folder, first, step)
        ended += check(folder, lines)
        if code == 0:
            break
        assert code < 0, words
        first = int(next(line for line in reversed(lines) if line.startswith("at ")).split()[1]) + step
    else:
        raise AssertionError("it dies again and again")
    print(dict(ended))
    assert ended["MemoryError"] >= 8 and ended["OutcomeUnknownError"] >= 3 and ended["ack"] > 30


@pytest.mark.skipif(sys.platform != "linux", reason="the size of the address space is read from /proc")
def test_a_limit_on_the_address_space(tmp_path: Path, seed: int) -> None:
    """The same where the system refuses memory, to native code too: builds of indexes fail, batches raise."""
    ended: Counter[str] = Counter()
    deaths = 0
    for number in range(ROUNDS):
        size = random.Random(seed + number).randint(0, 4_000_000)
        lines, code, words = run("limit", tmp_path / str(number), size)
        assert code in (0, 1) or code < 0, words
        deaths += code != 0
        if lines:
            ended += check(tmp_path / str(number), lines)
    print(dict(ended), f"{deaths} processes ended")
    assert ended["ack"] and (deaths or ended.total() > 2 * ended["ack"])


MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a limit of its own; skips where there can be none."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a control group needs root on Linux")
    own = next(
        (line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line), None
    )
    if own is None:
        pytest.skip("this system has no control groups for memory of version 1")
    folder = MEMORY / own.strip("/") / f"nopokedb-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"a control group cannot be made here: {error}")
    yield folder
    folder.rmdir()


def test_the_system_kills_who_takes_too_much(tmp_path: Path, group: Path, seed: int) -> None:
    """The kernel's out-of-memory killer, at moments that nobody chose."""
    (group / "memory.limit_in_bytes").write_text(str(24 * 2**20))
    acknowledged = 0
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        child = subprocess.Popen(
            [sys.executable, str(WRITER), "hoard", str(folder), str(seed + number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        watchdog = threading.Timer(_LIMIT_S, child.terminate)
        watchdog.start()
        assert child.stdout.readline() == "open\n"
        (group / "cgroup.procs").write_text(str(child.pid))  # what it takes from now on counts
        child.stdin.write("go on\n")
        child.stdin.flush()
        lines = [line for line in child.stdout if line.endswith("\n")]
        child.wait()
        watchdog.cancel()
        child.stdin.close()
        child.stdout.close()
        assert child.returncode == -signal.SIGKILL
        acknowledged += check(folder, lines)["ack"]
    print(f"{acknowledged} acknowledged batches")
    assert acknowledged > ROUNDS
