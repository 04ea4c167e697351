"""`nopokedb serve`: a folder of collections over REST and gRPC."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.distribution import install_hint


@click.command()
@click.argument("path")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7331, show_default=True, help="Port of REST and the console; 0: any free one.")
@click.option("--keys", type=Path, help="The keys file (`nopokedb keys`).")
@click.option("--allow-host", multiple=True, help="A name by which clients call this server.")
@json_option
def serve(path: str, host: str, port: int, keys: Path | None, allow_host: tuple[str, ...], json: bool) -> None:
    """Serve the collections in the folder PATH until stopped by SIGTERM or SIGINT."""
    try:
        from nopokedb.server.lifecycle import serve as run
        from nopokedb.server.logs import log_to_stderr
        from nopokedb.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise click.UsageError(f"the server needs {error.name}: {install_hint('server')}") from None
    output = Output(json=json)

    def announce(address: str) -> None:
        output.document({"console": f"{address}/", "rest": address})
        output.line(f"serving {path}, console at {address}/")

    log_to_stderr("info")
    run(
        ServerSettings(
            Path(path),
            host=host,
            port=port,
            keys=keys,
            api_key=os.environ.get("NOPOKEDB_API_KEY"),
            allowed_hosts=allow_host,
        ),
        announce,
    )
