"""`nopokedb count`: how many records there are."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import at_option, json_option, moment, where_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@where_option
@at_option
@json_option
def count(path: str, where: Any, at: str | None, json: bool) -> None:
    """Count the records of the collection at PATH, or those that pass a filter, also beside a writer."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db:
        found = moment(db, at).count(where)
    output.document({"path": path, "count": found})
    output.line(str(found))
