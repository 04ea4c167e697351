"""`nopokedb serve`: a folder of collections over REST and gRPC. Every option is an environment variable too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.distribution import install_hint

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_LIMITS = (
    ("--max-body-bytes", 64 * 2**20, "Largest body of a request."),
    ("--max-upload-bytes", 8 * 2**30, "Largest upload of records (NDJSON, Arrow, Parquet)."),
    ("--max-k", 10_000, "Largest k of a query."),
    ("--max-batch", 10_000, "Most records, ids or changes in one request."),
    ("--max-queries", 1_000, "Most vectors in one query."),
    ("--max-page", 10_000, "Most records of one page of a scan."),
    ("--max-filter-bytes", 64 * 2**10, "Largest filter, as JSON."),
    ("--max-concurrent", 1_000, "Most requests at once; more are answered with 429."),
    ("--timeout-s", 30.0, "Seconds that a request may take, then it is answered with 503."),
    ("--upload-timeout-s", 3600.0, "The same for uploads."),
)


def _limits(command: F) -> F:
    """The options of `Limits`."""
    for flag, default, words in reversed(_LIMITS):
        least = click.FloatRange(0, min_open=True) if isinstance(default, float) else click.IntRange(1)
        command = click.option(flag, default=default, type=least, show_default=True, help=words)(command)
    return command


@click.command(context_settings={"auto_envvar_prefix": "NOPOKEDB"})
@click.argument("path", type=_FOLDER, envvar="NOPOKEDB_PATH")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need keys.")
@click.option("--port", type=click.IntRange(0, 65535), default=7331, show_default=True, help="Port of REST; 0: any.")
@click.option(
    "--grpc-port",
    type=click.IntRange(-1, 65535),
    default=7332,
    show_default=True,
    help="Port of gRPC; 0: any; -1: no gRPC.",
)
@click.option("--keys", type=_FILE, help="The keys file (`nopokedb keys`), read again on SIGHUP.")
@click.option("--api-key", help="One admin key. Better as NOPOKEDB_API_KEY: others can see options.")
@click.option("--tls-cert", type=_FILE, help="Certificate chain in PEM.")
@click.option("--tls-key", type=_FILE, help="Its private key in PEM.")
@click.option("--allow-host", multiple=True, help="A name by which clients call this server.")
@click.option("--backups", type=_FOLDER, help="Folder of backups; `.backups` in PATH unless given.")
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("wordllama",),
    show_default=True,
    help="Allowed as embed: a name, or KIND:PLACE.",
)
@click.option(
    "--max-memory", type=click.IntRange(0), default=2 * 2**30, show_default=True, help="Bytes of all indexes."
)
@click.option("--max-open", type=click.IntRange(1), default=256, show_default=True, help="Collections open at once.")
@click.option(
    "--min-free-bytes",
    type=click.IntRange(0),
    default=64 * 2**20,
    show_default=True,
    help="With less free disk space the server is not ready.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged, as lines of JSON on the error stream.",
)
@click.option("--log-requests", is_flag=True, help="Log every request, not only failed and slow ones.")
@click.option("--opentelemetry", is_flag=True, help="Record a span per request; OTEL_* variables say where it goes.")
@_limits
@json_option
def serve(path: Path, json: bool, log_level: str, **options: Any) -> None:
    """Serve the collections in the folder PATH until SIGTERM or SIGINT."""
    try:
        from nopokedb.server.lifecycle import serve as run
        from nopokedb.server.logs import log_to_stderr
        from nopokedb.server.settings import Limits, ServerSettings
    except ModuleNotFoundError as error:
        raise click.UsageError(f"the server needs {error.name}: {install_hint('server')}") from None
    output = Output(json=json)

    def announce(address: str, grpc_address: str | None) -> None:
        output.document({"console": f"{address}/", "rest": address, "grpc": grpc_address})
        output.line(f"serving {path}, console at {address}/")

    names = [flag.removeprefix("--").replace("-", "_") for flag, _, _ in _LIMITS]
    limits = Limits(**{name: options.pop(name) for name in names})
    options["grpc_port"] = None if options["grpc_port"] < 0 else options["grpc_port"]
    log_to_stderr(log_level)
    run(ServerSettings(path, allowed_hosts=options.pop("allow_host"), limits=limits, **options), announce)
