"""The frame: the group of all commands, `--json`, and from an error to its exit code."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import click

from nopokedb import __version__
from nopokedb.cli.add import add
from nopokedb.cli.backup import backup
from nopokedb.cli.bench import bench
from nopokedb.cli.check import check
from nopokedb.cli.completion import completion
from nopokedb.cli.copy import copy
from nopokedb.cli.count import count
from nopokedb.cli.create import create
from nopokedb.cli.delete import delete
from nopokedb.cli.demo import demo
from nopokedb.cli.duplicates import duplicates
from nopokedb.cli.exit_codes import OK, USAGE, exit_code_of
from nopokedb.cli.explain import explain
from nopokedb.cli.export import export
from nopokedb.cli.facet import facet
from nopokedb.cli.forecast import forecast
from nopokedb.cli.get import get
from nopokedb.cli.graduate import graduate
from nopokedb.cli.import_file import import_
from nopokedb.cli.import_legacy import import_legacy
from nopokedb.cli.info import info
from nopokedb.cli.keys import keys
from nopokedb.cli.mcp import mcp
from nopokedb.cli.migrate import migrate
from nopokedb.cli.optimize import optimize
from nopokedb.cli.outliers import outliers
from nopokedb.cli.output import Output
from nopokedb.cli.plot import plot
from nopokedb.cli.query import query
from nopokedb.cli.reembed import reembed
from nopokedb.cli.restore import restore
from nopokedb.cli.serve import serve
from nopokedb.cli.snapshot import snapshot


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nopokedb")
def application() -> None:
    """NoPokeDB collections: make them, fill them, ask them, look after them."""


COMMANDS: tuple[click.Command, ...] = (
    add,
    backup,
    bench,
    check,
    completion,
    copy,
    count,
    create,
    delete,
    demo,
    duplicates,
    explain,
    export,
    facet,
    forecast,
    get,
    graduate,
    import_,
    import_legacy,
    info,
    keys,
    mcp,
    migrate,
    optimize,
    outliers,
    plot,
    query,
    reembed,
    restore,
    serve,
    snapshot,
)
for command in COMMANDS:
    application.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code (exit_codes.py). An error without a code there is a defect and comes out."""
    logging.getLogger("faiss").setLevel(logging.WARNING)  # says how it was loaded, once a library sets up logging
    output = Output(json="--json" in arguments)
    try:
        result = application.main(args=list(arguments), prog_name="nopokedb", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        return exit_code_of(KeyboardInterrupt()) or USAGE
    except click.ClickException as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return USAGE
        if output.json:
            output.document({"error": {"type": type(error).__name__, "message": error.format_message()}})
        error.show()
        return USAGE
    except (Exception, KeyboardInterrupt) as error:
        code = exit_code_of(error)
        if code is None:
            raise
        output.error(error)
        return code
    return result if isinstance(result, int) else OK
