"""`nopokedb forecast`: what a collection will need when it has grown."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb import forecast as run_forecast
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output


@click.command()
@click.argument("path")
@click.argument("count", type=int)
@json_option
def forecast(path: str, count: int, json: bool) -> None:
    """Measure what the folder at PATH will need with COUNT records: disk, memory, time. Takes some seconds."""
    output = Output(json=json)
    with output.progress(f"measuring beside {path}"):
        found = run_forecast(path, count)
    output.document(asdict(found))
    for line in str(found).splitlines():
        output.line(line)
