"""What commands print: tables for people, one JSON document for programs (`--json`), progress on the error stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


def plain(value: object) -> str:
    """Text without control characters: what is stored must not steer the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))


class Output:
    """One command's output."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def document(self, value: Mapping[str, Any]) -> None:
        """The one JSON document of the command; nothing without `--json`."""
        if self.json:
            sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; nothing with `--json`."""
        if self.json:
            return
        table = Table(title=plain(title), title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        self._console.print(table)

    def line(self, text: str) -> None:
        """A line for people; nothing with `--json`."""
        if not self.json:
            self._console.print(Text(plain(text)), soft_wrap=True)

    def script(self, text: str) -> None:
        """Text for another program, as it is; nothing with `--json`."""
        if not self.json:
            sys.stdout.write(text + "\n")

    def error(self, error: BaseException) -> None:
        """An error, in words on the error stream, and as the document with `--json`."""
        details = {"type": type(error).__name__, "message": str(error)}
        for name in ("file", "offset", "pid"):
            value = getattr(error, name, None)
            if isinstance(value, str | int):
                details[name] = value  # type: ignore[assignment]
        self.document({"error": details})
        self._errors.print(Text(f"nopokedb: {plain(error)}"), soft_wrap=True)

    @contextmanager
    def progress(self, words: str) -> Iterator[None]:
        """A moving bar on the error stream while the block runs, where that is a terminal."""
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._errors, transient=True, disable=not self._errors.is_terminal) as bar:
            bar.add_task(plain(words), total=None)
            yield

    @contextmanager
    def measured(self, words: str, unit: str) -> Iterator[Callable[[int, float | None], object]]:
        """A bar that is told how far the work is: a number of things done, and the share if that is known."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[done]:,} " + unit, markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._errors, transient=True, disable=not self._errors.is_terminal) as bar:
            task = bar.add_task(plain(words), total=None, done=0)

            def advance(count: int, share: float | None) -> None:
                total = None if share is None else 1.0
                bar.update(task, total=total, completed=share or 0.0, done=count)

            yield advance


def size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
