"""Folders of collections: what is listed, what is dropped, and what is left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nopokedb import (
    CollectionNotFoundError,
    DatabaseLockedError,
    NoPokeDB,
    NoPokeError,
    drop_collection,
    list_collections,
)

DIM = 4
A = [1.0, 2.0, 3.0, 4.0]


@dataclass(frozen=True)
class Home:
    """Where collections are, and how the names of this test begin there: databases and servers are shared."""

    path: Any
    prefix: str

    def names(self) -> list[str]:
        """Names of this test's collections, without what they begin with."""
        found = list_collections(self.path)
        assert found == sorted(found)
        return [name.removeprefix(self.prefix) for name in found if name.startswith(self.prefix)]


@pytest.fixture
def home(engine: dict[str, Any], tmp_path: Path) -> Iterator[Home]:
    """Empty at first, and again at the end."""
    if "collection" not in engine:
        yield Home(tmp_path, "")
        return
    found = Home(engine["path"], f"{engine['collection']}-")
    yield found
    for name in found.names():
        drop_collection(found.path, found.prefix + name)


def make(path: Any, name: str, count: int = 1) -> None:
    with NoPokeDB(dim=DIM, path=path, collection=name) as db:
        for n in range(count):
            db.add(A, {"in": name, "n": n})


def files_of(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.engines
def test_collections_are_listed_by_name(home: Home) -> None:
    """Sorted, while open and closed; each opens under its name and holds its own records."""
    assert home.names() == []
    longest = "x" * (128 - len(home.prefix))
    expected = ["0", "a", "b", "with.dots-and_dashes", longest]
    for name in ("b", "a", "with.dots-and_dashes", "0", longest):
        make(home.path, home.prefix + name)
    assert home.names() == expected
    for name in expected:
        with NoPokeDB(path=home.path, collection=home.prefix + name) as db:
            assert db.get(0) == {"in": home.prefix + name, "n": 0} and db.count() == 1
            assert db.path.endswith(name) and home.names() == expected


def test_missing_folder_has_no_collections(tmp_path: Path) -> None:
    """Nothing is created by looking."""
    assert list_collections(tmp_path / "missing") == []
    assert files_of(tmp_path) == {}


def test_what_is_no_collection_is_not_listed(tmp_path: Path) -> None:
    """Files, empty folders, folders of others, and a collection further down."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("x")
    make(tmp_path / "empty", "deeper")
    make(tmp_path, "ours")
    assert list_collections(tmp_path) == ["ours"]
    assert list_collections(tmp_path / "empty") == ["deeper"]
    assert list_collections(tmp_path / "file") == []


def test_collection_of_a_folder_is_the_folder_below_it(tmp_path: Path) -> None:
    """`collection="x"` at a path is the path's folder x."""
    make(tmp_path, "x", 3)
    with NoPokeDB(path=tmp_path / "x") as db:
        assert db.count() == 3


@pytest.mark.engines
def test_dropped_collection_is_gone(home: Home) -> None:
    """Its folder too; the others stay as they are."""
    first, other = (home.prefix + name for name in "ab")
    make(home.path, first, 3)
    make(home.path, other, 2)
    others = files_of(Path(home.path) / other)
    drop_collection(home.path, first)
    assert home.names() == ["b"]
    assert not (Path(home.path) / first).exists() and files_of(Path(home.path) / other) == others
    with NoPokeDB(path=home.path, collection=other) as db:
        assert [record.metadata for record in db.scan()] == [{"in": other, "n": n} for n in range(2)]
    with pytest.raises(CollectionNotFoundError):
        NoPokeDB(path=home.path, collection=first)
    with pytest.raises(CollectionNotFoundError):
        drop_collection(home.path, first)


@pytest.mark.engines
def test_dropped_collection_can_be_made_anew(home: Home) -> None:
    """With other settings, empty, and with ids from the start."""
    name = f"{home.prefix}a"
    make(home.path, name, 3)
    drop_collection(home.path, name)
    with NoPokeDB(dim=2, path=home.path, collection=name, space="l2") as db:
        assert db.count() == 0
        assert db.add([1.0, 2.0]) == 0


def test_open_collection_is_not_dropped(tmp_path: Path) -> None:
    """The error names the process that has it open; nothing is harmed."""
    with NoPokeDB(dim=DIM, path=tmp_path, collection="a") as db:
        db.add(A)
        before = files_of(tmp_path)
        with pytest.raises(DatabaseLockedError) as caught:
            drop_collection(tmp_path, "a")
        assert caught.value.pid == os.getpid() and str(os.getpid()) in str(caught.value)
        assert files_of(tmp_path) == before
        assert db.add(A) == 1 and list_collections(tmp_path) == ["a"]
    drop_collection(tmp_path, "a")
    assert list_collections(tmp_path) == []


def test_unfinished_write_is_no_hindrance_to_a_drop(tmp_path: Path) -> None:
    """A collection that its last writer did not close is dropped without being recovered first."""
    make(tmp_path, "a")
    (tmp_path / "a" / "oplog" / "garbage.tmp").write_bytes(b"half a write")
    drop_collection(tmp_path, "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "an app", "icons": []}', b'{"manifest": {"format": 1}}'])
@pytest.mark.parametrize("with_oplog", [False, True])
def test_folder_with_a_foreign_manifest_is_neither_listed_nor_dropped(
    tmp_path: Path, content: bytes, with_oplog: bool
) -> None:
    """Web apps and browser extensions have a manifest.json as well: theirs is never deleted."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_bytes(content)
    (tmp_path / "app" / "index.html").write_text("hello")
    if with_oplog:
        (tmp_path / "app" / "oplog").mkdir()
    before = files_of(tmp_path)
    with pytest.raises(NoPokeError):
        drop_collection(tmp_path, "app")
    assert files_of(tmp_path) == before
    assert list_collections(tmp_path) == []


def test_drop_of_a_linked_folder_harms_nothing(tmp_path: Path) -> None:
    """A symbolic link to a collection elsewhere: dropped or refused, but never half of it."""
    make(tmp_path / "elsewhere", "a", 2)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    try:
        drop_collection(tmp_path / "links", "a")
    except NoPokeError:
        with NoPokeDB(path=tmp_path / "elsewhere", collection="a") as db:
            assert db.count() == 2
    else:
        assert list_collections(tmp_path / "links") == []


@pytest.mark.parametrize("name", ["inner", "index", "oplog", "text"])
def test_collection_inside_of_another_one_is_refused_or_safe(tmp_path: Path, name: str) -> None:
    """A folder that is a collection may be given as a folder of collections by mistake. Whatever is accepted then
    must still be there after the outer collection was opened again."""
    with NoPokeDB(dim=DIM, path=tmp_path / "outer") as outer:
        outer.add(A)
    try:
        make(tmp_path / "outer", name, 2)
    except NoPokeError:
        assert list_collections(tmp_path / "outer") == []
    else:
        with NoPokeDB(path=tmp_path / "outer") as outer:
            assert outer.count() == 1
        with NoPokeDB(path=tmp_path / "outer", collection=name) as inner:
            assert inner.count() == 2
    with NoPokeDB(path=tmp_path / "outer") as outer:
        assert outer.count() == 1
