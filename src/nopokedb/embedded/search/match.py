"""From a parsed text query to tantivy's query, over the terms that the analyzer makes.

No string of a user ever reaches tantivy's own query parser: every node is built by a typed call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nopokedb.embedded.search.analysis import CJK, Analyzer, normal, pairs, prepare
from nopokedb.text_query import Clause, TextQuery

if TYPE_CHECKING:
    import tantivy

TEXT, PLAIN = "text", "plain"
"""Fields: the terms with their positions; the words as written, only where the language changes them."""
_WORD_CHARACTERS = 4
"""A CJK run of up to so many characters is looked for whole, as a word; the pairs of a longer one, which is a
sentence, raise the score one by one."""


@dataclass(frozen=True, slots=True)
class Match:
    """What is looked for."""

    query: tantivy.Query
    constant: bool
    """Every match has the score 1, so only their labels order them."""


class Matcher:
    """Builds queries for one analyzer and one schema."""

    def __init__(self, analyzer: Analyzer, schema: tantivy.Schema) -> None:
        import tantivy

        self._analyzer = analyzer
        self._schema = schema
        self._query = tantivy.Query
        self._occur = {
            "should": tantivy.Occur.Should,
            "must": tantivy.Occur.Must,
            "must_not": tantivy.Occur.MustNot,
        }

    def match(self, query: TextQuery) -> Match | None:
        """The whole query, None if nothing can match."""
        parts = [(clause.occur, part, constant) for clause in query.clauses for part, constant in self._parts(clause)]
        wanted = [part for part in parts if part[0] != "must_not"]
        if not wanted:
            return None
        if len(parts) == 1:
            return Match(parts[0][1], parts[0][2])
        return Match(self._query.boolean_query([(self._occur[occur], part) for occur, part, _ in parts]), False)

    def labels(self, query: tantivy.Query, labels: list[int]) -> tantivy.Query:
        """The query with its matches limited to these labels; the scores stay."""
        chosen = self._query.const_score_query(self._query.term_set_query(self._schema, "label", labels), 0.0)
        return self._query.boolean_query([(self._occur["must"], query), (self._occur["must"], chosen)])

    def _parts(self, clause: Clause) -> Iterator[tuple[tantivy.Query, bool]]:
        """The queries of one clause, and whether each gives all its matches the score 1."""
        if clause.kind == "prefix":
            yield from self._prefix(clause.text)
        elif clause.kind == "phrase" or clause.occur != "should":
            yield from self._phrase(clause.text)
        else:
            yield from self._words(clause.text)

    def _words(self, text: str) -> Iterator[tuple[tantivy.Query, bool]]:
        counts: Counter[str] = Counter()
        for at, piece in enumerate(CJK.split(normal(text))):
            if at % 2 == 0:
                counts.update(self._analyzer.terms.analyze(piece))
            elif len(piece) == 1 or 2 < len(piece) <= _WORD_CHARACTERS:
                yield from self._phrase(piece)
            else:
                counts.update(self._analyzer.terms.analyze(pairs(piece)))
        for term, count in counts.items():
            found = self._query.term_query(self._schema, TEXT, term, "freq")
            yield (found if count == 1 else self._query.boost_query(found, float(count))), False

    def _phrase(self, text: str) -> Iterator[tuple[tantivy.Query, bool]]:
        """The words side by side; one word is just that word. Stop words count as any one word between others."""
        text = normal(text)
        pieces = [piece for piece in CJK.split(text) if piece.strip()]
        if len(pieces) == 1 and len(pieces[0]) == 1 and CJK.match(pieces[0]):
            yield self._beginning(TEXT, self._analyzer.terms.analyze(pieces[0])), True
            return
        terms = self._analyzer.positions(prepare(text))
        # A run at the end goes on in longer runs, so its last character alone is no term there. One at the start or
        # in the middle stands whole in the phrase.
        last = re.search(r"\w\W*\Z", text)
        if last and CJK.match(last[0]) and len(terms) > 1 and len(terms[-2][1]) > 1 and CJK.match(terms[-2][1]):
            terms.pop()
        if len(terms) > 1:
            yield self._query.phrase_query(self._schema, TEXT, list(terms)), False
        elif terms:
            yield self._query.term_query(self._schema, TEXT, terms[0][1], "freq"), False

    def _prefix(self, text: str) -> Iterator[tuple[tantivy.Query, bool]]:
        """Words that begin so. Of several parts (`well-kno*`) the last is a beginning, the others are words."""
        text = normal(text)
        if CJK.search(text):  # every pair begins somewhere: a run is found inside longer ones as it is
            yield from self._phrase(text)
            return
        words = self._analyzer.plain.analyze(text)
        if not words:
            return
        field = TEXT if self._analyzer.language == "none" else PLAIN
        beginning = self._beginning(field, words[-1:])
        if len(words) == 1:
            yield beginning, True
            return
        must = self._occur["must"]
        others = [(must, self._query.term_query(self._schema, field, word, "basic")) for word in words[:-1]]
        yield self._query.const_score_query(self._query.boolean_query([*others, (must, beginning)]), 1.0), True

    def _beginning(self, field: str, words: list[str]) -> tantivy.Query:
        """Each document with a term that begins so scores 1, as in Lucene. Terms hold letters and digits only, of
        which none has a meaning in a regular expression."""
        if not words:
            return self._query.empty_query()
        return self._query.regex_query(self._schema, field, re.escape(words[0]) + ".*")
