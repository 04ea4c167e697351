"""What a text query says, whatever string it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nopokedb.errors import InvalidInputError
from nopokedb.text_query import MAX_CLAUSES, MAX_QUERY_BYTES, Clause, parse_text_query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rust database", [("words", "should", "rust database")]),
        ('"vector database" index', [("phrase", "should", "vector database"), ("words", "should", "index")]),
        ("+rust -java go", [("words", "must", "rust"), ("words", "must_not", "java"), ("words", "should", "go")]),
        ('+"a b" -"c d"', [("phrase", "must", "a b"), ("phrase", "must_not", "c d")]),
        ("data* +vec* -x*", [("prefix", "should", "data"), ("prefix", "must", "vec"), ("prefix", "must_not", "x")]),
        ("a b -c d e", [("words", "should", "a b"), ("words", "must_not", "c"), ("words", "should", "d e")]),
        ("well-known c++ a+b", [("words", "should", "well-known c++ a+b")]),
        ("- + * ** +* -* \" '", []),
        ("", []),
        ("\t\n ", []),
        ('"" +"" -" "', []),
        ("!!! ... 👍 ()[]{}^~:/\\", []),
        ('say "hello world', [("words", "should", 'say "hello world')]),
        ('5" disk 10" tape', [("words", "should", '5" disk 10" tape')]),
        ("“a b” -„c d“", [("phrase", "should", "a b"), ("phrase", "must_not", "c d")]),
        ('"a b"c', [("phrase", "should", "a b"), ("words", "should", "c")]),
        ("title:x AND (b OR NOT c)", [("words", "should", "title:x AND (b OR NOT c)")]),
        ("--x", [("words", "must_not", "-x")]),
        ("pre*fix", [("words", "should", "pre*fix")]),
        ("東京 +都*", [("words", "should", "東京"), ("prefix", "must", "都")]),
    ],
)
def test_examples(text: str, expected: list[tuple[str, str, str]]) -> None:
    """The syntax, one line per rule."""
    assert parse_text_query(text).clauses == tuple(Clause(*each) for each in expected)  # type: ignore[arg-type]


@given(st.text(max_size=300) | st.text(alphabet='ab "+-*\t(:é東', max_size=80))
@example('"' * 99)
@example("+-" * 50 + '"')
def test_any_string_has_a_meaning(text: str) -> None:
    """No string is an error, and every clause has something to look for that stands in the text."""
    clauses = parse_text_query(text).clauses
    text = re.sub("[“”„]", '"', text)
    for clause in clauses:
        assert any(character.isalnum() for character in clause.text)
        assert clause.kind in ("words", "phrase", "prefix")
        if clause.kind == "phrase":
            assert f'"{clause.text}"' in text
        else:
            assert all(word in text for word in clause.text.split())


@given(st.lists(st.text(alphabet="abcé東1", min_size=1, max_size=8), min_size=1, max_size=20))
def test_plain_words_lose_nothing(words: list[str]) -> None:
    """Words without operators are one clause with all of them in order."""
    assert parse_text_query("  ".join(words)).clauses == (Clause("words", "should", " ".join(words)),)


def test_ten_kilobytes_of_words_are_one_clause() -> None:
    """An article may be the query."""
    text = "word " * 2_000
    (clause,) = parse_text_query(text).clauses
    assert clause.text.split() == ["word"] * 2_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "expected the text of a query to be a str, got NoneType"),
        (b"abc", "expected the text of a query to be a str, got bytes"),
        (["a"], "expected the text of a query to be a str, got list"),
        ("a\ud800", "valid Unicode"),
        ("é" * (MAX_QUERY_BYTES // 2) + "x", f"at most {MAX_QUERY_BYTES} UTF-8 bytes, got {MAX_QUERY_BYTES + 1}"),
        ("+a " * (MAX_CLAUSES + 1), f"at most {MAX_CLAUSES} clauses, got {MAX_CLAUSES + 1}"),
    ],
)
def test_what_is_refused(wrong: object, message: str) -> None:
    """Only what is not text, and what is too much of it: refused with the limit named, never shortened in silence."""
    with pytest.raises(InvalidInputError, match=message):
        parse_text_query(wrong)


def test_the_limits_themselves_are_allowed() -> None:
    assert len(parse_text_query("+a " * MAX_CLAUSES).clauses) == MAX_CLAUSES
    assert len(parse_text_query("x" * MAX_QUERY_BYTES).clauses) == 1
