"""Several checkers at work, each with a time limit. One that dies or hangs is an answer too, and is replaced."""

from __future__ import annotations

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
    """One process."""

    def __init__(self, kind: str, planted: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.checker", kind, planted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, folder: Path, read_only: bool) -> Answer:
        """The answer; what it means if there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(TIME_LIMIT_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"folder": str(folder), "read_only": read_only}) + "\n")
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
        count = workers or int(os.environ.get("NOPOKEDB_CRASH_WORKERS", os.cpu_count() or 1))
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
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
                checker = checker or _Checker(self._kind, self._planted)
                answer = checker.ask(folder, read_only)
                if answer.get("died"):
                    checker.close()
                    checker = None
                with self._lock:
                    self._on_answer(digest, answer)
            except Exception as error:  # noqa: BLE001  # raised again by the next submit or by close
                self._error = error
            shutil.rmtree(folder, ignore_errors=True)
        if checker is not None:
            checker.close()

    def close(self) -> None:
        """Return when everything is checked."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._error is not None:
            raise self._error
