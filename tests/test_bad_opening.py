"""Openings that are refused: arguments, paths, foreign folders, settings that disagree. Nothing has changed then."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c
import orjson
import pytest
from refusing import (
    DIM,
    GOOD,
    files_of,
    rows,
    says_expected_and_got,
    stored_files,
    three_records,
)

from nopokedb import (
    CollectionNotFoundError,
    InvalidInputError,
    LegacyFolderError,
    NewerFormatError,
    NoPokeDB,
    NoPokeError,
    NotADatabaseError,
    SettingsMismatchError,
    drop_collection,
    list_collections,
)

pytestmark = pytest.mark.engines
Open = Callable[..., NoPokeDB]


# --- nothing changed -----------------------------------------------------------------------------------------


@pytest.fixture
def db(open_db: Open, request: pytest.FixtureRequest) -> NoPokeDB:
    """Parametrise indirectly for the space."""
    return three_records(open_db, getattr(request, "param", "cosine"))


# --- opening -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    rows(
        dim_0={"dim": 0},
        dim_negative={"dim": -1},
        dim_too_large={"dim": 16_385},
        dim_bool={"dim": True},
        dim_float={"dim": 4.0},
        dim_str={"dim": "4"},
        dim_of_5000_digits={"dim": 10**5000},
        max_elements_negative={"max_elements": -1},
        max_elements_bool={"max_elements": True},
        max_elements_str={"max_elements": "100"},
        space_unknown={"space": "euclidean"},
        space_upper_case={"space": "L2"},
        space_none={"space": None},
        space_list={"space": ["l2"]},
        M_1={"M": 1},
        M_too_large={"M": 257},
        M_bool={"M": True},
        M_float={"M": 16.0},
        M_none={"M": None},
        ef_construction_0={"ef_construction": 0},
        ef_construction_too_large={"ef_construction": 10_001},
        ef_construction_str={"ef_construction": "200"},
        ef_0={"ef": 0},
        ef_bool={"ef": True},
        ef_float={"ef": 50.0},
        index_unknown={"index": "flat"},
        index_none={"index": None},
        durability_unknown={"durability": "none"},
        durability_bool={"durability": True},
        max_memory_negative={"max_memory": -1},
        max_memory_float={"max_memory": 1e9},
        collection_parent={"collection": "../x"},
        collection_dots={"collection": ".."},
        collection_hidden={"collection": ".x"},
        collection_dash={"collection": "-x"},
        collection_slash={"collection": "a/b"},
        collection_backslash={"collection": "a\\b"},
        collection_empty={"collection": ""},
        collection_129={"collection": "x" * 129},
        collection_absolute={"collection": "/absolute"},
        collection_nul={"collection": "a\0b"},
        collection_newline={"collection": "a\n"},
        collection_space={"collection": "a b"},
        collection_umlaut={"collection": "ä"},
        collection_number={"collection": 5},
        collection_bytes={"collection": b"x"},
    ),
)
def test_wrong_constructor_argument_is_refused(
    engine: dict[str, Any], tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """A wrong setting is named before anything exists."""
    with pytest.raises(InvalidInputError) as caught:
        NoPokeDB(**{"dim": DIM, **engine, **arguments})
    assert caught.type is InvalidInputError
    assert says_expected_and_got(caught.value)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize(
    "path",
    rows(
        file="file:///data",
        bucket="s3://bucket/data",
        empty="",
        nul="a\0b",
        nul_in_a_path=Path("a\0b"),
        number=5,
        none=None,
        bytes=b"folder",
    ),
)
@pytest.mark.parametrize("collection", [None, "x"])
def test_wrong_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, collection: str | None
) -> None:
    """A path that cannot be a folder here is refused, and no folder of that name appears."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        NoPokeDB(dim=DIM, path=path, collection=collection)
    assert says_expected_and_got(caught.value)
    with pytest.raises(InvalidInputError):
        list_collections(path)
    with pytest.raises(InvalidInputError):
        drop_collection(path, "x")
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("name", ["../x", "..", ".x", "a/b", "", "x" * 129, "/absolute", "a\0b", None, 5])
def test_dropping_a_wrong_name_is_refused(tmp_path: Path, name: Any) -> None:
    """No name reaches outside of the folder, and none means the folder itself."""
    for folder in (tmp_path / "home", tmp_path / "x"):
        NoPokeDB(dim=DIM, path=folder).close()
    before = files_of(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        drop_collection(tmp_path / "home", name)
    assert says_expected_and_got(caught.value)
    assert files_of(tmp_path) == before


def test_dropping_a_missing_collection_is_refused(engine: dict[str, Any], tmp_path: Path) -> None:
    """It says that there is none, and creates nothing."""
    for name in ("absent", engine.get("collection", "db")):
        with pytest.raises(CollectionNotFoundError, match=r"expected a collection .* found none"):
            drop_collection(engine["path"], name)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("read_only", [False, True])
def test_missing_collection_without_dim_is_refused(
    open_db: Open, engine: dict[str, Any], tmp_path: Path, read_only: bool
) -> None:
    """Without `dim` nothing is created; the message shows how to create."""
    with pytest.raises(CollectionNotFoundError, match=r"expected a collection .* found none.*dim="):
        open_db(read_only=read_only)
    assert files_of(tmp_path) == {} and engine.get("collection") not in list_collections(engine["path"])


def test_missing_collection_read_only_is_refused_even_with_dim(
    open_db: Open, engine: dict[str, Any], tmp_path: Path
) -> None:
    """A reader creates nothing."""
    with pytest.raises(CollectionNotFoundError):
        open_db(dim=DIM, read_only=True)
    assert files_of(tmp_path) == {} and engine.get("collection") not in list_collections(engine["path"])


OPENINGS: dict[str, dict[str, Any]] = {
    "writing": {"dim": DIM},
    "existing": {},
    "read_only": {"read_only": True},
}


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
@pytest.mark.parametrize("names", [["notes.txt"], ["a", "b", "c"], [".git"], ["data.db"], ["LOCK", "something_else"]])
def test_folder_with_other_files_is_left_untouched(tmp_path: Path, arguments: dict[str, Any], names: list[str]) -> None:
    """A folder that somebody else uses is refused by name and stays as it is, to the byte."""
    path = tmp_path / "theirs"
    path.mkdir()
    for name in names:
        (path / name).write_bytes(name.encode() * 100)
    before = files_of(path)
    with pytest.raises(NotADatabaseError, match=r"expected .* found ") as caught:
        NoPokeDB(path=path, **arguments)
    assert caught.type is NotADatabaseError
    assert files_of(path) == before


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
def test_file_as_path_is_left_untouched(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """A file is no folder."""
    path = tmp_path / "file"
    path.write_bytes(b"something")
    with pytest.raises(NotADatabaseError, match="expected a folder, got the file"):
        NoPokeDB(path=path, **arguments)
    assert path.read_bytes() == b"something"


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
def test_path_below_a_file_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Nor can a collection lie below a file."""
    (tmp_path / "file").write_bytes(b"something")
    with pytest.raises((NotADatabaseError, CollectionNotFoundError)):
        NoPokeDB(path=tmp_path / "file" / "below", **arguments)
    assert files_of(tmp_path) == {"file": b"something"}


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"name": "an app", "icons": []}', b"[]", b'{"manifest": {}}', b"\xff\x00"]
)
def test_folder_with_a_foreign_manifest_is_left_untouched(
    tmp_path: Path, arguments: dict[str, Any], content: bytes
) -> None:
    """Others have a manifest.json too: whatever the error, their folder stays as it is."""
    path = tmp_path / "theirs"
    path.mkdir()
    (path / "manifest.json").write_bytes(content)
    (path / "index.html").write_bytes(b"hello")
    before = files_of(path)
    with pytest.raises(NoPokeError):
        NoPokeDB(path=path, **arguments)
    assert files_of(path) == before


def make_original_folder(path: Path, names: tuple[str, ...]) -> None:
    """Files as the original package (0.5.1) leaves them."""
    path.mkdir()
    if "hnsw_index.bin" in names:
        (path / "hnsw_index.bin").write_bytes(bytes(range(96)))
    if "oplog.jsonl" in names:
        (path / "oplog.jsonl").write_text('{"t": "add", "id": 0, "vec": [1, 2, 3, 4], "md": {}}\n')
    if "metadata.db" in names:
        connection = sqlite3.connect(path / "metadata.db")
        connection.execute("CREATE TABLE metadata (id INTEGER PRIMARY KEY, data TEXT NOT NULL)")
        connection.execute("INSERT INTO metadata VALUES (0, '{}')")
        connection.commit()
        connection.close()


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
@pytest.mark.parametrize(
    "names",
    [
        ("hnsw_index.bin", "oplog.jsonl", "metadata.db"),
        ("oplog.jsonl", "metadata.db"),
        ("hnsw_index.bin",),
        ("oplog.jsonl",),
        ("metadata.db",),
    ],
)
def test_folder_of_the_original_package_is_left_untouched(
    tmp_path: Path, arguments: dict[str, Any], names: tuple[str, ...]
) -> None:
    """It is recognised by any of its files, named for what it is, with the command that imports it."""
    path = tmp_path / "original"
    make_original_folder(path, names)
    before = files_of(path)
    with pytest.raises(LegacyFolderError) as caught:
        NoPokeDB(path=path, **arguments)
    assert str(path) in str(caught.value)
    assert "original" in str(caught.value)
    assert "nopokedb import-legacy" in str(caught.value)
    assert files_of(path) == before


@pytest.mark.parametrize("arguments", rows(**OPENINGS))
def test_folder_of_a_newer_version_is_left_untouched(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """A format we do not know is never guessed at; both versions are named."""
    path = tmp_path / "newer"
    with NoPokeDB(dim=DIM, path=path) as db:
        db.add(GOOD)
    manifest = path / "manifest.json"
    fields = orjson.loads(manifest.read_bytes())["manifest"]
    ours = fields["format"]
    fields["format"] = 999
    fields["something_new"] = ["that", "we", "cannot", "read"]
    manifest.write_bytes(orjson.dumps({"crc32c": google_crc32c.value(orjson.dumps(fields)), "manifest": fields}))
    before = files_of(path)
    with pytest.raises(NewerFormatError) as caught:
        NoPokeDB(path=path, **arguments)
    assert "999" in str(caught.value)
    assert re.search(rf"\b{ours}\b", str(caught.value).replace(str(path), ""))
    assert files_of(path) == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("name", "stored", "given"),
    [
        ("dim", DIM, DIM + 1),
        ("space", "l2", "ip"),
        ("space", "l2", "cosine"),
        ("M", 32, 8),
        ("ef_construction", 100, 300),
        ("index", "scan", "graph"),
        ("index", "auto", "hnsw"),
        ("M", 16, 32),
        ("ef_construction", 200, 100),
    ],
)
def test_setting_that_disagrees_with_the_stored_one_is_refused(
    open_db: Open, read_only: bool, name: str, stored: Any, given: Any
) -> None:
    """The message names the setting, the stored value and the given one; the collection stays."""
    with open_db(**{"dim": DIM, name: stored}) as db:
        db.add(GOOD)
    before = stored_files(Path(db.path))
    with pytest.raises(SettingsMismatchError) as caught:
        open_db(**{"dim": DIM, "read_only": read_only, name: given})
    message = str(caught.value)
    assert f"{name}={stored!r}" in message and f"{name}={given!r}" in message
    assert says_expected_and_got(caught.value)
    assert stored_files(Path(db.path)) == before
    for again in ({"read_only": True}, {}):
        with open_db(**again) as db:
            assert db.count() == 1


def test_setting_that_disagrees_is_refused_without_dim(open_db: Open) -> None:
    """Opening an existing collection without `dim` still checks what was asked for."""
    db = open_db(dim=DIM, space="l2")
    db.close()
    before = stored_files(Path(db.path))
    for arguments in ({"space": "ip"}, {"M": 32}, {"index": "exact"}):
        with pytest.raises(SettingsMismatchError):
            open_db(**arguments)
    assert stored_files(Path(db.path)) == before


def test_settings_left_at_their_defaults_ask_for_nothing(open_db: Open) -> None:
    """A collection opens without repeating how it was made."""
    open_db(dim=DIM, space="ip", M=8, ef_construction=50, index="graph").close()
    with open_db() as db:
        assert (db.dim, db.space, db.stats().index) == (DIM, "ip", "graph")


def test_newest_time_that_utc_holds_is_accepted(db: NoPokeDB) -> None:
    """The borders of the calendar are inside it."""
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        db.upsert(0, metadata={"at": moment})
    assert db.get(0) == {"at": "9999-12-31T23:59:59.999999Z"}
