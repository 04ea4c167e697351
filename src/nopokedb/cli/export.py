"""`nopokedb export`: records become a file that other programs read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from nopokedb.cli.options import at_option, json_option, where_option
from nopokedb.cli.output import Output, size
from nopokedb.transfer.exporting import export_file
from nopokedb.transfer.formats import FORMATS


@click.command()
@click.argument("path")
@click.argument("target")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of TARGET; else its suffix says.")
@where_option
@at_option
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it exists.")
@json_option
def export(
    path: str, target: str, format_: str | None, where: Any, at: str | None, overwrite: bool, json: bool
) -> None:
    """Write the records of the collection at PATH to the file TARGET, while others may go on writing it."""
    output = Output(json=json)
    with output.measured(f"exporting {path}", "records") as advance:
        report = export_file(path, target, format=format_, where=where, at=at, overwrite=overwrite, advance=advance)
    output.document(asdict(report))
    output.line(f"{report.target}: {report.count} records as {report.format}, {size(report.size_bytes)}")
    if report.left_out:
        output.line(f"not in it, because {report.format} holds vectors alone: {', '.join(report.left_out)}")
