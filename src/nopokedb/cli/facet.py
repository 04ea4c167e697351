"""`nopokedb facet`: the values of a field."""

from __future__ import annotations

from typing import Any

import click
import orjson

from nopokedb import NoPokeDB
from nopokedb.cli.options import at_option, json_option, moment, where_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@click.argument("field")
@where_option
@click.option("--limit", type=int, default=20, show_default=True, help="Values at most.")
@at_option
@json_option
def facet(path: str, field: str, where: Any, limit: int, at: str | None, json: bool) -> None:
    """Count the records of the collection at PATH by the values of FIELD, most frequent first."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db:
        found = moment(db, at).facet(field, where, limit=limit)
    output.document({"field": field, "values": [{"value": value, "count": number} for value, number in found]})
    output.table(field, ("value", "records"), [(orjson.dumps(value).decode(), number) for value, number in found])
