"""`nopokedb query`: the best records by vector, by text, by example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from nopokedb import Group, Hit, NoPokeDB
from nopokedb.cli.options import at_option, include_option, json_option, moment, question, questions, several
from nopokedb.cli.output import Output
from nopokedb.cli.showing import answers_document, hit_columns, hit_rows
from nopokedb.records import Part


@click.command()
@click.argument("path")
@several(questions)
@include_option
@at_option
@json_option
def query(path: str, include: tuple[Part, ...], at: str | None, json: bool, **options: Any) -> None:
    """Show the best records of the collection at PATH, also beside a writer."""
    output = Output(json=json)
    with NoPokeDB(path=path, read_only=True) as db:
        answers: Sequence[Hit | Group] = moment(db, at).query(include=include, **question(db, options))
    output.document(answers_document(answers))
    hits = [answer for answer in answers if isinstance(answer, Hit)]
    if hits or not answers:
        output.table(f"{len(hits)} hits", hit_columns(include), hit_rows(hits, include))
    for group in answers:
        if isinstance(group, Group):
            output.table(f"{group.key!r}", hit_columns(include), hit_rows(group.hits, include))
