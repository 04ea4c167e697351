"""Run a workload on the recording file system and bring back the trace."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from crash import trace
from crash.pool import environment, scratch
from crash.scenarios import SCENARIOS
from crash.trace import Op
from crash.workload import KILLED

_LIMIT_S = 300.0
NOTHING = "nothing"
"""A name for mounting and no more."""


class MountError(OSError):
    """The recording file system cannot be had. A workload that fails is another matter, and no reason to skip."""


def why_not() -> str | None:
    """The reason why nothing can be recorded here, or None."""
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse: this system has no FUSE, or the container does not show it"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is missing: install fuse3 (as root on Debian, `make system-deps` does)"
    if importlib.util.find_spec("mfusepy") is None:
        return 'mfusepy is missing: install the extra "test"'
    try:
        record(NOTHING, 0)
    except MountError as error:
        return f"a FUSE file system cannot be mounted here: {error}"
    return None


def record(name: str, seed: int, planted: str = "", folders: Sequence[Path] = ()) -> list[Op]:
    """The operations of a scenario, or of recovering `folders` if the name is "recover" and
    what they hold."""
    place = scratch()
    mount, file = place / "mount", place / "trace"
    mount.mkdir()
    command = [sys.executable, "-m", "crash.recorder", str(mount), str(file)]
    recorder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert recorder.stdout is not None and recorder.stderr is not None
    try:
        if recorder.stdout.readline() != "mounted\n":
            raise MountError(recorder.stderr.read()[-500:] or "the recorder did not start")
        rest = [] if name == NOTHING else [[str(folder) for folder in folders]]
        if name in SCENARIOS:
            rest = [[str(process)] for process in range(SCENARIOS[name].processes)]
        try:
            for arguments in rest:
                command = [sys.executable, "-m", "crash.workload", str(mount), name, str(seed), planted, *arguments]
                run = subprocess.run(
                    command, env=environment(), capture_output=True, text=True, timeout=_LIMIT_S, check=False
                )
                if run.returncode not in (0, KILLED):
                    raise RuntimeError(f"the workload {name} {planted} failed: {run.stderr[-1500:]}")
        finally:
            subprocess.run(["fusermount3", "-u", str(mount)], check=True)
        recorder.wait(_LIMIT_S)
        return trace.read(file)
    finally:
        recorder.kill()
        recorder.wait()
        recorder.stdout.close()
        recorder.stderr.close()
        shutil.rmtree(place, ignore_errors=True)
