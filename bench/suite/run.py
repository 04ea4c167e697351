"""One run of the suite: where its files lie, how large it is, and which processes it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conversation import ROOT, ChildError, Conversation
from bench.measure import say
from bench.run import Ledger, Result
from bench.suite import data
from bench.suite.scale import Scale

ORIGINAL = "nopokedb-0.5.1"
ORIGINAL_FOLDER = ROOT / ".bench" / ORIGINAL
ORIGINAL_REQUIREMENTS = ("nopokedb==0.5.1", "hnswlib", "numpy")
# Backends whose packages this project's own environment has; the others are in the peers' one.
OWN = (
    *("nopokedb", "nopokedb-scan", "nopokedb-graph"),
    *("hnswlib", "faiss-hnsw", "faiss-hnsw-efc200", "faiss-ivf", "faiss-exact"),
)
GAUSSIAN = "gaussian"


@dataclass(kw_only=True)
class Run(Ledger):
    """Where things lie, and how large they are.

    `fresh` names the parts that are measured again; `rebuilt` the backends whose databases are made again for
    that, and `retuned` those whose settings are looked for again in the databases there are.
    Without `may_build` only those are made, and what is not prepared is missing.
    """

    corpus: Path
    scale: Scale
    backends: tuple[str, ...]
    peers_python: Path
    may_install: bool = True
    may_build: bool = True
    fresh: frozenset[str] = frozenset()
    rebuilt: frozenset[str] = frozenset()
    retuned: frozenset[str] = frozenset()

    def data(self, count: int | None) -> Path:
        """The folder of the real embeddings, or of the Gaussian vectors for None; made on first need."""
        scale = self.scale
        if count is None:
            folder = self.folder / "data" / f"{GAUSSIAN}-{scale.gaussian_count}"
            data.make_gaussian(folder, scale.gaussian_count, scale.gaussian_dim, scale.query_count)
        else:
            folder = self.folder / "data" / f"real-{count}"
            data.make_real(self.corpus, folder, count, scale.query_count)
        return folder

    def database(self, data_folder: Path, backend: str) -> Path:
        """Where a database lies that is kept for the timing."""
        return self.folder / "databases" / data_folder.name / backend

    def child(self, backend: str, module: str, *arguments: object) -> Conversation:
        """A process for a backend, run by the interpreter that has its packages."""
        texts = [backend, *map(str, arguments)]
        if backend == ORIGINAL:
            self._need_original()
            # Without site-packages (-S, -s) and the current folder (-P), the only nopokedb is the original.
            path = os.pathsep.join([str(ORIGINAL_FOLDER), str(ROOT)])
            return Conversation(Path(sys.executable), module, texts, ("-S", "-s", "-P"), {"PYTHONPATH": path})
        python = Path(sys.executable) if backend in OWN else self.peers_python
        if not python.exists():
            raise ChildError(f"no {python}: run `make peers`")
        return Conversation(python, module, texts)

    def _need_original(self) -> None:
        if (ORIGINAL_FOLDER / "nopokedb" / "__init__.py").exists():
            return
        if self.may_install:
            say(f"installing {' '.join(ORIGINAL_REQUIREMENTS)} into {ORIGINAL_FOLDER}")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(ORIGINAL_FOLDER)]
            if subprocess.run([*command, *ORIGINAL_REQUIREMENTS], check=False).returncode == 0:
                return
        raise ChildError(f"nopokedb 0.5.1 is not installed in {ORIGINAL_FOLDER.relative_to(ROOT)}")

    def scratch(self, name: str) -> Path:
        """An empty place for a database that is not kept."""
        folder = self.folder / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def once(self, part: str, sizes: dict[str, Any], measure: Callable[[], Result]) -> None:
        """Runs a part, unless it has finished at the same sizes, and notes the reason where it fails."""
        if part not in self.fresh and self.known(part, sizes):
            return
        say(part)
        self.measured(part, sizes, measure)
