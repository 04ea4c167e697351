"""What a text query says: words, "phrases", +must, -must_not, prefix*. Any string has a meaning; none is an error.

    rust database        either word; who has both, or the rarer one, comes first
    "vector database"    the words side by side
    +rust -"web server"  must have, must not have; other words then only raise the score
    data*                every word that begins so

An operator stands at the start of a word: `well-known` and `c++` are plain words, and a lone `-`, `+` or `*` is
nothing. A quote (straight or “typographic”) opens a phrase at the start of a word and needs its partner; any other is
a plain character, as are colons, brackets and the words AND, OR and NOT. A query without anything that may match
(only `-` clauses, or no words at all once the collection's language has removed its stop words) matches nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nopokedb.errors import InvalidInputError

ClauseKind: TypeAlias = Literal["words", "phrase", "prefix"]
Occur: TypeAlias = Literal["should", "must", "must_not"]

MAX_QUERY_BYTES = 64 * 2**10
"""About ten thousand words: a whole article may be the query. It then takes tens of milliseconds."""
MAX_CLAUSES = 1_024
"""Plain words in a row are one clause, so only operators count."""

_TOKEN = re.compile(r'(?P<occur>[+-]?)(?:"(?P<phrase>[^"]*)"|(?P<word>\S+))')
_QUOTES = str.maketrans("“”„", '"""')
_OCCUR: dict[str, Occur] = {"": "should", "+": "must", "-": "must_not"}


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition. Text of kind `words` is any number of words; with `must` and `must_not` it is one word, whose
    parts (`well-known`) stand side by side."""

    kind: ClauseKind
    occur: Occur
    text: str


@dataclass(frozen=True, slots=True)
class TextQuery:
    """All conditions in the order in which they were written."""

    clauses: tuple[Clause, ...]


def parse_text_query(text: object) -> TextQuery:
    """The meaning of a user's text, see the top of this module.

    Raises InvalidInputError for what is not a str of valid Unicode, and for more than 64 KiB of UTF-8 or 1,024
    clauses: a part of a query is never dropped in silence.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"expected the text of a query to be a str, got {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"expected the text of a query to be valid Unicode, got {text!a:.80} ({error.reason}); "
            'clean it, for example with text.encode("utf-8", "replace").decode()'
        ) from None
    if size > MAX_QUERY_BYTES:
        raise InvalidInputError(
            f"expected the text of a query to be at most {MAX_QUERY_BYTES} UTF-8 bytes, got {size}; "
            "query with the words that matter"
        )
    clauses: list[Clause] = []
    words: list[str] = []

    def flush() -> None:
        if words:
            clauses.append(Clause("words", "should", " ".join(words)))
            words.clear()

    for token in _TOKEN.finditer(text.translate(_QUOTES)):
        clause = _clause(token)
        if clause is None:
            continue
        if clause.kind == "words" and clause.occur == "should":
            words.append(clause.text)
        else:
            flush()
            clauses.append(clause)
    flush()
    if len(clauses) > MAX_CLAUSES:
        raise InvalidInputError(
            f"expected a text query of at most {MAX_CLAUSES} clauses, got {len(clauses)}; plain words in a row count "
            "as one, so leave out operators (+, -, *, quotes)"
        )
    return TextQuery(tuple(clauses))


def _clause(token: re.Match[str]) -> Clause | None:
    """The clause of one token, None if nothing in it can be searched for."""
    occur, phrase, word = _OCCUR[token["occur"]], token["phrase"], token["word"]
    kind: ClauseKind = "words" if phrase is None else "phrase"
    if phrase is None and word.endswith("*"):
        kind, word = "prefix", word.rstrip("*")
    content = word if phrase is None else phrase
    if not any(character.isalnum() for character in content):
        return None
    return Clause(kind, occur, content)
