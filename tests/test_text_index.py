"""The text index of a handle equals the live texts at every moment, whatever fails or ends meanwhile."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from watching import Watched, find, reader_of

from nopokedb import NoPokeDB
from nopokedb.embedded import text_view
from nopokedb.embedded.search.text import TextIndex
from nopokedb.embedded.text_view import TextView
from nopokedb.errors import ClosedError, CorruptionError
from nopokedb.text_query import parse_text_query as parse

Open = Callable[..., NoPokeDB]


# --- the view ------------------------------------------------------------------------------------------------


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


# --- reading texts in pages ----------------------------------------------------------------------------------


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
