"""`nopokedb import`: the rows of a file become records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

import click

from nopokedb.cli.exit_codes import OK, PROBLEMS
from nopokedb.cli.options import Model, json_option
from nopokedb.cli.output import Output
from nopokedb.records import Space
from nopokedb.transfer.formats import FORMATS
from nopokedb.transfer.importing import Mode, Options
from nopokedb.transfer.importing import import_file as run_import
from nopokedb.transfer.layout import IdType, Layout

_SHOWN = 20


@click.command("import")
@click.argument("source")
@click.argument("path")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of SOURCE; else its suffix says.")
@click.option("--id", "id_", metavar="COLUMN", help="Column of the ids. [default: id]")
@click.option("--auto-ids", is_flag=True, help="Number the records, whatever ids the file has.")
@click.option(
    "--id-type", type=click.Choice(get_args(IdType)), default="auto", show_default=True, help="What the ids are."
)
@click.option(
    "--vector", metavar="COLUMN", help="Column (dataset, array) of the vectors; v* is v0, v1, ... [default: vector]"
)
@click.option("--text", metavar="COLUMN", help="Column of the texts. [default: text]")
@click.option("--metadata", metavar="COLUMN", help="Column that holds whole objects. [default: metadata]")
@click.option(
    "--field",
    "fields",
    metavar="COLUMN[=KEY]",
    multiple=True,
    help="A column that goes into the metadata, under KEY; may come more than once. Without: all that are left.",
)
@click.option("--no-fields", is_flag=True, help="No other columns.")
@click.option("--strings", is_flag=True, help="Cells of a CSV file are texts, digits too.")
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    default="insert",
    show_default=True,
    help="What to do where the id exists: insert takes the row for a bad one, upsert replaces what the row has.",
)
@click.option("--space", type=click.Choice(get_args(Space)), help="The distance of a collection that is created.")
@click.option("--embed", type=Model(), help=f"The model of a collection that is created: {Model.forms}.")
@click.option("--batch-size", type=int, default=10_000, show_default=True, help="Rows of an atomic batch at most.")
@click.option("--skip-bad", is_flag=True, help="Leave bad rows out. Without, the import stops before the first one.")
@click.option("--dry-run", is_flag=True, help="Check every row, name the bad ones, write nothing.")
@click.option("--restart", is_flag=True, help="Forget an earlier import of this file, and begin anew.")
@click.option("--continue", "changed", is_flag=True, help="Go on though the file was changed behind the last row.")
@json_option
def import_(
    source: str,
    path: str,
    format_: str | None,
    id_: str | None,
    auto_ids: bool,
    id_type: Any,
    vector: str | None,
    text: str | None,
    metadata: str | None,
    fields: tuple[str, ...],
    no_fields: bool,
    strings: bool,
    mode: Any,
    space: Any,
    embed: str | None,
    batch_size: int,
    skip_bad: bool,
    dry_run: bool,
    restart: bool,
    changed: bool,
    json: bool,
) -> int:
    """Bring the rows of the file SOURCE into the collection at PATH, which is created if it is missing.

    An import that was stopped or killed goes on where it was when it is called again.
    """
    if fields and no_fields:
        raise click.UsageError("expected --field or --no-fields, got both")
    keys = {name: key or name for name, _, key in (field.partition("=") for field in fields)}
    layout = Layout(id_, vector, text, metadata, keys if fields or no_fields else None, auto_ids, id_type)
    options = Options(format_, layout, mode, space, embed, strings, skip_bad, batch_size)
    output = Output(json=json)
    with output.measured(f"{'checking' if dry_run else 'importing'} {source}", "records") as advance:
        report = run_import(source, path, options, dry_run=dry_run, restart=restart, changed=changed, advance=advance)
    output.document(asdict(report))
    if report.bad:
        rows = [(bad.line, bad.reason) for bad in report.bad[:_SHOWN]]
        more = f", the first {_SHOWN}" if report.bad_count > _SHOWN else ""
        output.table(f"{source}: {report.bad_count} bad rows{more}", (report.unit, "why"), rows)
    done = "would be imported" if dry_run else "imported"
    if report.resumed_at is not None:
        before = "was imported already; --restart does it again" if report.finished and not report.bad else ""
        output.line(f"{source}: {before or f'went on behind row {report.resumed_at}'}")
    output.line(f"{path}: {report.imported} records {done}, {report.bad_count} rows left out")
    if not report.finished:
        output.line(
            "stopped before the first bad row: correct it and use --continue, or leave such rows out with --skip-bad"
        )
    return PROBLEMS if report.bad_count or not report.finished else OK
