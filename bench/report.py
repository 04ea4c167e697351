"""What every report has: the machine, the goals, what is missing; and the files that a run leaves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.goals import Goal
from bench.measure import say
from bench.run import Ledger
from bench.tables import goal_table, machine_line


def markdown(
    title: str, machine: dict[str, Any], is_quick: bool, goals: list[Goal], body: list[str], missing: dict[str, str]
) -> str:
    """Goals first, then the tables they come from, then what is missing."""
    lines = [f"## {title}", "", machine_line(machine), ""]
    if is_quick:
        lines += ["**A smoke test: too small and too short to measure anything.**", ""]
    if goals:
        lines += [*goal_table(goals), ""]
    lines += body
    if missing:
        lines += ["Not measured:", "", *(f"- {name}: {reason}" for name, reason in missing.items()), ""]
    return "\n".join(lines)


def write(
    ledger: Ledger,
    machine: dict[str, object],
    scale: dict[str, object],
    goals: list[Goal],
    text: str,
    plots: list[Path],
) -> None:
    """Writes results.json and report.md, and prints the report."""
    summary = {
        "machine": machine,
        "scale": scale,
        "runs": ledger.results(),
        "missing": ledger.missing,
        "goals": [asdict(goal) for goal in goals],
    }
    written = [ledger.folder / "results.json", ledger.folder / "report.md"]
    written[0].write_text(json.dumps(summary, indent=2) + "\n")
    written[1].write_text(text)
    print(text)
    say(f"wrote {', '.join(str(path) for path in (*written, *plots))}")
