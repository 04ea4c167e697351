"""What it is to be refused: the right error, in words that help, and nothing has changed afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from reading_back import EVERYTHING

from nopokedb import (
    NoPokeDB,
    NoPokeError,
)

DIM = 4
GOOD = [1.0, 2.0, 3.0, 4.0]
OTHER = [4.0, 3.0, 2.0, 1.0]
Call = Callable[[NoPokeDB], object]
Open = Callable[..., NoPokeDB]


def files_of(folder: Path) -> dict[str, bytes | None]:
    """Every file below the folder with its bytes; a folder counts as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def stored_files(folder: Path) -> dict[str, bytes | None]:
    """As `files_of` without LOCK, which says who opened last, also who tried to."""
    return {name: content for name, content in files_of(folder).items() if name != "LOCK"}


def state(db: NoPokeDB) -> dict[str, Any]:
    """All that a refused call must leave alone."""
    return {
        "count": db.count(),
        "lsn": db.stats().lsn,
        "records": [
            (type(record.id), record.id, json.dumps(record.metadata), record.vector.tobytes(), record.text)
            for record in db.scan(include=EVERYTHING)
            if record.vector is not None
        ],
        "log": files_of(Path(db.path) / "oplog"),
    }


def says_expected_and_got(error: BaseException) -> bool:
    return re.search(r"\bexpected .+\b(got|found|exists)\b", str(error), re.DOTALL) is not None


@contextmanager
def refused(db: NoPokeDB, kind: type[NoPokeError]) -> Iterator[None]:
    """The block raises exactly `kind`, says what was expected and what it got, and changes nothing."""
    before = state(db)
    with pytest.raises(kind) as caught:
        yield
    assert caught.type is kind, f"{caught.type.__name__}: {caught.value}"
    assert says_expected_and_got(caught.value), f"not expected/got: {caught.value}"
    assert not caught.value.committed
    assert state(db) == before
    assert db.add(OTHER) == 3, "the refused call used up an automatic id"
    assert state(db)["lsn"] == before["lsn"] + 1


def refused_by_all(
    db: NoPokeDB, kind: type[NoPokeError], entries: dict[str, Callable[[NoPokeDB, Any], object]], value: Any
) -> None:
    """As `refused`, for each of these calls with the same value; a failure names the calls."""
    before = state(db)
    wrong: dict[str, str] = {}
    for name, entry in entries.items():
        try:
            entry(db, value)
        except Exception as error:  # noqa: BLE001  # a stray error is what is reported
            if type(error) is not kind:
                wrong[name] = f"raised {type(error).__name__}: {error!s:.200}"
            elif not says_expected_and_got(error):
                wrong[name] = f"does not say expected and got: {error!s:.200}"
        else:
            wrong[name] = "accepted it"
        assert state(db) == before, f"{name} changed something"
    assert wrong == {}
    assert db.add(OTHER) == 3, "a refused call used up an automatic id"


def three_records(open_db: Open, space: str = "cosine") -> NoPokeDB:
    """Three records with automatic ids 0, 1, 2 and one with a str id."""
    database = open_db(dim=DIM, space=space)
    database.add_many([GOOD, OTHER, [1, 0, 0, 0]], [{"n": 0}, {"n": 1}, {"n": 2}], texts=["a", None, ""])
    database.add(GOOD, {"n": 3}, id="named")
    return database


def in_batch(call: Callable[[Any], object]) -> Call:
    """A call on `db.batch()`, behind a good write that must not be kept either."""

    def run(db: NoPokeDB) -> None:
        with db.batch() as batch:
            batch.upsert("named", OTHER, {"changed": True})
            call(batch)

    return run


def rows(**named: Any) -> list[Any]:
    """Parameters with their names as test ids."""
    return [pytest.param(value, id=name) for name, value in named.items()]
