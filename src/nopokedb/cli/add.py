"""`nopokedb add`: one record."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import fields_of_a_record, id_type_option, ids_of, json_option, several
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@several(fields_of_a_record)
@click.option("--id", "key", help="The id; the next automatic int without it.")
@id_type_option
@click.option("--upsert", is_flag=True, help="Change the given parts of the record, if there is one with this id.")
@click.option("--merge", is_flag=True, help="With --upsert: the metadata are a merge patch (null removes a key).")
@json_option
def add(
    path: str,
    vector: Any,
    text: str | None,
    metadata: Any,
    key: str | None,
    id_type: Any,
    upsert: bool,
    merge: bool,
    json: bool,
) -> None:
    """Add one record to the collection at PATH. A text alone is enough where the collection has a model."""
    output = Output(json=json)
    id_ = None if key is None else ids_of([key], id_type)[0]
    if upsert and id_ is None:
        raise click.UsageError("expected --id beside --upsert, got none")
    if merge and not upsert:
        raise click.UsageError("expected --upsert beside --merge, got none")
    with NoPokeDB(path=path) as db:
        if upsert:
            assert id_ is not None
            db.upsert(id_, vector, metadata, text=text, merge=merge)
            made = id_
        else:
            made = db.add(vector, metadata, id=id_, text=text)
        count = len(db)
    output.document({"path": path, "id": made, "count": count})
    output.line(f"{path}: record {made!r} {'written' if upsert else 'added'}, {count} there")
