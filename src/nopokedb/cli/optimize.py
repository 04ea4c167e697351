"""`nopokedb optimize`: everything in order now, rather than in pauses."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output, size
from nopokedb.database import engine_of


@click.command()
@click.argument("path")
@json_option
def optimize(path: str, json: bool) -> None:
    """Index and merge everything in the collection at PATH now, and give back the space of what was deleted."""
    output = Output(json=json)
    with NoPokeDB(path=path) as db:
        with output.measured(f"optimizing {db.path}", "records") as advance:
            engine_of(db).optimize(lambda done, total: advance(done, done / total if total else None))
        stats = db.stats()
    indexed = sum(segment.live_count for segment in stats.segments)
    output.document(
        {
            "path": stats.path,
            "count": stats.count,
            "indexed": indexed,
            "segments": [asdict(segment) for segment in stats.segments],
            "disk_bytes": stats.disk_bytes,
        }
    )
    output.line(
        f"{stats.path}: {stats.count} records, {indexed} of them in {len(stats.segments)} indexes, the others compared "
        f"exactly; {size(stats.disk_bytes)} on disk"
    )
