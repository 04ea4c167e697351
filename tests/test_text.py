"""Full-text search: what is found, in which order, and that the index equals the snapshot whatever happens to it."""

from __future__ import annotations

import html
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nopokedb import NoPokeDB
from nopokedb.embedded import text_view
from nopokedb.embedded.search.analysis import LANGUAGES, Analyzer, prepare
from nopokedb.embedded.search.highlight import Highlighter
from nopokedb.embedded.search.text import TextIndex
from nopokedb.embedded.storage.metadata import MetadataReader
from nopokedb.embedded.text_view import TextView
from nopokedb.errors import ClosedError, CorruptionError, SettingsMismatchError
from nopokedb.text_query import parse_text_query as parse

Open = Callable[..., NoPokeDB]


class Watched:
    """The collection's reader; remembers from which labels texts were asked for."""

    def __init__(self, reader: MetadataReader) -> None:
        self.reader = reader
        self.starts: list[int] = []

    def texts_between(self, start: int, stop: int) -> Iterator[list[tuple[int, str]]]:
        self.starts.append(start)
        return self.reader.texts_between(start, stop)


def reader_of(db: NoPokeDB) -> MetadataReader:
    return db._engine.snapshot().store.reader  # type: ignore[attr-defined, no-any-return]


def find(view: TextView, db: NoPokeDB, text: str, limit: int = 10) -> list[int]:
    """The labels of the answers, best first."""
    snapshot, at = view.at(db._engine.snapshot)  # type: ignore[attr-defined]
    labels, scores = at.search(parse(text), limit)
    assert all(label in snapshot.live for label in labels.tolist())
    assert np.all(np.diff(scores) <= 0)
    return labels.tolist()  # type: ignore[no-any-return]


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


# --- ranking ------------------------------------------------------------------------------------------------


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


# --- languages ----------------------------------------------------------------------------------------------


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


# --- any string ---------------------------------------------------------------------------------------------


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


# --- highlighting -------------------------------------------------------------------------------------------


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


# --- filters ------------------------------------------------------------------------------------------------


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


# --- the view -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_the_view_equals_the_live_texts(open_db: Open, tmp_path: Path, rng: np.random.Generator, where: str) -> None:
    """After every write the answer is that of a brute-force search over the live texts: nothing retired, nothing
    missing, whatever was added, replaced, deleted, or has no text."""
    db = open_db(dim=2)
    view = TextView(tmp_path / "view" if where == "folder" else None, "none", reader_of(db))
    words = [f"w{at}" for at in range(12)]
    texts: dict[int, str | None] = {}
    for step in range(60):
        id_ = int(rng.integers(25))
        kind = rng.random()
        text = None if kind < 0.1 else " ".join(rng.choice(words, 3))
        if kind > 0.75 and id_ in texts:
            db.delete(id_)
            del texts[id_]
        else:
            if id_ in texts:
                db.delete(id_)
            db.add([1.0, step], id=id_, text=text)
            texts[id_] = text
        if step % 13 == 0:
            view.catch_up(db._engine.snapshot())  # type: ignore[attr-defined]
        word = str(rng.choice(words))
        found = find(view, db, word, 100)
        stored = reader_of(db).fetch(found)
        assert sorted(stored[label].id for label in found) == sorted(  # type: ignore[type-var]
            id_ for id_, text in texts.items() if text is not None and word in text.split()
        )
    view.close()


def test_retired_statistics_are_bounded(open_db: Open) -> None:
    """Once the background thread has caught up, scores are those of a new index over the live texts alone."""
    db = open_db(dim=2)
    view = TextView(None, "none", reader_of(db))
    db.add_many(np.ones((300, 2)), texts=[f"common rare{at}" if at < 200 else "common" for at in range(300)])
    find(view, db, "common")
    db.delete_many(range(150))
    view.catch_up(db._engine.snapshot())  # type: ignore[attr-defined]
    fresh = TextView(None, "none", reader_of(db))
    for query in ("common", "rare170"):
        labels, scores = view.at(db._engine.snapshot)[1].search(parse(query), 200)  # type: ignore[attr-defined]
        expected, expected_scores = fresh.at(db._engine.snapshot)[1].search(parse(query), 200)  # type: ignore[attr-defined]
        assert labels.tolist() == expected.tolist() and scores == pytest.approx(expected_scores)
    fresh.close()
    view.close()


def test_deletes_alone_cost_no_commit(open_db: Open, tmp_path: Path) -> None:
    """A deleted label is masked at once; the index is committed to when enough have gathered."""
    db = open_db(dim=2)
    view = TextView(tmp_path / "view", "en", reader_of(db))
    db.add_many(np.ones((50, 2)), texts=["word"] * 50)
    assert len(find(view, db, "word", 99)) == 50
    searcher = view._state.searcher  # type: ignore[union-attr]
    db.delete(7)
    assert find(view, db, "word", 99) == [at for at in range(50) if at != 7]
    assert view._state.searcher is searcher  # type: ignore[union-attr]
    db.add([1, 1], text="word")
    assert len(find(view, db, "word", 99)) == 50
    assert not len(view._state.masked)  # type: ignore[union-attr]
    view.close()


def test_threads_read_their_own_writes(open_db: Open, tmp_path: Path) -> None:
    """Each thread finds what it has just written, while others write, search and catch up."""
    db = open_db(dim=2, durability="os")
    view = TextView(tmp_path / "view", "none", reader_of(db))
    failures: list[str] = []

    def work(name: int) -> None:
        for at in range(12):
            id_ = db.add([1, 1], text=f"mine{name}x{at} shared")
            found = find(view, db, f"mine{name}x{at}")
            if [item.id for item in reader_of(db).fetch(found).values()] != [id_]:
                failures.append(f"{name} {at}: {found}")
            if at % 5 == 0:
                view.catch_up(db._engine.snapshot())  # type: ignore[attr-defined]
            if len(find(view, db, "shared", 1_000)) <= at:
                failures.append(f"{name} {at}: too few")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(find(view, db, "shared", 1_000)) == 48
    view.close()


def test_an_older_snapshot_is_refused(open_db: Open) -> None:
    """The index has moved on; answering from it would mix two states."""
    db = open_db(dim=2)
    view = TextView(None, "en", reader_of(db))
    db.add([1, 1], text="word")
    old = db._engine.snapshot()  # type: ignore[attr-defined]
    db.add([1, 1], text="word")
    assert len(find(view, db, "word")) == 2
    view.catch_up(old)
    assert len(find(view, db, "word")) == 2
    with pytest.raises(ValueError, match="a view of its own"):
        view.at(lambda: old)
    view.close()


def test_a_failed_catch_up_is_made_good(open_db: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error halfway (a full disk, say) is reported; the next search has the whole answer."""
    db = open_db(dim=2)
    view = TextView(tmp_path / "view", "en", reader_of(db))
    db.add([1, 1], text="word")
    assert find(view, db, "word") == [0]
    db.add([1, 1], text="word")

    def fail(self: TextIndex) -> None:
        raise ValueError("no space left")

    snapshot = db._engine.snapshot()  # type: ignore[attr-defined]
    for method, call in (
        ("commit", lambda: find(view, db, "word")),
        ("rest", lambda: view.catch_up(snapshot)),
        ("rest", lambda: view.save(snapshot.lsn)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(TextIndex, method, fail)
            with pytest.raises(OSError, match="could not be written: no space left"):
                call()
        assert find(view, db, "word") == [0, 1]
    view.close()


def test_closing_ends_the_threads(open_db: Open, tmp_path: Path) -> None:
    """The writer's threads are gone when close returns; a closed view refuses."""
    db = open_db(dim=2)
    tasks = Path("/proc/self/task")

    def writers() -> int:
        names = []
        for task in tasks.iterdir():
            try:
                names.append((task / "comm").read_text())
            except OSError:
                pass  # the thread has ended meanwhile
        return sum(name.startswith(("merge_thread", "thrd-tantivy")) for name in names)

    view = TextView(tmp_path / "view", "en", reader_of(db))
    db.add([1, 1], text="word")
    find(view, db, "word")
    if tasks.exists():
        assert writers() > 0
    view.catch_up(db._engine.snapshot())  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while tasks.exists() and writers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not tasks.exists() or writers() == 0
    view.close()
    with pytest.raises(ClosedError):
        find(view, db, "word")
    assert not list((tmp_path / "view" / "text").glob("work-*"))


def test_closing_stops_a_long_build(open_db: Open, tmp_path: Path) -> None:
    """Nobody waits for an index of millions of texts that is not wanted any more."""
    db = open_db(dim=2)
    db.add_many(np.ones((2_000, 2)), texts=["word"] * 2_000)
    pages: list[int] = []

    class Slow(Watched):
        def texts_between(self, start: int, stop: int) -> Iterator[list[tuple[int, str]]]:
            for page in super().texts_between(start, stop):
                pages.append(len(page))
                if len(pages) == 2:
                    closing.start()
                    while not view._closed:
                        time.sleep(0.001)
                yield page

    view = TextView(tmp_path / "view", "en", Slow(reader_of(db)))
    closing = threading.Thread(target=view.close)
    with pytest.raises(ClosedError):
        find(view, db, "word")
    closing.join()
    assert len(pages) == 2
    assert list((tmp_path / "view" / "text").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_ends_quietly() -> None:
    """The writer's threads stay in the parent: the child can drop its copy and end, and the parent goes on."""
    code = """
import gc, os, sys
from nopokedb.embedded.search.text import TextIndex
from nopokedb.text_query import parse_text_query
index = TextIndex("en")
index.add([(0, "word")])
index.commit()
child = os.fork()
if child == 0:
    del index
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
index.add([(1, "word")])
assert index.commit().search(parse_text_query("word"), 5)[0].tolist() == [0, 1]
index.rest()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_missing_extra_is_named(open_db: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    db = open_db(dim=2)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tantivy" else real(name))
    with pytest.raises(ImportError, match=r"pip install .*\[text\]"):
        TextView(None, "en", reader_of(db))


# --- persistence --------------------------------------------------------------------------------------------


class Kept:
    """A collection, and in a folder of its own a saved text index of its 40 texts, and views on that. (In the
    collection's folder the upkeep thread would look after it too.)"""

    def __init__(self, db: NoPokeDB, folder: Path) -> None:
        self.db, self.folder = db, folder
        self.text = folder / "text"
        self.db.add_many(np.ones((40, 2)), texts=[f"word number{at}" for at in range(40)])
        self.db.delete(3)
        view, _ = self.view()
        self.ask(view)
        self.save(view)
        view.close()

    def view(self, language: str = "en", identity: int = 7) -> tuple[TextView, Watched]:
        reader = Watched(reader_of(self.db))
        return TextView(self.folder, language, reader, identity), reader

    def save(self, view: TextView) -> None:
        assert view.save(self.db._engine.snapshot().lsn)  # type: ignore[attr-defined]

    def ask(self, view: TextView) -> None:
        """Every answer is right."""
        live = self.db._engine.snapshot().live  # type: ignore[attr-defined]
        expected = [label for label in range(self.db._engine.snapshot().label_count) if label in live]  # type: ignore[attr-defined]
        assert sorted(find(view, self.db, "word", 1_000)) == expected
        assert find(view, self.db, "number17") == [17]


@pytest.fixture
def kept(open_db: Open, tmp_path: Path) -> Kept:
    return Kept(open_db(dim=2), tmp_path / "view")


def test_reopening_reads_no_texts_again(kept: Kept) -> None:
    """What was saved is used: no text is read, nothing is noted. Twice, with a save in between."""
    for _ in range(2):
        view, reader = kept.view()
        kept.ask(view)
        assert reader.starts in ([], [40]) and view.notes == []
        kept.save(view)
        view.close()
    assert sorted(path.name.split("-")[0] for path in kept.text.iterdir()) == ["saved", "state"]


def test_after_a_crash_only_the_new_texts_are_read(kept: Kept) -> None:
    """The saved state stays valid while the index in use moves on, merges and commits; deletes are seen too."""
    view, _ = kept.view()
    for at in range(30):
        kept.db.add([1, 1], text=f"word later{at}")
        find(view, kept.db, "word")
    kept.db.delete(5)
    find(view, kept.db, "word")
    # No save and no close: what a killed process leaves.
    second, reader = kept.view()
    kept.ask(second)
    assert reader.starts[0] == 40 and second.notes == []
    assert len(find(second, kept.db, "later7")) == 1
    second.close()
    view._index.abandon()  # type: ignore[union-attr]


def test_a_deleted_folder_loses_nothing(kept: Kept) -> None:
    shutil.rmtree(kept.text)
    view, reader = kept.view()
    kept.ask(view)
    assert reader.starts == [0] and view.notes == []
    view.close()


def files_of(kept: Kept) -> list[Path]:
    return [path for path in sorted(kept.text.rglob("*")) if path.is_file()]


def rebuilt(kept: Kept) -> None:
    """A new view builds everything, says so once, is right, and the next one uses what it saved."""
    view, reader = kept.view()
    kept.ask(view)
    assert reader.starts == [0]
    assert len(view.notes) == 1 and view.notes[0].startswith("the text index is built anew: ")
    kept.save(view)
    view.close()
    view, reader = kept.view()
    kept.ask(view)
    assert reader.starts in ([], [40]) and view.notes == []
    view.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove", "empty"])
def test_damage_to_any_file_is_found(kept: Kept, damage: str) -> None:
    """A flipped byte, a cut, an addition, a loss: in every single file it leads to a new index with right answers."""
    count = len(files_of(kept))
    assert count > 5
    for at in range(count):
        path = files_of(kept)[at]
        data = path.read_bytes()
        if not data and damage in ("flip", "cut", "empty"):
            continue
        path.unlink()  # not in place: other names of the file stay as they are
        middle = len(data) // 2
        if damage == "flip":
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        elif damage == "cut":
            path.write_bytes(data[:-1])
        elif damage == "grow":
            path.write_bytes(data + b"x")
        elif damage == "empty":
            path.write_bytes(b"")
        if damage == "remove" and path.name == "state":
            continue  # then nothing was ever saved
        if damage == "remove" or path.exists():
            rebuilt(kept)
        assert len(files_of(kept)) >= 5


def test_a_state_of_something_else_is_not_used(kept: Kept) -> None:
    """Another collection or generation, another language."""
    for language, identity, word in (("en", 8, "collection 7, not 8"), ("de", 8, "language en, not de")):
        view, reader = kept.view(language, identity)
        kept.ask(view)
        assert reader.starts == [0] and word in view.notes[0]
        kept.save(view) if language == "de" else view.save(10**6)
        view.close()
        if language == "en":
            view, _ = kept.view("en", 8)
            kept.ask(view)
            assert view.notes == []
            view.close()


def test_a_state_ahead_of_the_records_is_not_used(open_db: Open, tmp_path: Path) -> None:
    """The log lost its tail (durability="os", a power cut): the saved index knows labels that never were."""
    kept = Kept(open_db(dim=2), tmp_path / "view")
    other = NoPokeDB(dim=2, path=tmp_path / "other")
    other.add([1, 1], text="word number17")
    # Not in the collection's own folder, where its upkeep thread clears up.
    shutil.copytree(kept.text, tmp_path / "beside" / "text")
    view = TextView(tmp_path / "beside", "en", reader_of(other), 7)
    assert find(view, other, "word") == [0]
    assert "it is of lsn" in view.notes[0]
    view.close()
    other.close()


def test_nothing_beyond_the_durable_lsn_is_saved(kept: Kept) -> None:
    """A label that a power cut takes back may come again with another text."""
    view, _ = kept.view()
    kept.db.add([1, 1], text="word new")
    kept.ask(view)
    before = (kept.text / "state").read_bytes()
    lsn = kept.db._engine.snapshot().lsn  # type: ignore[attr-defined]
    assert not view.save(lsn - 1)
    assert (kept.text / "state").read_bytes() == before
    assert view.save(lsn)
    assert (kept.text / "state").read_bytes() != before
    view.close()


def test_without_hard_links_files_are_copied(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems such as FAT have none."""

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        view, reader = kept.view()
        kept.db.add([1, 1], text="word more")
        kept.ask(view)
        assert view.notes == [] and reader.starts[0] >= 40
        kept.save(view)
        view.close()


def test_dropping_removes_what_was_saved(kept: Kept) -> None:
    view, _ = kept.view()
    kept.ask(view)
    view.drop()
    assert list(kept.text.iterdir()) == []


# --- reading texts in pages ---------------------------------------------------------------------------------


def test_texts_come_in_bounded_pages(open_db: Open) -> None:
    """In label order, each once, within [start, stop), at most 512 texts or 4 Mi characters and one text a page."""
    db = open_db(dim=2)
    texts = [None if at % 3 == 0 else f"text {at}" for at in range(1_500)]
    db.add_many(np.ones((1_500, 2)), texts=texts)
    for size in (3_000_000, 3_000_000, 10):
        db.add([1, 1], text="x" * size)
    reader = reader_of(db)
    pages = list(reader.texts_between(5, 10**9))
    assert max(map(len, pages)) <= 512
    flat = [document for page in pages for document in page]
    assert [label for label, _ in flat] == [at for at in range(5, 1_503) if at >= 1_500 or at % 3]
    assert all(text == texts[label] for label, text in flat if label < 1_500)
    assert max(sum(len(text) for _, text in page) for page in pages) < 7_000_000
    assert [len(page) for page in reader.texts_between(1_500, 1_503)] == [2, 1]
    assert list(reader.texts_between(3, 4)) == list(reader.texts_between(9, 2)) == []


def test_a_damaged_text_is_not_indexed(open_db: Open, tmp_path: Path) -> None:
    """The text's own checksum is compared: damage is reported, not searched."""
    import apsw

    db = open_db(dim=2)
    db.add([1, 1], text="word")
    db.close()
    connection = apsw.Connection(str(next((tmp_path / "db").glob("metadata-*.db"))))
    connection.execute("UPDATE texts SET text='ward'")
    connection.close()
    db = open_db(dim=2)
    view = TextView(None, "en", reader_of(db))
    with pytest.raises(CorruptionError, match="label 0 is damaged"):
        find(view, db, "ward")
    view.close()


def test_a_large_build_is_bounded_in_memory(open_db: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts go from page to index one page at a time: never two pages at once."""
    db = open_db(dim=2)
    db.add_many(np.ones((3_000, 2)), texts=["word"] * 3_000)
    sizes: list[int] = []
    add = TextIndex.add

    def watched(self: TextIndex, documents: list[tuple[int, str]], *, bulk: bool = False) -> int:
        sizes.append(len(documents))
        assert bulk
        return add(self, documents, bulk=bulk)

    monkeypatch.setattr(TextIndex, "add", watched)
    monkeypatch.setattr(text_view, "BULK_TEXTS", 1_000)
    view = TextView(None, "en", reader_of(db))
    assert len(find(view, db, "word", 5_000)) == 3_000
    assert sizes == [512] * 5 + [440]
    view.close()
