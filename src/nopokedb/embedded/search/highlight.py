"""The part of a text that shows best why it matches, as HTML.

Works on the text as it was stored, not on its terms: words are cut out of it and analysed one by one, so whatever
the analyzer folds or stems is marked as it was written.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from nopokedb.embedded.search.analysis import CJK, Analyzer, normal, pairs, prepare
from nopokedb.text_query import TextQuery

if TYPE_CHECKING:
    from typing import TypeAlias

    Span: TypeAlias = tuple[int, int, str]
    """Start and end in the text, and the term that it stands for."""

FRAGMENT_CHARACTERS = 160
_SEARCHED_CHARACTERS = 200_000
"""Of a longer text only the beginning is looked at: about 0.1 s."""

# Letters and digits with the accents that may follow them as characters of their own.
_WORD = re.compile("(?:[^\\W_][\u0300-\u036f\u3099\u309a]*)+")


class Highlighter:
    """Marks what one query looks for. Any number of texts."""

    def __init__(self, query: TextQuery, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._terms: set[str] = set()
        prefixes: set[str] = set()
        for clause in query.clauses:
            if clause.occur == "must_not":
                continue
            for at, piece in enumerate(CJK.split(normal(clause.text))):
                if at % 2:
                    self._terms.update(pairs(piece).split() or [piece])
                elif clause.kind == "prefix":
                    *words, last = analyzer.plain.analyze(piece) or [""]
                    self._terms.update(analyzer.terms.analyze(" ".join(words)))
                    prefixes.update([last] if last else [])
                else:
                    self._terms.update(analyzer.terms.analyze(piece))
        self._prefixes = tuple(prefixes)
        self._known: dict[str, str | None] = {}

    def highlight(self, text: str) -> str:
        """At most about 160 characters of the text with the most different matches, each in `<b>`..`</b>`, all else
        escaped for HTML, `…` where the text goes on. Without a match: its beginning."""
        spans = self._spans(text[:_SEARCHED_CHARACTERS])
        first, last = _densest(spans)
        chosen = spans[first:last]
        start, stop = _window(text, chosen[0][0] if chosen else 0, chosen[-1][1] if chosen else 0)
        parts = ["…" if start else ""]
        at = start
        for begin, end, _ in chosen:
            end = min(end, stop)
            parts += [html.escape(text[at:begin]), "<b>", html.escape(text[begin:end]), "</b>"]
            at = end
        parts += [html.escape(text[at:stop]), "…" if stop < len(text) else ""]
        return "".join(parts)

    def _spans(self, text: str) -> list[Span]:
        """All matches, ascending, without overlaps."""
        spans: list[Span] = []
        for word in _WORD.finditer(text):
            at = word.start()
            for turn, piece in enumerate(CJK.split(word[0])):
                if turn % 2:
                    spans += self._in_run(piece, at)
                elif piece:
                    term = self._term(piece)
                    if term is not None:
                        spans.append((at, at + len(piece), term))
                at += len(piece)
        return spans

    def _term(self, word: str) -> str | None:
        """What the word matches, None for nothing."""
        if word not in self._known:
            prepared = prepare(word)
            found = next((term for term in self._analyzer.terms.analyze(prepared) if term in self._terms), None)
            if found is None and self._prefixes:
                plain = self._analyzer.plain.analyze(prepared)
                found = next((each for each in plain if each.startswith(self._prefixes)), None)
            self._known[word] = found
        return self._known[word]

    def _in_run(self, run: str, offset: int) -> list[Span]:
        """Matching pairs and characters of a run of CJK characters; those that touch become one."""
        spans: list[Span] = []
        for at in range(len(run)):
            for length in (2, 1):
                piece = normal(run[at : at + length])
                if piece in self._terms and at + length <= len(run):
                    begin, end = offset + at, offset + at + length
                    if spans and spans[-1][1] >= begin:
                        begin, _, piece = spans.pop()
                    spans.append((begin, end, piece))
                    break
        return spans


def _densest(spans: list[Span]) -> tuple[int, int]:
    """The range of spans that fits into a fragment and has the most different terms, then the most matches."""
    best, chosen, first = (0, 0), (0, 0), 0
    counts: dict[str, int] = {}
    for last, (_, end, term) in enumerate(spans):
        counts[term] = counts.get(term, 0) + 1
        while first < last and end - spans[first][0] > FRAGMENT_CHARACTERS:
            left = spans[first][2]
            counts[left] -= 1
            if not counts[left]:
                del counts[left]
            first += 1
        if (len(counts), last + 1 - first) > best:
            best, chosen = (len(counts), last + 1 - first), (first, last + 1)
    return chosen


def _window(text: str, begin: int, end: int) -> tuple[int, int]:
    """The fragment around [begin, end): the rest of its length on both sides, cut between words where it can be."""
    spare = max(0, FRAGMENT_CHARACTERS - (end - begin))
    start = max(0, begin - spare // 2)
    stop = min(len(text), start + FRAGMENT_CHARACTERS)
    start = max(0, min(start, stop - FRAGMENT_CHARACTERS))
    if start:
        gap = text.find(" ", start, begin)
        start = gap + 1 if gap >= 0 else start
    if stop < len(text):
        gap = text.rfind(" ", max(end, start), stop + 1)
        stop = gap if gap > start else stop
    return start, stop
