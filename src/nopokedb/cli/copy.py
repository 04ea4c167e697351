"""`nopokedb copy`: a collection moves from one engine to another."""

from __future__ import annotations

from dataclasses import asdict

import click

from nopokedb.cli.exit_codes import OK, PROBLEMS
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.copying import CopyReport
from nopokedb.copying import copy as run_copy


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--verify", is_flag=True, help="Compare counts and checksums of both, and measure the target's recall.")
@click.option("--resume", is_flag=True, help="Go on with a copy that was stopped.")
@json_option
def copy(source: str, target: str, verify: bool, resume: bool, json: bool) -> int:
    """Copy SOURCE to TARGET: folders, postgresql://user@host/database#collection, http://host:7331/collection."""
    output = Output(json=json)
    with output.measured(f"copying {'' if '://' in source else source}", "records") as advance:
        report = run_copy(source, target, verify=verify, resume=resume, advance=advance)
    output.document({**asdict(report), "same": report.same})
    show(output, report)
    return PROBLEMS if report.same is False else OK


def show(output: Output, report: CopyReport) -> None:
    """A report for people."""
    output.line(f"{report.target}: {report.count} records, {report.copied} of them now")
    for words in report.left_out:
        output.line(f"not copied: {words}")
    if report.source_side is not None and report.target_side is not None:
        rows = [(side.path, side.count, side.checksum) for side in (report.source_side, report.target_side)]
        output.table("verified: " + ("the same" if report.same else "DIFFERENT"), ("path", "records", "sha256"), rows)
    if report.recall is not None:
        output.line(f"recall@10 of the target: {report.recall:.4f}")
