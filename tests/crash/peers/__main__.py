"""Cut the power of every database in the same way, and count what is left.

    python -m crash.peers --cuts 100 [--seed N] [--only chroma_peer ...] [--file-system xfs] [--report FILE]

A round: the folder is opened and everything in it read, then batches of 1, 5 and 20 records are written, each
acknowledged after its call returned. At a random moment the process is stopped, so that it says nothing more, and the
file system is told to shut down without writing its journal. After the next mount a new process opens the folder; what
it reads is compared with what was acknowledged. After damage, and after some rounds anyway, the next folder is a new
one. The rounds of a seed are the same for every database.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from crash import power
from crash.peers.child import digest_of, text_of, vector_of
from crash.pool import TESTS, environment

OURS = "nopokedb_ours"
NAMES = (
    OURS,
    "sqlite_vec_peer",
    "duckdb_peer",
    "chroma_peer",
    "lancedb_peer",
    "qdrant_edge_peer",
    "milvus_lite_peer",
    "zvec_peer",
    "faiss_file",
)
_ROUNDS = 8
"""After so many cuts the next folder is a new one, so that creation is cut too."""
_MOST_LINES = 120
_DELAY_S = 0.004
_LIMIT_S = 600.0
_PROBE = (5, 25)
"""Batches written while syncs are counted: the difference leaves out those of opening."""
_SYNCS = re.compile(r"(fsync|fdatasync|syncfs)\(|msync\(.*MS_SYNC")
_ABOUT = "import importlib, json, sys; from importlib.metadata import version as v; " \
    "m = importlib.import_module('crash.peers.' + sys.argv[1]); " \
    "print(json.dumps([m.LABEL, m.SETTING, ' '.join(f'{p} {v(p)}' for p in m.PACKAGES)]))"  # fmt: skip


@dataclass(slots=True)
class Result:
    """What the cuts of one database came to. Records, but where it says folders."""

    label: str
    setting: str
    versions: str
    syncs_per_batch: float | None = None
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged, and missing in a folder that opens."""
    corrupt: int = 0
    """Read back with other bytes than were written, or never written."""
    partial: int = 0
    """Batches without acknowledgement that are there in part."""
    unopenable: int = 0
    """Folders whose opening or reading raises, dies or does not end."""
    bad_cuts: int = 0
    """After which anything acknowledged was missing, changed or out of reach."""
    errors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Folder:
    """What one folder was told."""

    promised: set[int] = field(default_factory=set)
    begun: range = range(0)
    """The batch that was not acknowledged."""
    next_key: int = 1
    cuts: int = 0


class _Child:
    """The process: opens, reads, then writes until it is stopped."""

    def __init__(self, name: str, python: Path, place: Path, seed: int, first: int, batches: int | None) -> None:
        self._dump = place.parent.parent / "dump.json"  # not on the disk, which is unmounted
        self._dump.unlink(missing_ok=True)
        arguments = [name, str(place), str(seed), str(first), str(self._dump)]
        if batches is not None:
            arguments.append(str(batches))
        self.process = subprocess.Popen(
            [str(python), "-m", "crash.peers.child", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=place.parent.parent,
        )
        self._ended: tuple[list[str], str] | None = None
        self._watchdog = threading.Timer(_LIMIT_S, self.process.kill)
        self._watchdog.start()
        assert self.process.stdout is not None
        self.lines: Iterator[str] = iter(self.process.stdout)

    def found(self) -> dict[int, int] | None:
        """Digests of all records by key; None if the folder could not be opened and read."""
        if not next(self.lines, "").startswith("read "):
            return None
        return {int(key): value for key, value in json.loads(self._dump.read_text()).items()}

    def stop(self) -> None:
        """Return when none of its threads does anything more."""
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + _LIMIT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            if Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return

    def end(self) -> tuple[list[str], str]:
        """Kill it; what it said before, and its last words. Once."""
        if self._ended is not None:
            return self._ended
        self._ended = self._end()
        return self._ended

    def _end(self) -> tuple[list[str], str]:
        self.process.kill()
        self._watchdog.cancel()
        rest = [line for line in self.lines if line.endswith("\n")]
        assert self.process.stderr is not None and self.process.stdout is not None
        words = self.process.stderr.read().strip().splitlines()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        return rest, words[-1][:300] if words else f"it ended with {self.process.returncode} and no word"


def _judge(found: dict[int, int] | None, folder: _Folder, result: Result, words: str) -> bool:
    """Compare with what was acknowledged; False if this folder is not worth going on with."""
    if found is None:
        result.unopenable += 1
        result.errors.append(words)
        result.bad_cuts += 1
        return False
    keeps_texts = "faiss" not in result.versions
    wrong = [
        key
        for key, digest in found.items()
        if (key not in folder.promised and key not in folder.begun)
        or digest != digest_of(vector_of(key), text_of(key) if keeps_texts else None)
    ]
    lost = len(folder.promised - set(found))
    there = sum(key in found for key in folder.begun)
    partial = 0 < there < len(folder.begun)
    result.lost += lost
    result.corrupt += len(wrong)
    result.partial += partial
    result.bad_cuts += bool(lost or wrong)
    if there == len(folder.begun):
        folder.promised |= set(folder.begun)  # what was seen once has to stay
    folder.begun = range(0)
    return not (lost or wrong or partial)


def cut_often(
    name: str, python: Path, disk: power.Disk, cuts: int, seed: int, result: Result, *, only_kill: bool = False
) -> None:
    """All the cuts of one database; with `only_kill` the process is killed and the file system goes on."""
    dice = random.Random(seed)
    place = disk.mount_point / "db"
    folder = _Folder()
    while True:
        lines, delay, batches = dice.randint(1, _MOST_LINES), dice.random() * _DELAY_S, dice.randrange(2**32)
        child = _Child(name, python, place, batches, folder.next_key, 0 if result.cuts == cuts else None)
        found = child.found()
        if found is None and not folder.cuts:
            raise RuntimeError(f"{result.label} does not start: {child.end()[1]}")
        good = folder.cuts == 0 or _judge(found, folder, result, "" if found is not None else child.end()[1])
        if result.cuts == cuts:
            child.end()
            return
        if not good or folder.cuts == _ROUNDS:
            child.end()
            shutil.rmtree(place)
            folder = _Folder()
            continue
        seen = list(islice(child.lines, lines))
        time.sleep(delay)  # a moment in the middle of a batch
        child.stop()
        ended_before = child.process.poll()
        if not only_kill:
            disk.cut()
        rest, words = child.end()
        if ended_before is not None:
            raise RuntimeError(f"{result.label} stopped by itself: {words}")
        _take_down(seen + rest, folder, result)
        result.cuts += 1
        folder.cuts += 1
        if not only_kill:
            disk.unmount()
            disk.mount()


def _take_down(lines: list[str], folder: _Folder, result: Result) -> None:
    for line in lines:
        word, first, count = line.split()
        batch = range(int(first), int(first) + int(count))
        folder.begun = batch if word == "begin" else range(0)
        folder.next_key = batch.stop
        if word == "ack":
            folder.promised |= set(batch)
            result.acknowledged += len(batch)


def syncs_per_batch(name: str, python: Path, place: Path) -> float | None:
    """How often it asks the system to make something durable, per batch; None without strace."""
    if shutil.which("strace") is None:
        return None
    counts = []
    for batches in _PROBE:
        folder, log = place / f"{name}-{batches}", place / "strace"
        command = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync,syncfs,msync"]
        command += [str(python), "-m", "crash.peers.child", name, str(folder), "1", "1", str(place / "dump")]
        subprocess.run([*command, str(batches)], env=environment(), capture_output=True, timeout=_LIMIT_S, check=True)
        counts.append(sum(_SYNCS.search(line) is not None for line in log.read_text().splitlines()))
        shutil.rmtree(folder)
    return (counts[1] - counts[0]) / (_PROBE[1] - _PROBE[0])


def about(name: str, python: Path) -> Result | str:
    """Who this is, or why it cannot take part."""
    if not python.exists():
        return "its environment is missing: `make peers` makes it"
    run = subprocess.run([str(python), "-c", _ABOUT, name], env=environment(), capture_output=True, text=True)
    if run.returncode:
        return run.stderr.strip().splitlines()[-1]
    return Result(*json.loads(run.stdout.splitlines()[-1]))


def lines_of(results: list[Result]) -> Iterator[str]:
    """The table of the documentation."""
    titles = ("database", "setting", "syncs per batch", "cuts", "acknowledged", "lost", "corrupt", "in part")
    yield f"| {' | '.join(titles)} | unopenable | bad cuts |"
    yield "|---" * (len(titles) + 2) + "|"
    for r in results:
        syncs = "?" if r.syncs_per_batch is None else f"{r.syncs_per_batch:.1f}"
        yield (
            f"| {r.label} ({r.versions}) | {r.setting} | {syncs} | {r.cuts} | {r.acknowledged:,} | {r.lost:,} | "
            f"{r.corrupt:,} | {r.partial} | {r.unopenable} | {r.bad_cuts} |"
        )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m crash.peers", description=__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only-kill", action="store_true", help="kill -9 and no cut: what the cuts are compared with")
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--file-system", choices=power.FILE_SYSTEMS, default="ext4")
    parser.add_argument("--peers", type=Path, default=TESTS.parent / ".venv-peers", help="their environment")
    parser.add_argument("--report", type=Path, default=Path("build/peers-report.txt"))
    given = parser.parse_args()
    results: list[Result] = []
    text = ""
    for name in given.only or NAMES:
        python = Path(sys.executable) if name == OURS else given.peers / "bin" / "python"
        result = about(name, python)
        if isinstance(result, str):
            print(f"{name}: left out, {result}", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="nopokedb-peers-") as temporary:
            folder = Path(temporary)
            if (reason := power.why_not(given.file_system, folder)) is not None:
                sys.exit(f"no power can be cut here: {reason}")
            result.syncs_per_batch = syncs_per_batch(name, python, folder)
            with power.disk(given.file_system, folder) as disk:
                cut_often(name, python, disk, given.cuts, given.seed, result, only_kill=given.only_kill)
        results.append(result)
        errors = sorted(set(result.errors))[:3]
        print(f"{result.label}: {result.cuts} cuts, {result.bad_cuts} bad", *errors, sep="\n  ", flush=True)
        how = "kill -9 only" if given.only_kill else given.file_system
        text = "\n".join([f"{how}, seed {given.seed}", *lines_of(results)])
        given.report.parent.mkdir(parents=True, exist_ok=True)
        given.report.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
