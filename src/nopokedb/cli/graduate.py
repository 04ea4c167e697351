"""`nopokedb graduate`: what would change on PostgreSQL, known before switching."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb.cli.copy import show
from nopokedb.cli.exit_codes import OK, PROBLEMS
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.copying import compare, differences
from nopokedb.copying import copy as run_copy


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--queries", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Queries of each kind.")
@click.option("--resume", is_flag=True, help="Go on with a copy that was stopped.")
@json_option
def graduate(source: str, target: str, queries: int, resume: bool, json: bool) -> int:
    """Copy SOURCE to TARGET, verify it, and ask both the same: how alike the answers are, how quick, what differs."""
    output = Output(json=json)
    with output.measured("copying", "records") as advance:
        report = run_copy(source, target, verify=True, resume=resume, advance=advance)
    with output.progress("asking both"):
        compared = compare(source, target, queries)
        differing = differences(source)
    output.document(
        {
            "copy": {**asdict(report), "same": report.same},
            "queries": [asdict(item) for item in compared],
            "differences": [*report.left_out, *differing],
        }
    )
    show(output, report)
    rows = [
        (item.kind, item.query_count, f"{item.overlap:.3f}", f"{item.source_ms:.2f}", f"{item.target_ms:.2f}")
        for item in compared
    ]
    output.table("queries", ("kind", "count", "overlap@10", "source ms", "target ms"), rows)
    for words in differing:
        output.line(f"differs: {words}")
    return PROBLEMS if report.same is False else OK
