"""`nopokedb import-legacy`: a folder of the original package (up to 0.5.1) becomes a collection."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from nopokedb.cli.exit_codes import OK, PROBLEMS
from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output
from nopokedb.legacy import import_legacy as run_import

_SHOWN = 20


@click.command("import-legacy")
@click.argument("source")
@click.argument("path")
@click.option(
    "--space",
    type=click.Choice(["cosine", "l2", "ip"]),
    default="cosine",
    show_default=True,
    help="What the original was opened with; its files do not say.",
)
@click.option("--keep-bare", is_flag=True, help="Import vectors without metadata too (most likely deleted records).")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@json_option
def import_legacy(source: str, path: str, space: Any, keep_bare: bool, dry_run: bool, json: bool) -> int:
    """Make the empty or absent folder PATH a collection of the original's folder SOURCE, which is only read."""
    output = Output(json=json)
    with output.progress(f"importing {source}"):
        report = run_import(source, path, space=space, keep_bare=keep_bare, dry_run=dry_run)
    output.document(asdict(report))
    bare = "imported with {}" if keep_bare else "left out; --keep-bare imports them"
    reasons = [f"{id_}: {reason}" for id_, reason in report.refused.items()]
    rows: list[tuple[object, ...]] = [
        ("would be imported" if dry_run else "imported", report.imported, f"dim {report.dim}, {report.space}"),
        ("of these from the operation log", report.from_log, ""),
        ("deleted in the index", report.deleted, "left out"),
        ("vectors without metadata", len(report.without_metadata), _ids(report.without_metadata, bare)),
        ("metadata without a vector", len(report.without_vector), _ids(report.without_vector, "lost by the original")),
        ("cannot be stored", len(report.refused), "; ".join(reasons[:_SHOWN])),
        ("lines of the log that are no adds", report.log_lines_skipped, ""),
    ]
    output.table(source, ("what", "count", ""), rows)
    return PROBLEMS if report.refused or report.without_vector else OK


def _ids(ids: list[int], words: str) -> str:
    if not ids:
        return ""
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{words}: {', '.join(map(str, ids[:_SHOWN]))}{more}"
