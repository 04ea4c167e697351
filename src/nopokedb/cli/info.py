"""`nopokedb info`: what a collection is and how large."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output, size


@click.command()
@click.argument("path")
@json_option
def info(path: str, json: bool) -> None:
    """Show counts, sizes and indexes of the collection at PATH, also beside a writer."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db:
        stats = db.stats()
    document = asdict(stats)
    output.document(document)
    rows = [
        (name, size(value) if name.endswith("_bytes") else value)
        for name, value in document.items()
        if name not in ("segments", "notes", "path")
    ]
    output.table(stats.path, ("", "value"), rows)
    if stats.segments:
        output.table(
            "segments",
            ("kind", "rows", "live", "memory", "ef at 10", "recall"),
            [
                (item.kind, item.row_count, item.live_count, size(item.size_bytes), item.ef_at_10, f"{item.recall:.4f}")
                for item in stats.segments
            ],
        )
    for note in stats.notes:
        output.line(f"note: {note}")
