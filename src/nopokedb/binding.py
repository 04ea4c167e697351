"""`Binding`: an engine, and what makes questions and writes for it.

A question or a write is made for one engine, whose model and dimension it has. A handle whose engine is replaced
exchanges all of it by one assignment; whoever takes the binding once has parts that fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nopokedb.engine import Engine
from nopokedb.intake import Intake
from nopokedb.question import Asker
from nopokedb.records import Vectors


@dataclass(frozen=True, slots=True)
class Binding:
    """See the top of this module."""

    engine: Engine
    embed: Callable[[Sequence[str]], Vectors] | None
    """Turns texts into vectors, where something does."""
    intake: Intake
    asker: Asker


def bind(engine: Engine, embed: Callable[[Sequence[str]], Vectors] | None) -> Binding:
    """All that belongs to this engine."""
    return Binding(engine, embed, Intake(engine, embed), Asker(engine, embed))
