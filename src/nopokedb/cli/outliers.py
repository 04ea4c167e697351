"""`nopokedb outliers`: records that are far from all others."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import at_option, json_option, moment, where_option
from nopokedb.cli.output import Output
from nopokedb.transfer.rows import id_text


@click.command()
@click.argument("path")
@click.option("--count", type=int, default=10, show_default=True, help="Records at most.")
@click.option("-k", type=int, default=10, show_default=True, help="Nearest others that count.")
@where_option
@at_option
@json_option
def outliers(path: str, count: int, k: int, where: Any, at: str | None, json: bool) -> None:
    """Find the records of the collection at PATH that are farthest from their nearest others."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db, output.progress(f"asking {path}"):
        found = moment(db, at).outliers(count, k=k, where=where)
    output.document({"path": path, "k": k, "outliers": [asdict(item) for item in found]})
    rows = [(id_text(item.id), f"{item.distance:.6g}") for item in found]
    output.table(f"{path}: mean distance to the {k} nearest others", ("id", "distance"), rows)
