"""`nopokedb restore`: from backup files to a collection."""

from __future__ import annotations

import click

import nopokedb
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.argument("path")
@json_option
def restore(sources: tuple[str, ...], path: str, json: bool) -> None:
    """Make the empty or absent folder PATH a collection of SOURCES: a full backup, then incremental ones in order."""
    output = Output(json=json)
    with output.progress(f"restoring {path}"):
        count = nopokedb.restore(list(sources), path)
    output.document({"path": path, "count": count})
    output.line(f"{path}: {count} records")
