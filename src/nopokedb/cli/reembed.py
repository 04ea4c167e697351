"""`nopokedb reembed`: a collection gets another model."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import Model, json_option
from nopokedb.cli.output import Output
from nopokedb.database import engine_of
from nopokedb.database import reembed as run_reembed
from nopokedb.embedding.names import make_embedder


@click.command()
@click.argument("path")
@click.option("--embed", type=Model(), required=True, help=f"The new model: {Model.forms}.")
@click.option("--snapshot", help="Name under which the state before is kept; before-reembed-N unless given.")
@json_option
def reembed(path: str, embed: str, snapshot: str | None, json: bool) -> None:
    """Make all vectors of the collection at PATH anew of its texts, with another model, all at once or not at all."""
    output = Output(json=json)
    model = make_embedder(embed)
    with NoPokeDB(path=path) as db:
        before, total = engine_of(db).embed_name, len(db)
        done = 0
        with output.measured(f"embedding {db.path}", "records") as advance:

            def report(count: int) -> None:
                nonlocal done
                done += count
                advance(done, done / total if total else None)

            kept = run_reembed(db, model, snapshot, report)
        stats = db.stats()
    output.document({"path": path, "count": stats.count, "dim": stats.dim, "embed": model.name, "before": asdict(kept)})
    output.line(
        f"{path}: {stats.count} records with vectors of {model.name} (dim {stats.dim}); those of "
        f"{before or 'no model'} are kept as the snapshot {kept.name!r}, until it is dropped"
    )
