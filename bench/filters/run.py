"""One run of the benchmark: where its files lie, how large it is, and which processes it starts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conversation import ChildError, Conversation
from bench.filters import dataset
from bench.filters.scale import Scale
from bench.peers import OURS
from bench.run import Ledger


@dataclass(kw_only=True)
class Run(Ledger):
    """Where things lie, and how large they are.

    `fresh` names the parts that are measured again, with this project's database built again; `rebuild` says whether
    those of the peers are, too.
    """

    corpus: Path
    scale: Scale
    backends: tuple[str, ...]
    peers_python: Path
    fresh: frozenset[str]
    rebuild: bool

    def data(self, count: int) -> Path:
        """The folder of the filters' data set of that size, made on first need."""
        folder = self.folder / f"data-{count}"
        dataset.make(self.corpus, folder, count, self.scale.query_count)
        return folder

    def database(self, name: str) -> Path:
        """Where a database lies that is kept for other runs."""
        return self.folder / "databases" / name

    def is_fresh(self, part: str, backend: str) -> bool:
        """Whether a backend's database for that part is to be built again."""
        return part in self.fresh and (backend == OURS or self.rebuild)

    def child(self, backend: str, module: str, data: Path, database: Path) -> Conversation:
        """A process for a backend, run by the interpreter that has its packages."""
        python = Path(sys.executable) if backend == OURS else self.peers_python
        if not python.exists():
            raise ChildError(f"no {python}: run `make peers`")
        return Conversation(python, module, [backend, str(data), str(database)])

    def timing(self) -> dict[str, Any]:
        """What changes the rounds without changing a stored database."""
        return {"round_count": self.scale.round_count, "round_s": self.scale.round_s}
