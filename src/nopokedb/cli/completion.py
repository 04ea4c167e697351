"""`nopokedb completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from nopokedb.cli.options import json_option
from nopokedb.cli.output import Output

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, json: bool) -> None:
    """Print the script that makes SHELL (bash, zsh, fish) complete commands and options.

    For bash: nopokedb completion bash >> ~/.bashrc
    """
    output = Output(json=json)
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "nopokedb", "_NOPOKEDB_COMPLETE").source()
    output.document({"shell": shell, "script": script})
    output.script(script)
