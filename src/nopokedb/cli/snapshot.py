"""`nopokedb snapshot`: named snapshots of a collection that nobody writes."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb import NoPokeDB
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output


@click.group()
def snapshot() -> None:
    """Make, list, drop and return to named snapshots of a collection. All but list open it for writing."""


@snapshot.command()
@click.argument("path")
@click.argument("name")
@json_option
def create(path: str, name: str, json: bool) -> None:
    """Give the state of the collection at PATH the new NAME."""
    output = Output(json=json)
    with NoPokeDB(path=path) as db:
        made = db.snapshot(name)
    output.document(asdict(made))
    output.line(f"{made.name}: {made.count} records as of lsn {made.lsn}")


@snapshot.command("list")
@click.argument("path")
@json_option
def list_(path: str, json: bool) -> None:
    """List the snapshots of the collection at PATH, also beside a writer."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db:
        found = db.snapshots()
    output.document({"path": path, "snapshots": [asdict(item) for item in found]})
    rows = [(item.name, item.count, item.lsn, item.created_at.isoformat(timespec="seconds")) for item in found]
    output.table(f"snapshots of {path}", ("name", "records", "lsn", "created"), rows)


@snapshot.command()
@click.argument("path")
@click.argument("name")
@json_option
def drop(path: str, name: str, json: bool) -> None:
    """Forget the snapshot NAME of the collection at PATH."""
    output = Output(json=json)
    with NoPokeDB(path=path) as db:
        db.drop_snapshot(name)
    output.document({"path": path, "dropped": name})
    output.line(f"{name}: dropped")


@snapshot.command()
@click.argument("path")
@click.argument("name")
@json_option
def rollback(path: str, name: str, json: bool) -> None:
    """Bring the records of the snapshot NAME back into the collection at PATH, in one atomic batch."""
    output = Output(json=json)
    with NoPokeDB(path=path) as db:
        changed = db.rollback(name)
        count = len(db)
    output.document({"path": path, "snapshot": name, "changed": changed, "count": count})
    output.line(f"{path}: {changed} records changed, {count} there")
