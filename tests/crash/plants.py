"""Bugs to plant."""
from __future__ import annotations
from contextlib import contextmanager
from collections.abc import Iterator

@contextmanager
def planted(name: str) -> Iterator[None]:
    yield
