"""Full-text search in SQL: what is stored of a text, and BM25 over it.

`terms` has the distinct terms of a text, and behind `=` its words as they are written, which prefixes are compared
with; it is indexed. `places` maps each term to its positions, which gives how often it occurs and what stands
side by side. The terms are made by the same analyzer as the embedded engine's, and scored by the same formula, so both
give the same answers: BM25 (Robertson and Zaragoza 2009; k1 = 1.2, b = 0.75) with lengths rounded as `norm_of` does.
PostgreSQL's own `ts_rank` is no BM25: it knows neither how rare a word is nor how long texts are on average.
"""

from __future__ import annotations

import math
import re
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString

import orjson
from psycopg import sql

from nopokedb.embedded.search.analysis import CJK, Analyzer, normal, pairs, prepare
from nopokedb.errors import NotSupportedError
from nopokedb.postgres.connections import Connection, Raw
from nopokedb.postgres.filter_sql import FALSE, Condition
from nopokedb.postgres.schema import Collection
from nopokedb.text_query import Clause, TextQuery

K1, B = 1.2, 0.75
_WORD_CHARACTERS = 4
"""As the embedded engine: a CJK run of up to so many characters is looked for whole."""
_MAX_TERMS_BYTES = 2**20 - 1
"""Of a tsvector."""
_COUNTED_AT_ONCE = 500


def _norms() -> list[int]:
    """The lengths that one byte can stand for: exact up to 40, then with three bits behind the leading one."""
    small = list(range(24))
    large = [24 + (bits if shift < 0 else (bits | 8) << shift) for shift in range(-1, 28) for bits in range(8)]
    return small + large


_NORMS = _norms()


def norm_of(length: int) -> int:
    """The length of a text as its score counts it."""
    return _NORMS[bisect_right(_NORMS, length) - 1]


# --- what is stored -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Indexed:
    """What is stored of one text beside itself."""

    terms: Raw
    places: bytes
    length: int
    norm: int


class Indexer:
    """Makes the terms of texts of one language."""

    def __init__(self, language: str) -> None:
        self.analyzer = Analyzer(language)
        self._plain = language != "none"

    def index(self, text: str) -> Indexed:
        """What is stored of a text. Raises `NotSupportedError` where its different words exceed a megabyte."""
        prepared = prepare(text)
        places: dict[str, list[int]] = {}
        positions = self.analyzer.positions(prepared)
        for position, term in positions:
            places.setdefault(term, []).append(position)
        lexemes = {term.encode() for term in places}
        if self._plain:
            lexemes |= {b"=" + word.encode() for word in self.analyzer.plain.analyze(prepared)}
        size = sum(map(len, lexemes))
        if size > _MAX_TERMS_BYTES:
            raise NotSupportedError(
                f"expected a text whose different words take at most {_MAX_TERMS_BYTES} bytes with the engine "
                f"PostgreSQL, whose tsvector holds no more, got {size}; split it into several records"
            )
        encoded = struct.pack(">i", len(lexemes)) + b"".join(word + b"\0\0\0" for word in sorted(lexemes))
        return Indexed(Raw(encoded), orjson.dumps(places), len(positions), norm_of(len(positions)))


# --- what is asked ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One condition of a text query.

    terms     one term: scored by how often it occurs; `boost` times
    phrase    terms at these positions relative to each other: scored as one term
    constant  prefixes and words that all have to be there: each match scores 1
    """

    kind: Literal["term", "phrase", "constant"]
    occur: str
    places: tuple[tuple[int, str], ...] = ()
    boost: float = 1.0
    lexemes: tuple[tuple[str, bool], ...] = ()
    """Of a constant: lexemes, and whether each is a beginning."""

    def tsquery(self) -> str:
        """The condition for the index: all lexemes are there."""
        wanted = self.lexemes or tuple((term, False) for _, term in self.places)
        return " & ".join(dict.fromkeys(f"'{_quoted(word)}'{':*' if begins else ''}" for word, begins in wanted))


class Parser:
    """From a text query to its parts, clause by clause as the embedded engine does."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._mark = "" if analyzer.language == "none" else "="

    def parts(self, query: TextQuery) -> list[Part]:
        """The parts of a query; none if nothing can match."""
        parts = [part for clause in query.clauses for part in self._parts(clause)]
        return parts if any(part.occur != "must_not" for part in parts) else []

    def _parts(self, clause: Clause) -> Iterator[Part]:
        if clause.kind == "prefix":
            yield from self._prefix(clause.text, clause.occur)
        elif clause.kind == "phrase" or clause.occur != "should":
            yield from self._phrase(clause.text, clause.occur)
        else:
            yield from self._words(clause.text, clause.occur)

    def _words(self, text: str, occur: str) -> Iterator[Part]:
        counts: Counter[str] = Counter()
        for at, piece in enumerate(CJK.split(normal(text))):
            if at % 2 == 0:
                counts.update(self._analyzer.terms.analyze(piece))
            elif len(piece) == 1 or 2 < len(piece) <= _WORD_CHARACTERS:
                yield from self._phrase(piece, occur)
            else:
                counts.update(self._analyzer.terms.analyze(pairs(piece)))
        for term, count in counts.items():
            yield Part("term", occur, ((0, term),), float(count))

    def _phrase(self, text: str, occur: str) -> Iterator[Part]:
        text = normal(text)
        pieces = [piece for piece in CJK.split(text) if piece.strip()]
        if len(pieces) == 1 and len(pieces[0]) == 1 and CJK.match(pieces[0]):
            yield from self._beginning("", self._analyzer.terms.analyze(pieces[0]), occur)
            return
        terms = self._analyzer.positions(prepare(text))
        # A run at the end goes on in longer runs, so its last character alone is no term there.
        last = re.search(r"\w\W*\Z", text)
        if last and CJK.match(last[0]) and len(terms) > 1 and len(terms[-2][1]) > 1 and CJK.match(terms[-2][1]):
            terms.pop()
        if terms:
            yield Part("phrase" if len(terms) > 1 else "term", occur, tuple(terms))

    def _prefix(self, text: str, occur: str) -> Iterator[Part]:
        text = normal(text)
        if CJK.search(text):
            yield from self._phrase(text, occur)
            return
        words = self._analyzer.plain.analyze(text)
        if words:
            others = tuple((self._mark + word, False) for word in words[:-1])
            yield Part("constant", occur, lexemes=(*others, (self._mark + words[-1], True)))

    def _beginning(self, mark: str, words: list[str], occur: str) -> Iterator[Part]:
        if words:
            yield Part("constant", occur, lexemes=((mark + words[0], True),))


# --- BM25 ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Scoring:
    """A text query as SQL: which records match, and with what score."""

    matches: Condition
    score: Condition
    values: list[Any] = field(default_factory=list)


def scoring(connection: Connection, collection: Collection, parts: Sequence[Part]) -> Scoring | None:
    """The conditions and the score of a query with the statistics of now; None if nothing can match."""
    if not parts:
        return None
    documents, average = statistics(connection, collection)
    if not documents:
        return None
    counts = _document_counts(connection, collection, parts)
    return Scoring(_matches(parts), _score(parts, counts, documents, average))


def statistics(connection: Connection, collection: Collection) -> tuple[int, float]:
    """How many texts there are, and how many terms they have on average."""
    row = connection.execute(
        sql.SQL("SELECT coalesce(sum(documents), 0)::bigint, coalesce(sum(length), 0)::bigint FROM {}").format(
            collection.batches
        )
    ).fetchone()
    assert row is not None
    return row[0], row[1] / row[0] if row[0] else 0.0


def _document_counts(connection: Connection, collection: Collection, parts: Sequence[Part]) -> dict[str, int]:
    """In how many texts each term occurs."""
    terms = list(dict.fromkeys(term for part in parts for _, term in part.places))
    counts: dict[str, int] = {}
    for at in range(0, len(terms), _COUNTED_AT_ONCE):
        some = terms[at : at + _COUNTED_AT_ONCE]
        columns = sql.SQL(", ").join([sql.SQL("count(*) FILTER (WHERE terms @@ %s::tsquery)")] * len(some))
        each = [f"'{_quoted(term)}'" for term in some]
        statement = sql.SQL("SELECT {} FROM {} WHERE terms @@ %s::tsquery").format(columns, collection.records)
        row = connection.execute(statement, [*each, " | ".join(each)]).fetchone()
        assert row is not None
        counts.update(zip(some, row, strict=True))
    return counts


def _matches(parts: Sequence[Part]) -> Condition:
    """Every must, no must_not, and where there is no must, some should."""
    must = [part for part in parts if part.occur == "must"]
    wanted = must or [part for part in parts if part.occur == "should"]
    conditions = [_joined([_is_there(part) for part in wanted], " AND " if must else " OR ")]
    # One query for the index to begin with, whatever else has to be looked at.
    joined = (" & " if must else " | ").join(f"({part.tsquery()})" for part in wanted)
    conditions.insert(0, Condition(sql.SQL("terms @@ %s::tsquery"), [joined]))
    for part in parts:
        if part.occur == "must_not":
            inner = _is_there(part)
            conditions.append(Condition(sql.SQL("NOT ({})").format(inner.sql), inner.values))
    return _joined(conditions, " AND ")


def _is_there(part: Part) -> Condition:
    if part.kind == "phrase":
        counted = _phrase_count(part)
        return Condition(sql.SQL("{} > 0").format(counted.sql), counted.values)
    return Condition(sql.SQL("terms @@ %s::tsquery"), [part.tsquery()])


def _score(parts: Sequence[Part], counts: dict[str, int], documents: int, average: float) -> Condition:
    """The sum of what the parts give; a part that is not there gives nothing."""
    factor, offset = K1 * B / max(average, 1e-9), K1 * (1 - B)
    saturated = sql.SQL("{count}::float8 / ({count}::float8 + (%s + norm * %s))")
    summands: list[Condition] = []
    terms = [part for part in parts if part.kind == "term" and part.occur != "must_not"]
    if terms:
        once = saturated.format(count=sql.SQL("coalesce(jsonb_array_length(places -> asked.term), 0)"))
        summands.append(
            Condition(
                sql.SQL(
                    "(SELECT sum(asked.weight * {}) FROM unnest(%s::text[], %s::float8[]) AS asked (term, weight))"
                ).format(once),
                [
                    offset,
                    factor,
                    [part.places[0][1] for part in terms],
                    [part.boost * (K1 + 1) * _idf(counts[part.places[0][1]], documents) for part in terms],
                ],
            )
        )
    for part in parts:
        if part.occur == "must_not" or part.kind == "term":
            continue
        if part.kind == "constant":
            summands.append(Condition(sql.SQL("(terms @@ %s::tsquery)::int"), [part.tsquery()]))
        else:
            weight = (K1 + 1) * sum(_idf(counts[term], documents) for _, term in part.places)
            counted = _phrase_count(part)
            summands.append(
                Condition(
                    sql.SQL("(SELECT %s * {} FROM (SELECT {} AS found) AS phrase)").format(
                        saturated.format(count=sql.SQL("phrase.found")), counted.sql
                    ),
                    [weight, offset, factor, *counted.values],
                )
            )
    return _joined(summands, " + ") if summands else Condition(sql.SQL("0"))


def _phrase_count(part: Part) -> Condition:
    """How often the terms stand at these distances from each other."""
    (first, term), *others = part.places
    followed = [
        Condition(
            sql.SQL("place::int + %s IN (SELECT next::int FROM jsonb_array_elements(places -> %s) AS next)"),
            [position - first, other],
        )
        for position, other in others
    ]
    joined = _joined(followed, " AND ")
    return Condition(
        sql.SQL("(SELECT count(*) FROM jsonb_array_elements(places -> %s) AS place WHERE {})").format(joined.sql),
        [term, *joined.values],
    )


def _idf(count: int, documents: int) -> float:
    return math.log(1 + (max(documents - count, 0) + 0.5) / (count + 0.5))


def _joined(conditions: Sequence[Condition], separator: LiteralString) -> Condition:
    if not conditions:
        return Condition(FALSE)
    pieces = [sql.SQL("({})").format(condition.sql) for condition in conditions]
    joined = sql.SQL(separator).join(pieces)
    return Condition(joined, [value for condition in conditions for value in condition.values])


def _quoted(word: str) -> str:
    """A lexeme inside the quotes of a tsquery."""
    return word.replace("\\", "\\\\").replace("'", "''")
