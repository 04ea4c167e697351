"""Options that every command has."""

from __future__ import annotations

import click

json_option = click.option("--json", "json", is_flag=True, help="Print one JSON document instead of tables.")
