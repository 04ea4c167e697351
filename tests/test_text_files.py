"""The saved text index: what a reopening reads of it, and what damage to it costs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from watching import Watched, find, reader_of

from nopokedb import NoPokeDB
from nopokedb.embedded.text_view import TextView

Open = Callable[..., NoPokeDB]


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
