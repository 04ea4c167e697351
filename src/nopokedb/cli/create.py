"""`nopokedb create`: a new, empty collection."""

from __future__ import annotations

from typing import Any, get_args

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import Model, json_option
from nopokedb.cli.output import Output
from nopokedb.errors import CollectionNotFoundError
from nopokedb.records import IndexKind, Space


@click.command()
@click.argument("path")
@click.option("--dim", type=int, help="Components of a vector; not needed with --embed.")
@click.option("--space", type=click.Choice(get_args(Space)), default="cosine", show_default=True, help="The distance.")
@click.option(
    "--index", type=click.Choice(get_args(IndexKind)), default="auto", show_default=True, help="The kind of index."
)
@click.option("--embed", type=Model(), help=f"The model that turns texts into vectors: {Model.forms}.")
@click.option("--indexed-field", multiple=True, help="A field to keep an index on; may come more than once.")
@click.option("--text-language", default="en", show_default=True, help="Language of the texts, or none.")
@json_option
def create(
    path: str,
    dim: int | None,
    space: Any,
    index: Any,
    embed: str | None,
    indexed_field: tuple[str, ...],
    text_language: str,
    json: bool,
) -> None:
    """Make the empty or absent folder PATH a collection."""
    output = Output(json=json)
    if dim is None and embed is None:
        raise click.UsageError("expected --dim or --embed, got neither")
    try:
        NoPokeDB(path=path, read_only=True).close()
    except CollectionNotFoundError:
        pass
    else:
        raise click.UsageError(f"expected no collection at {path}, found one")
    with NoPokeDB(
        dim, path=path, space=space, index=index, embed=embed, indexed_fields=indexed_field, text_language=text_language
    ) as db:
        stats = db.stats()
    output.document({"path": path, "dim": stats.dim, "space": stats.space, "index": stats.index, "embed": embed})
    output.line(f"{path}: created, {stats.dim} dimensions, {stats.space}")
