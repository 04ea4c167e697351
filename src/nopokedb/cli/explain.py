"""`nopokedb explain`: how a query is answered, and where its time goes."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option, question, questions, several
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@several(questions)
@json_option
def explain(path: str, json: bool, **options: Any) -> None:
    """Answer a query to the collection at PATH and show how: what was searched by what, and where the time went."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db:
        plan = db.explain(**question(db, options))
    output.document(plan.to_dict())
    for line in str(plan).splitlines():
        output.line(line)
