"""`nopokedb backup`: one file of one moment, also beside a writer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output, size


@click.command()
@click.argument("path")
@click.argument("target")
@click.option("--since", help="An earlier backup file, or an lsn that the log still reaches: only what changed since.")
@json_option
def backup(path: str, target: str, since: str | None, json: bool) -> None:
    """Back the collection at PATH up into the new file TARGET, while others may go on writing it."""
    output = Output(json=json)
    earlier: int | str | None = since
    if since is not None and since.isdecimal() and not Path(since).exists():
        earlier = int(since)
    with output.progress(f"backing up {path}"), NoPokeDB(path=path, read_only=True) as db:
        made = db.backup(target, since=earlier)
    output.document(asdict(made))
    what = "records" if made.since_lsn is None else f"changed records and {made.deleted_count} deletions"
    output.line(f"{made.path}: {made.count} {what} as of lsn {made.lsn}, {size(made.size_bytes)}")
