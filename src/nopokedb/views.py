"""`View`: a collection as it was at a named snapshot."""

from __future__ import annotations

from nopokedb.engine import Moment, NamedSnapshot
from nopokedb.insight.methods import Insight
from nopokedb.question import Asker


class View(Insight):
    """A collection as it was at a named snapshot, for reading: the methods of `NoPokeDB` that read. It belongs to the
    handle that made it with `at`, and lives as long as that is open."""

    _asker: Asker
    dim: int

    def __init__(self, moment: Moment, asker: Asker, named: NamedSnapshot) -> None:
        self._asker = asker
        self.ef = None
        self.dim, self.space = moment.dim, moment.space
        self.named = named

    def __repr__(self) -> str:
        return f"<View {self.named.name!r} at lsn {self.named.lsn}: {self.named.count} records>"
