"""`nopokedb mcp`: collections for a language model, over stdio."""

from __future__ import annotations

import click


@click.command()
@click.argument("path", envvar="NOPOKEDB_PATH")
@click.option("--write", is_flag=True, help="Let the model add records; a folder is then locked for other writers.")
@click.option("--api-key", envvar="NOPOKEDB_API_KEY", help="For a server. Better as NOPOKEDB_API_KEY.")
def mcp(path: str, write: bool, api_key: str | None) -> None:
    """Serve the collections at PATH to a client of the Model Context Protocol that starts this command: search, hybrid
    search, fetch, count and list, and with --write add. PATH: a folder of collections, a collection, or an address."""
    from nopokedb.adapters.mcp import serve

    serve(path, writable=write, api_key=api_key)
