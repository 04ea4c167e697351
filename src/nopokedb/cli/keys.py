"""`nopokedb keys`: the keys file of a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.server.keys import create_key, read_keys, revoke_key

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of a server. A running one takes notice on SIGHUP."""


@keys.command()
@_file
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["read", "write", "admin"]),
    default="read",
    show_default=True,
    help="What the key is good for; each role may do what those before it may.",
)
@click.option(
    "--collection", multiple=True, help="The only collections that the key is for; may be given several times."
)
@json_option
def create(file: Path, name: str, role: str, collection: tuple[str, ...], json: bool) -> None:
    """Make a key with this NAME and print it: FILE, made with the first key, keeps only a hash."""
    output = Output(json=json)
    key = create_key(file, name, role, collection)
    output.document({"name": name, "role": role, "collections": list(collection) or None, "key": key})
    output.line(key)


@keys.command("list")
@_file
@json_option
def list_(file: Path, json: bool) -> None:
    """List the keys in FILE: names, roles, collections."""
    output = Output(json=json)
    found = read_keys(file)
    output.document({"keys": [{k: v for k, v in asdict(key).items() if k != "sha256"} for key in found]})
    rows = [(key.name, key.role, ", ".join(key.collections or ("all",)), key.created_at) for key in found]
    output.table(str(file), ("name", "role", "collections", "created"), rows)


@keys.command()
@_file
@click.argument("name")
@json_option
def revoke(file: Path, name: str, json: bool) -> None:
    """Forget the key with this NAME in FILE."""
    output = Output(json=json)
    revoke_key(file, name)
    output.document({"revoked": name})
    output.line(f"{name}: revoked")
