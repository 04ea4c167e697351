"""`nopokedb check`: compare everything that is stored, and repair it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

import nopokedb
from nopokedb.cli.exit_codes import OK, PROBLEMS
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@click.option("--repair", is_flag=True, help="Repair what can be repaired; move the rest into quarantine-<n>/.")
@click.option("--quick", is_flag=True, help="Only tables, sizes and SQLite's quick check; not with --repair.")
@json_option
def check(path: str, repair: bool, quick: bool, json: bool) -> int:
    """Compare everything in the collection at PATH with its checksums and with everything else."""
    if repair and quick:
        raise click.UsageError("expected --repair or --quick, got both: a repair looks at everything")
    output = Output(json=json)
    with output.progress(f"{'repairing' if repair else 'checking'} {path}"):
        problems = nopokedb.check(path, repair=repair, deep=not quick)
    left = [problem for problem in problems if problem.severity != "note" and not problem.repaired]
    output.document({"path": path, "clean": not left, "problems": [asdict(problem) for problem in problems]})
    if problems:
        rows = [
            (
                "repaired" if problem.repaired else problem.severity,
                problem.kind,
                problem.file + ("" if problem.offset is None else f" at byte {problem.offset}"),
                problem.message,
            )
            for problem in problems
        ]
        output.table(f"{path}: {len(problems)} findings", ("severity", "kind", "where", "what"), rows)
        counts = Counter("repaired" if problem.repaired else problem.severity for problem in problems)
        output.line(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    else:
        output.line(f"{path}: no problems")
    return PROBLEMS if left else OK
