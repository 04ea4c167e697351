"""`nopokedb plot`: a map of the collection as a picture or a page."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import at_option, json_option, moment, where_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@click.argument("target")
@click.option("--color", help="The field by which records are coloured.")
@click.option("--sample", type=int, default=5000, show_default=True, help="Records at most, chosen by chance.")
@where_option
@at_option
@json_option
def plot(path: str, target: str, color: str | None, sample: int, where: Any, at: str | None, json: bool) -> None:
    """Draw a map of the collection at PATH into the file TARGET: a picture (.png) or a page (.html)."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db, output.progress(f"drawing {path}"):
        found = moment(db, at).plot(target, color=color, sample=sample, where=where)
    shares = found.explained_variance.tolist()
    output.document({"path": path, "target": target, "count": len(found.ids), "explained_variance": shares})
    words = " and ".join(f"{100 * share:.1f}" for share in shares)
    output.line(f"{target}: {len(found.ids)} records, along {words} % of the variance")
