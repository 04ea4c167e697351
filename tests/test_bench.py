"""The benchmarks' own answers: a wrong truth would make every figure wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench import debian, retrieval, scoring, timing
from bench.conversation import ROOT, ChildError, Conversation
from bench.filters import cases, records
from bench.run import Ledger
from bench.scale import K
from bench.suite import goals as suite_goals

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


def test_a_child_without_its_library_says_so() -> None:
    """The reason reaches the report, not only the terminal."""
    with Conversation(Path(sys.executable), "tests.bench_child", ["--broken"]) as talk:
        for _ in range(2):
            with pytest.raises(ChildError, match="No module named 'faster'"):
                talk.ask("double", number=21)


def test_the_driver_starts_without_any_peer() -> None:
    """The command line works with what this project installs."""
    help_text = subprocess.run(
        [sys.executable, "-m", "bench.filters", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "--quick" in help_text.stdout


def test_timed_threads_all_ask_and_their_errors_come_out() -> None:
    """Each thread has questions of its own, rates add up, and a failing question is not swallowed."""
    asked: set[int] = set()
    found = timing.stretch_in_threads(lambda number: partial(asked.add, number), 0.01, 3)
    assert {0, 1, 2} <= asked
    assert found["qps"] > 0 and found["p50_us"] <= found["p99_us"]

    def fail(number: int) -> Callable[[], object]:
        return partial(divmod, 1, number % 2)

    with pytest.raises(ZeroDivisionError):
        timing.stretch_in_threads(fail, 0.01, 2)


def test_finished_results_are_reused_only_at_the_same_sizes(tmp_path: Path) -> None:
    """What was measured with other sizes is no answer, and a part that fails leaves its reason."""
    ledger = Ledger(tmp_path)
    assert ledger.measured("part", {"count": 1}, lambda: {"qps": 5}) is not None
    known = ledger.known("part", {"count": 1})
    assert known is not None and known["qps"] == 5 and 0 <= known["idle_share"] <= 1
    assert ledger.known("part", {"count": 2}) is None

    def broken() -> dict[str, object]:
        raise ChildError("a long story\nno such library")

    assert ledger.measured("other", {}, broken) is None
    assert ledger.missing == {"other": "no such library"} and ledger.failed


def _backend(label: str, recall: float, qps: float, *, is_database: bool = True) -> dict[str, object]:
    timed = {"qps": qps, "p50_us": 100.0, "p95_us": 150.0, "p99_us": 190.0}
    return {
        "label": label,
        "is_database": is_database,
        "points": {"default": {"recall": recall}, "0.99": {"recall": 0.991}},
        "timed": {"default": timed, "0.99": {**timed, "qps": qps / 2}},
        "memory_bytes": 0,
    }


def test_goals_compare_at_equal_recall() -> None:
    """A faster answer of a lower recall does not count, for this project or for a peer."""
    backends = {
        "nopokedb": _backend("NoPokeDB", 0.995, 8_000),
        "zvec": _backend("zvec", 0.96, 6_000),
        "hnswlib": _backend("hnswlib", 0.9, 50_000, is_database=False),
    }
    result = {"count": 100_000, "dim": 256, "backends": backends}
    outcomes = {goal.measure: goal for goal in suite_goals.compare({"search-100k": result})}
    assert outcomes["100,000, recall 0.99: QPS over zvec"].measured.startswith("2.67 x")
    assert outcomes["100,000, recall 0.99: QPS over zvec"].reached is False
    assert outcomes["100,000, recall 0.95: QPS over zvec"].measured.startswith("1.33 x")
    assert outcomes["100,000: QPS at 0.99 over every peer's at 0.95"].reached is False  # 8,000 against 25,000
    assert outcomes["100,000, recall 0.99: p99 / p50"].measured.startswith("1.90")


def test_the_suite_prepares_times_and_resumes(tmp_path: Path) -> None:
    """Two backends in processes of their own; the second run finds everything and measures nothing again."""
    command = [sys.executable, "-m", "bench.suite", "--quick", "--folder", str(tmp_path), "--only", "search-gaussian"]
    command += ["--backends", "nopokedb", "faiss-exact"]
    runs = [subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True) for _ in range(2)]
    assert "search-gaussian: finished" in runs[0].stderr
    assert "search-gaussian: reused" in runs[1].stderr and "finished in" not in runs[1].stderr
    report = (tmp_path / "report.md").read_text()
    assert "smoke test" in report and "| NoPokeDB |" in report and "| FAISS exact |" in report
    results = json.loads((tmp_path / "results.json").read_text())
    backends = results["runs"]["search-gaussian"]["backends"]
    assert all(backends[name]["points"]["default"]["recall"] > 0.98 for name in ("nopokedb", "faiss-exact"))
    assert backends["nopokedb"]["syncs"] and backends["nopokedb"]["build"]["disk_bytes"] > 2_000 * 32 * 4


def test_two_runs_do_not_make_the_same_thing_at_once(tmp_path: Path) -> None:
    """The second waits, and then finds what the first has made."""
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    seen: list[object] = []

    def wait() -> None:
        with second.alone("part"):
            seen.append(second.known("part", {}))

    with first.alone("part"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        first.keep("part", {}, {"qps": 5}, 0.0)
        assert not seen
    waiting.join()
    assert isinstance(seen[0], dict) and seen[0]["qps"] == 5
