"""Full-text search: what is found, in which order, in every language, and how it is shown."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nopokedb import NoPokeDB
from nopokedb.embedded.search.analysis import LANGUAGES, Analyzer, prepare
from nopokedb.embedded.search.highlight import Highlighter
from nopokedb.embedded.search.text import TextIndex
from nopokedb.errors import SettingsMismatchError
from nopokedb.text_query import parse_text_query as parse

Open = Callable[..., NoPokeDB]


def index_of(texts: list[str], language: str = "en", commits: int = 1) -> TextIndex:
    """An index in memory of these texts, labelled from 0, in so many segments (or fewer, once merged)."""
    index = TextIndex(language)
    for part in range(commits):
        index.add([(label, text) for label, text in enumerate(texts) if label % commits == part])
        index.commit()
    index.rest()
    return index


def labels_of(index: TextIndex, text: str, limit: int = 10) -> list[int]:
    return index.searcher.search(parse(text), limit)[0].tolist()  # type: ignore[no-any-return]


def random_texts(rng: np.random.Generator, count: int, longest: int = 60, vocabulary: int = 400) -> list[str]:
    """Texts of 3 to `longest` made-up words whose frequencies follow Zipf's law."""
    words = [f"{'bdfgklmnprstvz'[at % 14]}{'aeiou'[at // 14 % 5]}x{at}" for at in range(vocabulary)]
    share = 1 / np.arange(1, vocabulary + 1)
    return [" ".join(rng.choice(words, int(rng.integers(3, longest + 1)), p=share / share.sum())) for _ in range(count)]


# --- ranking -------------------------------------------------------------------------------------------------


def bm25(texts: list[list[str]], query: list[str]) -> np.ndarray:
    """Robertson and Zaragoza's formula, written down plainly; idf as in Lucene, so that it is never negative."""
    k1, b = 1.2, 0.75
    counts = [Counter(text) for text in texts]
    average = sum(map(len, texts)) / len(texts)
    scores = np.zeros(len(texts))
    for term in query:
        with_term = sum(term in count for count in counts)
        idf = math.log(1 + (len(texts) - with_term + 0.5) / (with_term + 0.5))
        for at, count in enumerate(counts):
            if count[term]:
                norm = k1 * (1 - b + b * len(texts[at]) / average)
                scores[at] += idf * count[term] * (k1 + 1) / (count[term] + norm)
    return scores


@pytest.mark.parametrize("commits", [1, 7])
@pytest.mark.parametrize(("longest", "tolerance", "tie"), [(40, 1e-5, 1e-6), (300, 0.05, 0.02)])
def test_scores_are_bm25(rng: np.random.Generator, commits: int, longest: int, tolerance: float, tie: float) -> None:
    """The plain formula over the same terms, exactly up to 40 terms and within 5 % beyond, where lengths are rounded;
    and at least 9 of its 10 best, or others as good (within 2 % where lengths are rounded). In one segment or several.
    """
    texts = random_texts(rng, 1_000, longest)
    index = index_of(texts, commits=commits)
    terms = [index.analyzer.terms.analyze(text) for text in texts]
    for _ in range(30):
        words = " ".join(
            str(rng.choice(texts[int(rng.integers(1_000))].split())) for _ in range(int(rng.integers(1, 5)))
        )
        plain = bm25(terms, index.analyzer.terms.analyze(words))
        labels, scores = index.searcher.search(parse(words), 10)
        assert len(labels) == min(10, np.count_nonzero(plain))
        assert scores == pytest.approx(plain[labels], rel=tolerance)
        # By score, so that another choice among equals counts as equal.
        tenth = np.sort(plain)[::-1][len(labels) - 1]
        assert np.count_nonzero(plain[labels] >= tenth * (1 - tie)) >= len(labels) - 1
        everything, _ = index.searcher.search(parse(words), 1_000)
        assert sorted(everything.tolist()) == np.flatnonzero(plain).tolist()


def test_ties_come_by_label() -> None:
    """Equal texts keep the order of their labels at every limit, however they are spread over segments."""
    index = index_of(["same words here"] * 60, commits=6)
    assert index.searcher._searcher.num_segments > 1
    for query in ("same", "wor*", '"same words"', "same wor*"):
        for limit in (1, 7, 59, 60, 99):
            assert labels_of(index, query, limit) == list(range(min(limit, 60))), query


FOUND: list[tuple[str, list[int]]] = [
    ("fox", [0, 1]),
    ("FOXES", [0, 1]),
    ("+quick +brown", [0]),
    ("quick -brown", [1]),
    ("-quick", []),
    ("the", []),
    ("", []),
    ("+the fox", [0, 1]),
    ('"brown fox"', [0]),
    ('"fox brown"', []),
    ('"state of the art"', [2]),
    ('"state art"', []),
    ("well-known", [2]),
    ("+well-known", [2]),
    ("fox -well-known", [0, 1]),
    ("runn*", [1]),
    ("the*", [0, 2, 3]),
    ("RÉS*", [3]),
    ("well-kno*", [2]),
    ("resume", [3]),
    ("re\u0301sume\u0301", [3]),
    ("\uff26\uff2f\uff38", [0, 1]),
    ("zebra", []),
    ("zeb*", []),
]
TEXTS = [
    "The quick brown fox jumps",
    "running foxes are quick",
    "well-known and state of the art in C++",
    "The résumé of Zoë",
    "",
]


@pytest.mark.parametrize(("query", "expected"), FOUND)
def test_what_a_query_finds(query: str, expected: list[int]) -> None:
    """Words, phrases, prefixes and operators on five texts."""
    assert sorted(labels_of(index_of(TEXTS), query)) == expected


@pytest.mark.engines
def test_every_engine_finds_the_same(open_db: Open) -> None:
    """Ids, order, and marked passages are those of the index here; a filter and snapshots of writes apply."""
    db = open_db(dim=2)
    db.add_many(np.ones((5, 2)), texts=TEXTS)
    index = index_of(TEXTS)
    for query, expected in FOUND:
        assert [hit.id for hit in db.query(text=query, k=9)] == labels_of(index, query, 9), query
        assert sorted(hit.id for hit in db.query(text=query, k=9, where={"$id": {"$lt": 2}})) == [
            id_ for id_ in expected if id_ < 2
        ]
        marked = Highlighter(parse(query), index.analyzer)
        for hit in db.query(text=query, k=9, highlight=True):
            assert hit["highlight"] == marked.highlight(TEXTS[hit.id])
    db.upsert(0, text="nothing of it")
    db.delete(1)
    assert db.query(text="fox") == [] and [hit.id for hit in db.query(text="nothing")] == [0]


# --- languages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_finds_its_own_words(language: str) -> None:
    """A stored word is found as it was written, and hostile text does not stop the index."""
    hostile = "\0\x1b \u202e 👍🏽 " + "x" * 70_000
    texts = ["Zürich façade naïve Ελλάδα Книга كتاب தமிழ் İstanbul \u0131s\u0131", hostile, "plain"]
    index = index_of(texts, language)
    for word in ("zürich", "ZURICH", "façade", "naive", "книга", "ελλάδα", "كتاب", "தமிழ்", "istanbul", "İSTANBUL"):
        assert labels_of(index, word) == [0], word
    assert labels_of(index, "plain " + "x" * 60_000) == [2]


INFLECTIONS = [
    ("en", "running", "runs", "the"),
    ("de", "Häuser", "haus", "für"),
    ("fr", "chevaux chantées", "chantée", "avec"),
    ("es", "canciones", "cancion", "para"),
    ("it", "gatti", "gatto", "della"),
    ("pt", "livros", "livro", "para"),
    ("nl", "boeken", "boek", "een"),
    ("sv", "flickorna", "flicka", "och"),
    ("ru", "книги", "книга", "что"),
]


@pytest.mark.engines
@pytest.mark.parametrize(("language", "stored", "asked", "stop_word"), INFLECTIONS)
def test_every_engine_knows_the_language(open_db: Open, language: str, stored: str, asked: str, stop_word: str) -> None:
    """`text_language` is kept, and decides what is found."""
    db = open_db(dim=2, text_language=language)
    db.add([1, 1], text=f"{stored} {stop_word}")
    assert [hit.id for hit in db.query(text=asked)] == [0] and db.query(text=stop_word) == []
    db.close()
    with pytest.raises(SettingsMismatchError, match="text_language"):
        open_db(text_language="ar")
    assert [hit.id for hit in open_db().query(text=asked)] == [0]


@pytest.mark.parametrize(("language", "stored", "asked", "stop_word"), INFLECTIONS)
def test_inflections_and_stop_words(language: str, stored: str, asked: str, stop_word: str) -> None:
    """Words meet by their stems; stop words are not looked for; "none" does neither."""
    texts = [f"{stored} {stop_word}"]
    assert labels_of(index_of(texts, language), asked) == [0]
    assert labels_of(index_of(texts, language), stop_word) == []
    assert labels_of(index_of(texts, "none"), asked) == []
    assert labels_of(index_of(texts, "none"), stop_word) == [0]


@pytest.mark.parametrize("language", ["none", "en"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("東京", [0]),
        ("京都", [0, 1]),
        ("東京都", [0]),
        ("都", [0, 1]),
        ("庁", [0]),
        ("+東京都庁", [0]),
        ('"都庁"', [0]),
        ('"庁都"', []),
        ("검색", [2]),
        ("색", [2]),
        ("データ", [3]),
        ("ﾃﾞｰﾀ", [3]),
        ("東京都庁の新しい建物", [0, 1]),
        ("abc都", [1, 0]),
        ('"abc京都"', [1]),
        ("京*", [0, 1]),
        ("京都 -東京", [1]),
        ("ベー", [3]),
        ("语", []),
    ],
)
def test_chinese_japanese_korean(language: str, query: str, expected: list[int]) -> None:
    """Any run of characters is found inside a longer one, single characters too; a sentence by its pairs, the text
    with the most of them first. Stored are 東京都庁は新宿, abc京都の寺, 한국어 검색 and データベース."""
    index = index_of(["東京都庁は新宿", "abc京都の寺", "한국어 검색", "データベース"], language)
    found = labels_of(index, query)
    assert sorted(found) == sorted(expected)
    if query in ("東京都庁の新しい建物", "abc都"):
        assert found == expected


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected a language of none, ar, .*got 'xx'"):
        Analyzer("xx")


# --- any string ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed() -> TextIndex:
    return index_of(["some words here", "東京都 データ", 'a.b:c(d) [e] {f}^2~ "g" *h* +i -j', "ß ﬁ Ⅷ ½"])


@given(text=st.text(max_size=60) | st.text(alphabet='ab "+-*東京éİ.(:~^', max_size=40))
def test_any_string_can_be_asked(mixed: TextIndex, text: str) -> None:
    """Never an error; an answer has labels of the index and positive scores; its highlight is part of the text."""
    labels, scores = mixed.searcher.search(parse(text), 3)
    assert set(labels.tolist()) <= {0, 1, 2, 3} and np.all(scores > 0)
    Highlighter(parse(text), mixed.analyzer).highlight(text)


@given(text=st.text(max_size=60))
def test_any_text_is_found_by_its_words(text: str) -> None:
    """What has a term is found by itself, as words and as a phrase."""
    index = index_of([text], "none")
    if index.analyzer.terms.analyze(prepare(text)) and parse(text.replace("*", " ").replace('"', " ")).clauses:
        words = re.sub(r"(?<!\S)[+-]+", " ", re.sub(r'[*"]', " ", text))
        if parse(words).clauses and index.analyzer.terms.analyze(prepare(words)):
            assert labels_of(index, words) == [0]
            assert labels_of(index, f'"{words}"') == [0]


# --- highlighting --------------------------------------------------------------------------------------------


def test_highlight_escapes_everything_else() -> None:
    """Markup in a text comes out as text; only our own <b> is markup."""
    index = index_of([])
    text = "<script>alert('x')</script> a <b>quick</b> & brown fox"
    shown = Highlighter(parse("quick fox"), index.analyzer).highlight(text)
    assert "<script>" not in shown and shown.count("<b>") == shown.count("</b>") == 2
    assert html.unescape(shown.replace("<b>quick</b>", "quick").replace("<b>fox</b>", "fox")) == text


def test_highlight_marks_what_matches() -> None:
    """Inflections, accents, phrases, prefixes, pairs of characters; not what must not be there."""
    index = index_of([])

    def shown(query: str, text: str) -> str:
        return Highlighter(parse(query), index.analyzer).highlight(text)

    assert shown("run", "He runs, running.") == "He <b>runs</b>, <b>running</b>."
    assert shown("resume", "a re\u0301sume\u0301") == "a <b>re\u0301sume\u0301</b>"
    assert shown('"brown fox" -dog', "brown fox, dog") == "<b>brown</b> <b>fox</b>, dog"
    assert shown("runn*", "runner run") == "<b>runner</b> run"
    assert shown("東京都", "大東京都庁") == "大<b>東京都</b>庁"
    assert shown("都", "東京都") == "東京<b>都</b>"
    assert shown("zebra", "no match at all") == "no match at all"
    assert shown("x", "") == ""


@given(text=st.text(alphabet="abc <>&\n東京é", max_size=700), query=st.text(alphabet="abc 東京", max_size=8))
def test_highlight_is_a_part_of_the_text(mixed: TextIndex, text: str, query: str) -> None:
    """Without our marks it is a substring of the text, of about 160 characters at most."""
    shown = Highlighter(parse(query), mixed.analyzer).highlight(text)
    plain = html.unescape(re.sub("</?b>", "", shown)).removeprefix("…").removesuffix("…")
    assert plain in text and len(plain) <= 160


def test_highlight_takes_the_best_fragment() -> None:
    """Where most of the different words stand together, not where the first one is."""
    text = "quick " + "filler word " * 60 + "the quick brown fox " + "filler word " * 60
    shown = Highlighter(parse("quick brown fox"), index_of([]).analyzer).highlight(text)
    assert "<b>quick</b> <b>brown</b> <b>fox</b>" in shown and shown.startswith("…") and shown.endswith("…")


# --- filters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("commits", [1, 5])
def test_filters_equal_brute_force(rng: np.random.Generator, share: float, commits: int) -> None:
    """By mask and by labels: exactly the allowed ones of the full ranking, never fewer than there are."""
    texts = random_texts(rng, 3_000)
    index = index_of(texts, commits=commits)
    allowed = np.flatnonzero(rng.random(3_000) < share)
    for query in (texts[0], " ".join(texts[1].split()[:2]), "b*", "+" + texts[2].split()[0]):
        ranked, ranked_scores = index.searcher.search(parse(query), 3_000)
        kept = np.isin(ranked, allowed)
        for limit in (1, 10, 500):
            expected = ranked[kept][:limit].tolist()
            for labels, scores in (
                index.searcher.search(parse(query), limit, lambda labels: np.isin(labels, allowed)),
                index.searcher.search(parse(query), limit, None, allowed),
                index.searcher.search(parse(query), limit, lambda labels: np.isin(labels, allowed), np.arange(3_000)),
            ):
                assert labels.tolist() == expected
                assert scores == pytest.approx(ranked_scores[kept][:limit])
