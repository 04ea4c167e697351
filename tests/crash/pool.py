"""Several checkers at work, each with a time limit. One that dies or hangs is an answer too, and is replaced.

A checker that is done waits for the next pool of this process: to start one takes half a second of processor time, as
much as a dozen images or more.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crash.images import Image

TESTS = Path(__file__).parent.parent
TIME_LIMIT_S = 60.0
_WAITING = 32
"""Images that are built ahead."""
_ROOM_BYTES = 2**30
"""Containers often have no more than 64 MB of shared memory."""

Answer = dict[str, Any]


def environment() -> dict[str, str]:
    """Of every process of the instrument: the package's tests can be imported, native code keeps to one thread."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def scratch() -> Path:
    """A new folder, in memory where there is such a place: images are written and thrown away by the thousand."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES
    return Path(tempfile.mkdtemp(prefix="nopokedb-crash-", dir=memory if roomy else None))


class _Checker:
    """One process, for images of any kind and with any planted bugs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, folder: Path, **asked: str | bool) -> Answer:
        """The answer; what it means if there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(TIME_LIMIT_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"folder": str(folder), **asked}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        watchdog.cancel()
        if line:
            answer: Answer = json.loads(line)
            return answer
        self._process.wait()
        assert self._process.stderr is not None
        last = self._process.stderr.read()[-2000:]
        return {
            "state": None,
            "count": 0,
            "recall": None,
            "problem": f"the process hung (over {TIME_LIMIT_S:.0f} s) or died ({self._process.returncode}): {last}",
            "died": True,
        }

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


_idle: list[_Checker] = []
"""Those that no pool uses now."""


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()


def _taken() -> _Checker:
    try:
        return _idle.pop()
    except IndexError:
        return _Checker()


def _workers() -> int:
    """As many as there are processors for this process, of several that run tests."""
    if given := os.environ.get("NOPOKEDB_CRASH_WORKERS"):
        return int(given)
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


class Pool:
    """Checks images that are `kind` (see checker.py); `on_answer` gets each image's digest and what was found, in some
    thread, one at a time."""

    def __init__(
        self, kind: str, on_answer: Callable[[str, Answer], None], planted: str = "", workers: int | None = None
    ) -> None:
        self._kind = kind
        self._on_answer = on_answer
        self._planted = planted
        self._folder = scratch()
        self._queue: queue.Queue[tuple[str, Path, bool] | None] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(workers or _workers())]
        for thread in self._threads:
            thread.start()
        self._made = 0

    def submit(self, image: Image) -> None:
        """Have this image checked; waits where many are waiting already."""
        if self._error is not None:
            raise self._error
        self._made += 1
        folder = self._folder / str(self._made)
        image.write(folder)
        self._queue.put((image.digest, folder, self._made % 8 == 0))

    def _run(self) -> None:
        checker: _Checker | None = None
        while (item := self._queue.get()) is not None:
            digest, folder, read_only = item
            try:
                checker = checker or _taken()
                answer = checker.ask(folder, read_only=read_only, kind=self._kind, planted=self._planted)
                if answer.get("died"):
                    checker.close()
                    checker = None
                with self._lock:
                    self._on_answer(digest, answer)
            except Exception as error:  # noqa: BLE001  # raised again by the next submit or by close
                self._error = error
            shutil.rmtree(folder, ignore_errors=True)
        if checker is not None:
            _idle.append(checker)

    def close(self) -> None:
        """Return when everything is checked."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._error is not None:
            raise self._error
