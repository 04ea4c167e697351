"""Options that several commands have, and from what is typed to the arguments of the library."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import numpy as np

from nopokedb import NoPokeDB, View
from nopokedb.database import engine_of
from nopokedb.embedding.names import FORMS, check_spec
from nopokedb.errors import InvalidInputError
from nopokedb.records import Id, Part
from nopokedb.transfer.layout import IdType, load_json
from nopokedb.transfer.rows import id_of_text

C = TypeVar("C", bound=Callable[..., Any])


def stdin_or_file(text: str) -> str:
    """The content of a file named as `@path`, of the standard input as `@-`; other text is itself."""
    if not text.startswith("@"):
        return text
    if text == "@-":
        return sys.stdin.read()
    return Path(text[1:]).read_text(encoding="utf-8")


class Json(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """JSON, or `@file` that holds it."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        text = stdin_or_file(value)
        try:
            return load_json(text.encode())
        except ValueError as error:
            self.fail(f"expected JSON, got {text[:80]!r} ({error})", param, ctx)


class Vector(click.ParamType):  # type: ignore[type-arg]
    """Numbers: `[0.1, 0.2]`, `0.1,0.2`, `@file` with either of them, or `@file.npy`."""

    name = "vector"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value.startswith("@") and value.endswith(".npy"):
            try:
                return np.load(value[1:], allow_pickle=False)
            except ValueError as error:
                self.fail(f"expected a NumPy file, got something else ({error})", param, ctx)
        text = stdin_or_file(value).strip()
        try:
            numbers = load_json(text.encode()) if text[:1] == "[" else [float(part) for part in text.split(",")]
        except ValueError as error:
            self.fail(f"expected numbers, got {text[:80]!r} ({error})", param, ctx)
        return numbers


class Model(click.ParamType):  # type: ignore[type-arg]
    """A model: the name of one in a wheel, or KIND:PLACE."""

    name = "model"
    forms = ", ".join(FORMS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return check_spec(value)
        except InvalidInputError as error:
            self.fail(str(error), param, ctx)


class Parts(click.ParamType):  # type: ignore[type-arg]
    """Names of parts, separated by commas."""

    name = "parts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part for part in value.split(",") if part]
        for part in parts:
            if part not in get_args(Part):
                self.fail(f"expected names among {', '.join(get_args(Part))}, got {part!r}", param, ctx)
        return tuple(parts)


json_option = click.option("--json", "json", is_flag=True, help="Print one JSON document instead of tables.")
where_option = click.option("--where", type=Json(), help="A filter as JSON, or @file (docs/filters.md).")
at_option = click.option("--at", help="Read the named snapshot instead of the present.")
include_option = click.option(
    "--include", type=Parts(), default="metadata", show_default=True, help="Parts to show: metadata, vector, text."
)
id_type_option = click.option(
    "--id-type",
    type=click.Choice(get_args(IdType)),
    default="auto",
    show_default=True,
    help='What ids are: under auto digits are ints, and "7" with its quotes is a str.',
)
fields_of_a_record = (
    click.option("--vector", type=Vector(), help="[0.1, 0.2], or 0.1,0.2, or @file, or @file.npy."),
    click.option("--text", help="The text."),
    click.option("--metadata", type=Json(), help="A JSON object, or @file."),
)
questions = (
    click.option("--vector", type=Vector(), help="What to be near to: [0.1, 0.2], or 0.1,0.2, or @file, or @file.npy."),
    click.option("--text", help="Words to search for; with a model in the collection their meaning too (see --by)."),
    click.option(
        "--by",
        type=click.Choice(["both", "words", "meaning"]),
        help="How to search --text. The default is both where the collection has a model, else words.",
    ),
    click.option("--like", multiple=True, help="Id of a record to be near to; may come more than once."),
    click.option("--unlike", multiple=True, help="Id of a record to be far from, beside --like."),
    click.option("-k", type=int, default=5, show_default=True, help="How many answers."),
    where_option,
    click.option("--ef", type=int, help="Length of the candidate list, exactly."),
    click.option("--target-recall", type=float, help="Recall to reach; 1 is exact. The default is 0.99."),
    click.option("--max-distance", type=float, help="Leave out what is farther from the vector."),
    click.option("--alpha", type=float, help="Fuse by scores, with this weight (0 to 1) of the vector; else by ranks."),
    click.option("--diversity", type=float, help="0 to 1: choose hits that are unlike each other."),
    click.option("--group-by", help="The best hits of each value of a field; -k counts the groups."),
    click.option("--group-size", type=int, default=1, show_default=True, help="Hits of each group."),
    id_type_option,
)


def several(options: Sequence[Callable[[Any], Any]]) -> Callable[[C], C]:
    """All of these options, in order."""

    def decorate(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def ids_of(texts: Sequence[str], kind: IdType) -> list[Id]:
    """The ids that were typed."""
    found: list[Id] = []
    for text in texts:
        id_ = text if kind == "str" else id_of_text(text)
        if kind == "int" and not isinstance(id_, int):
            raise InvalidInputError(f"expected an id that is an int of 64 bits, got {text!r:.80}")
        found.append(id_)
    return found


def moment(db: NoPokeDB, at: str | None) -> NoPokeDB | View:
    """What is read: the present, or a named snapshot."""
    return db if at is None else db.at(at)


def question(db: NoPokeDB, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `query`, from those of the command line (`questions`)."""
    by, text, alpha = options.pop("by"), options.pop("text"), options.pop("alpha")
    kind = options.pop("id_type")
    like, unlike = ids_of(options.pop("like"), kind), ids_of(options.pop("unlike"), kind)
    asked = {name: value for name, value in options.items() if value is not None}
    if asked.get("group_size") == 1:
        del asked["group_size"]
    asked |= ({"like": like} if like else {}) | ({"unlike": unlike} if unlike else {})
    asked |= {} if alpha is None else {"fusion": "weighted", "alpha": alpha}
    if text is None:
        if by is not None:
            raise InvalidInputError("expected --text beside --by, got none")
        return asked
    has_model = bool(engine_of(db).embed_name)
    by = by or ("both" if has_model and "vector" not in asked and not like else "words")
    if by != "words":
        if "vector" in asked or like:
            raise InvalidInputError("expected --text to give the vector with --by meaning or both, got another one too")
        asked["vector"] = text
    return asked if by == "meaning" else asked | {"text": text}
