"""`nopokedb migrate`: a collection of another program becomes one of ours."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from nopokedb.cli.exit_codes import OK, PROBLEMS
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.moving.migrating import PROGRAMS, Choices, MigrationReport
from nopokedb.moving.migrating import migrate as run_migrate
from nopokedb.records import Space

_SHOWN = 20


@click.command()
@click.option("--from", "program", type=click.Choice(PROGRAMS), required=True, help="The program that made SOURCE.")
@click.argument("source")
@click.argument("target")
@click.option("--collection", metavar="NAME", help="Of several collections or tables in SOURCE.")
@click.option("--vector", metavar="NAME", help="Of several vectors of a record.")
@click.option("--space", type=click.Choice(get_args(Space)), help="The distance, where SOURCE does not say it.")
@click.option("--metadata", metavar="FILE", help="For index files: ids and metadata, as `nopokedb import` reads them.")
@click.option("--id", "id_", metavar="COLUMN", help="The column of the ids (LanceDB). [default: id]")
@click.option("--text", metavar="KEY", help="The key of the metadata that is the record's text.")
@click.option("--queries", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Points to compare at.")
@click.option("--resume", is_flag=True, help="Go on with a migration that was stopped.")
@click.option("--dry-run", is_flag=True, help="Read and check every record, write nothing.")
@json_option
def migrate(
    program: Any,
    source: str,
    target: str,
    collection: str | None,
    vector: str | None,
    space: Any,
    metadata: str | None,
    id_: str | None,
    text: str | None,
    queries: int,
    resume: bool,
    dry_run: bool,
    json: bool,
) -> int:
    """Bring the collection SOURCE of another program to TARGET, and compare both. SOURCE is only read."""
    choices = Choices(collection, vector, space, None if metadata is None else Path(metadata), id_, text)
    output = Output(json=json)
    with output.measured(f"migrating {source}", "records") as advance:
        report = run_migrate(
            program, source, target, choices, queries=queries, resume=resume, dry_run=dry_run, advance=advance
        )
    output.document({**asdict(report), "same": report.same})
    _show(output, report)
    return PROBLEMS if report.refused or report.same is False else OK


def _show(output: Output, report: MigrationReport) -> None:
    done = "would be migrated" if report.dry_run else f"records, {report.migrated} of them now"
    output.line(f"{report.target}: {report.count} {done}; {report.dim} dimensions, {report.space}")
    for words in report.left_out:
        output.line(f"not migrated: {words}")
    if report.refused:
        rows = list(report.refused.items())[:_SHOWN]
        output.table(f"{len(report.refused)} records that cannot be stored", ("id", "why"), rows)
    if report.source_side is not None and report.target_side is not None:
        rows_of_sides = [(s.path, s.count, s.checksum) for s in (report.source_side, report.target_side)]
        title = "verified: " + ("the same" if report.same else "DIFFERENT")
        output.table(title, ("path", "records", "sha256"), rows_of_sides)
    if report.overlap is not None:
        output.line(f"overlap@10 of {report.query_count} sampled queries: {report.overlap:.4f}")
