"""`nopokedb restore`: from backup files to a collection."""

from __future__ import annotations

import click

import nopokedb
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.argument("path")
@click.option("--backup-of", help="At a server: the collection that was backed up, if it has another name.")
@json_option
def restore(sources: tuple[str, ...], path: str, backup_of: str | None, json: bool) -> None:
    """Make the empty or absent folder PATH a collection of SOURCES: a full backup, then incremental ones in order.
    Where PATH is the address of a collection on a server, SOURCES are the names of backups there."""
    output = Output(json=json)
    with output.progress(f"restoring {path}"):
        count = nopokedb.restore(list(sources), path, backup_of=backup_of)
    output.document({"path": path, "count": count})
    output.line(f"{path}: {count} records")
