"""`nopokedb get`: records by their ids."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.exit_codes import NOT_FOUND, OK
from nopokedb.cli.options import at_option, id_type_option, ids_of, include_option, json_option, moment
from nopokedb.cli.output import Output
from nopokedb.cli.showing import record_document, record_rows


@click.command()
@click.argument("path")
@click.argument("ids", nargs=-1, required=True)
@include_option
@id_type_option
@at_option
@json_option
def get(path: str, ids: tuple[str, ...], include: tuple[Any, ...], id_type: Any, at: str | None, json: bool) -> int:
    """Show records of the collection at PATH by their IDS, also beside a writer."""
    output = Output(json=json)
    wanted = ids_of(ids, id_type)
    with NoPokeDB(path=path, read_only=True) as db:
        found = moment(db, at).get_many(wanted, include=include)
    records = [record for record in found if record is not None]
    missing = [id_ for id_, record in zip(wanted, found, strict=True) if record is None]
    output.document({"records": [record_document(record, include) for record in records], "missing": missing})
    if records:
        output.table(f"{len(records)} records", ("id", *include), record_rows(records, include))
    for id_ in missing:
        output.line(f"no record has the id {id_!r}")
    return NOT_FOUND if missing else OK
