"""A build in a process of its own, at low priority: the half in the handle's process.

The child is `python -m nopokedb.embedded.build_child`, not a fork or a `multiprocessing` child, so neither the caller's
threads nor an unguarded main script matter. It reads the rows from the files of the collection, writes the index into
a folder of its own below `index/`, and ends when its standard input does: with its parent, however that ends. What a
crash leaves is that folder, which the next open removes. A native library that gives up takes only the child with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nopokedb.embedded.search.construction import Recipe, Source

FOLDER_PREFIX = "build-"
RESULT, TRYING, ERRORS = "result.json", "trying", "errors"
_LAST_WORDS = 500
_NICE = 10


def possible() -> bool:
    """Whether this interpreter can start another one (not where it is part of another program)."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def make_folder(folder: Path) -> Path:
    """A new folder to build in; what is left of it after a crash is removed at the next open."""
    place = folder / "index" / f"{FOLDER_PREFIX}{secrets.token_hex(8)}"
    place.mkdir()
    return place


class BuildFailed(Exception):
    """The child ended without a result."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """What it was building."""


class ChildBuild:
    """One running build."""

    def __init__(
        self,
        folder: Path,
        generation: int,
        source: Source,
        recipes: Sequence[Recipe],
        M: int,
        ef_construction: int,
        threads: int,
    ) -> None:
        self.started = time.monotonic()
        self.folder = make_folder(folder)
        bits = b"" if source.bits is None else source.bits.tobytes()
        recent = b"" if source.recent is None else np.ascontiguousarray(source.recent, "<f4").tobytes()
        job = orjson.dumps(
            {
                "folder": os.fspath(folder.resolve()),
                "out": os.fspath(self.folder.resolve()),
                "generation": generation,
                "dim": source.vectors.shape[1],
                "space": source.space,
                "start": source.start,
                "stop": source.stop,
                "recipes": [(recipe.kind, recipe.fine) for recipe in recipes],
                "M": M,
                "ef_construction": ef_construction,
                "threads": threads,
                "parent": os.getpid(),
                "nice": _NICE,
                "bits_bytes": len(bits),
                "recent_bytes": len(recent),
            }
        )
        try:
            with (self.folder / ERRORS).open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "nopokedb.embedded.build_child"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    cwd=self.folder,
                    env=_environment(threads),
                    **_low_priority(),
                )
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(job + b"\n" + bits + recent)
                self._process.stdin.flush()  # it stays open: its end is the child's end
            except OSError:  # it has ended already; `poll` says how
                pass
        except BaseException:
            self.remove()
            raise

    def poll(self) -> dict[str, Any] | None:
        """What the child reported, None while it works. Raises `BuildFailed`."""
        status = self._process.poll()
        if status is None:
            return None
        self._close()
        try:
            result: dict[str, Any] = orjson.loads((self.folder / RESULT).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            result = {}
        if status or not result:
            raise BuildFailed(self._failure(status), self._read(TRYING).strip())
        return result

    def _failure(self, status: int) -> str:
        words = [line.strip() for line in self._read(ERRORS).splitlines() if line.strip()]
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the building process ended with {how}" + (f": {' / '.join(words)[-_LAST_WORDS:]}" if words else "")

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(errors="replace")
        except OSError:
            return ""

    def stop(self) -> None:
        """End the child now and remove what it made."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()
        self.remove()

    def _close(self) -> None:
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:  # what was buffered for a child that is gone
                pass

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # what stays is removed at the next open


def _environment(threads: int) -> dict[str, str]:
    """The child finds the package where this process does, and uses no more threads than it is given."""
    places = [os.fspath(Path(place).absolute()) for place in sys.path if place == "" or Path(place).exists()]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **dict.fromkeys(names, str(threads))}


def _low_priority() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}  # an interrupt at the terminal is the parent's to handle
