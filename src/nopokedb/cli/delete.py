"""`nopokedb delete`: records by their ids or by a filter."""

from __future__ import annotations

from typing import Any

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import id_type_option, ids_of, json_option, where_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@click.argument("ids", nargs=-1)
@where_option
@id_type_option
@click.option("--dry-run", is_flag=True, help="Only count them.")
@json_option
def delete(path: str, ids: tuple[str, ...], where: Any, id_type: Any, dry_run: bool, json: bool) -> None:
    """Delete records of the collection at PATH, by IDS or by a filter, in one atomic batch. Absent ids are skipped."""
    output = Output(json=json)
    if bool(ids) == (where is not None):
        raise click.UsageError(f"expected IDS or --where, got {'both' if ids else 'neither'}")
    wanted = ids_of(ids, id_type)
    with NoPokeDB(path=path, read_only=dry_run) as db:
        if dry_run:
            chosen = where if where is not None else {"$id": {"$in": wanted}}
            deleted, count = db.count(chosen), len(db)
        else:
            deleted = db.delete_many(where=where) if where is not None else db.delete_many(wanted)
            count = len(db)
    output.document({"path": path, "deleted": deleted, "count": count, "dry_run": dry_run})
    output.line(f"{path}: {deleted} records {'would be deleted' if dry_run else 'deleted'}, {count} there")
