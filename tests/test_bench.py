"""The benchmarks' own answers: a wrong truth would make every figure wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import debian, retrieval, scoring
from bench.conversation import ROOT, ChildError, Conversation
from bench.filters import cases, records
from bench.scale import K

TRANSLATIONS = """Package: dicebox
Description-md5: 0
Description-en: classic dice game
 Dicebox lets several people throw five dice. A classic dice game.
 .
 It keeps the score, and it runs in a terminal. Sounds can be turned off.

Package: dicebox-doc
Description-en: classic dice game - manual
 Dicebox lets several people throw five dice. A classic dice game.
 .
 This package holds the manual.
"""


def test_long_descriptions_lose_their_dots_and_line_breaks() -> None:
    """apt's continuation lines become paragraphs."""
    first, second = debian.parse_translations(TRANSLATIONS)
    assert first.paragraphs[1] == "It keeps the score, and it runs in a terminal. Sounds can be turned off."
    assert (second.name, second.short) == ("dicebox-doc", "classic dice game - manual")


def test_a_query_is_not_answered_by_its_own_words() -> None:
    """Of a family one package stays, without its name, its one-line description and a sentence that repeats it."""
    made = retrieval.make(debian.parse_translations(TRANSLATIONS), 10)
    assert made.queries == ["classic dice game"]
    (document,) = made.documents
    assert "dicebox" not in document.lower() and "classic dice game" not in document.lower()
    assert "keeps the score" in document


def test_scores_count_the_rank_of_the_one_right_document() -> None:
    """Found first, found third, not found."""
    found = retrieval.score([[7, 1], [1, 2, 7], [1]], [7, 7, 7])
    assert found == {"mrr": pytest.approx((1 + 1 / 3) / 3), "recall": pytest.approx(2 / 3)}


def test_exact_answers_within_each_filter(rng: np.random.Generator) -> None:
    """The truth of every case agrees with a plain sort over the rows that pass."""
    vectors = rng.standard_normal((2_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:5] + np.float32(0.1)
    columns = records.columns_for(vectors)
    made = cases.make_cases()
    truths = cases.truths(made, vectors, queries, columns)
    for case in made:
        mask = case.filter.mask(columns) if case.filter else np.ones(len(vectors), bool)
        truth = truths[case.name]
        for row, nearest, worst in zip(truth.queries, truth.nearest, truth.worst, strict=True):
            products = np.where(mask, vectors.astype(np.float64) @ queries[row].astype(np.float64), -np.inf)
            expected = np.sort(products)[::-1][: min(K, int(mask.sum()))]
            assert np.allclose(products[nearest], expected)
            passed = None if case.filter is None else mask
            right = scoring.score_answer(nearest.tolist(), queries[row], float(worst), len(nearest), vectors, passed)
            assert right == (len(nearest), 0)


def test_an_answer_outside_of_its_filter_is_counted_as_broken(rng: np.random.Generator) -> None:
    """The nearest rows of all score nothing where they do not pass."""
    vectors = np.eye(4, dtype=np.float32)
    mask = np.array([False, True, True, True])
    assert scoring.score_answer([0, 1], vectors[1], 1.0, 1, vectors, mask) == (1, 1)


def test_a_child_answers_reports_errors_and_ends() -> None:
    """What a library prints does not get between the answers."""
    talk = Conversation(Path(sys.executable), "tests.bench_child", [])
    try:
        assert talk.ask("double", number=21) == 42
        with pytest.raises(ChildError, match="ZeroDivisionError"):
            talk.ask("fail")
        with pytest.raises(ChildError, match="ended with 3"):
            talk.ask("leave")
    finally:
        talk.end()


def test_the_driver_starts_without_any_peer() -> None:
    """The command line works with what this project installs."""
    help_text = subprocess.run(
        [sys.executable, "-m", "bench.filters", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "--quick" in help_text.stdout
