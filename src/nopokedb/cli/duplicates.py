"""`nopokedb duplicates`: groups of near-duplicates."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import at_option, json_option, moment, where_option
from nopokedb.cli.output import Output
from nopokedb.transfer.rows import id_text

_SHOWN = 10


@click.command()
@click.argument("path")
@click.option("--threshold", type=float, required=True, help="Distance up to which two records are near-duplicates.")
@where_option
@click.option("--limit", type=int, default=100, show_default=True, help="Groups at most, the largest first.")
@click.option(
    "--target-recall",
    type=float,
    default=1.0,
    show_default=True,
    help="1 compares every record with every other one; below, the index names neighbours.",
)
@at_option
@json_option
def duplicates(
    path: str, threshold: float, where: Any, limit: int, target_recall: float, at: str | None, json: bool
) -> None:
    """Find groups of near-duplicates in the collection at PATH: records that small distances connect."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db, output.progress(f"comparing {path}"):
        found = moment(db, at).duplicates(threshold, where=where, limit=limit, target_recall=target_recall)
    output.document({"path": path, "threshold": threshold, "groups": found})
    rows = [(len(ids), ", ".join(map(id_text, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")) for ids in found]
    output.table(f"{path}: {len(found)} groups", ("records", "ids"), rows)
