"""The PostgreSQL engine on a real server: batches over connections that break, and openings that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

import nopokedb
from nopokedb import (
    ClosedError,
    CollectionNotFoundError,
    DuplicateIdError,
    ForkedHandleError,
    InvalidInputError,
    NewerFormatError,
    NoPokeDB,
    NotADatabaseError,
    NotSupportedError,
    QueryTimeoutError,
    ReadOnlyError,
    SettingsMismatchError,
    UnavailableError,
    list_collections,
)
from nopokedb.postgres import codec, schema
from nopokedb.postgres.connections import redacted

pytestmark = pytest.mark.engines("postgres")
Open = Callable[..., NoPokeDB]


def session(db: NoPokeDB, engine: dict[str, Any]) -> psycopg.Connection[Any]:
    return psycopg.connect(engine["path"], autocommit=True)


# --- batches -------------------------------------------------------------------------------------------------


def test_a_batch_is_written_once_however_often_the_connection_breaks(open_db: Open, engine: dict[str, Any]) -> None:
    """Backends are ended all the time while four threads write; each batch is there exactly once."""
    db = open_db(dim=1, space="l2")
    done = threading.Event()
    errors: list[BaseException] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 25):
                if number % 2:
                    db.add([1], {"n": number}, text="word")
                else:
                    db.upsert_many([f"{number}-{at}" for at in range(3)], [[1]] * 3, [{"n": number}] * 3)
        except BaseException as error:  # noqa: BLE001  # told below
            errors.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in range(0, 100, 25)]

    def end_backends() -> None:
        with psycopg.connect(engine["path"], autocommit=True) as connection:
            while not done.wait(0.02):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nopokedb' "
                    "AND state <> 'idle' AND pid <> pg_backend_pid()"
                )

    ending = threading.Thread(target=end_backends)
    ending.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    ending.join()
    assert not errors
    counts = dict(db.facet("n", limit=1_000))
    assert counts == {number: 1 if number % 2 else 3 for number in range(100)}
    assert db.check() == []


def test_an_unknown_outcome_is_looked_up(open_db: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is done but its answer is lost: the batch is not written again, and its ids are returned."""
    db = open_db(dim=1, space="l2")
    writer = db._engine._writer  # type: ignore[attr-defined]
    add_one, transaction = writer._add_one, psycopg.Connection.transaction

    def lost(connection: Any) -> psycopg.OperationalError:
        monkeypatch.undo()
        connection.close()
        return psycopg.OperationalError("the answer was lost")

    def add_and_lose(connection: Any, *arguments: Any) -> Any:
        add_one(connection, *arguments)
        raise lost(connection)

    @contextmanager
    def commit_and_lose(connection: Any) -> Iterator[None]:
        with transaction(connection):
            yield
        raise lost(connection)

    monkeypatch.setattr(writer, "_add_one", add_and_lose)
    assert db.add([1], {"n": 1}) == 0
    monkeypatch.setattr(psycopg.Connection, "transaction", commit_and_lose)
    assert db.add_many([[1], [2]], [{"n": 2}, {"n": 3}]) == [1, 2]
    assert [record.metadata for record in db.scan()] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_an_attempt_that_comes_through_late(open_db: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt commits after its key was looked up: its ids are no duplicates of the second one's."""
    db = open_db(dim=1, space="l2")
    connections = db._engine._connections  # type: ignore[attr-defined]
    give_back, transaction = connections.give_back, psycopg.Connection.transaction
    held: list[Any] = []

    @contextmanager
    def commit_late(connection: Any) -> Iterator[None]:
        if held:
            threading.Timer(0.2, held[0].execute, ("COMMIT",)).start()  # while the second attempt waits for it
            with transaction(connection):
                yield
            return
        held.append(connection)
        connection.execute("BEGIN")
        yield
        raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(psycopg.Connection, "transaction", commit_late)
    monkeypatch.setattr(connections, "give_back", lambda item: None if item in held else give_back(item))
    assert db.add_many([[1], [2]], [{"n": 1}, {"n": 2}], ids=["a", "b"]) == ["a", "b"]
    monkeypatch.undo()
    assert [record.metadata for record in db.scan()] == [{"n": 1}, {"n": 2}]
    connections.give_back(held[0])


def test_writers_that_meet_at_an_id(open_db: Open) -> None:
    """Of two that add one wins; merges of many are all there; automatic ids never meet ids given elsewhere."""
    db, other = open_db(dim=1, space="l2"), open_db()
    db.add([1], id=7)
    with pytest.raises(DuplicateIdError, match="7"):
        other.add_many([[1], [1]], ids=[8, 7])
    assert other.add([1]) == 8 and db.add([1]) == 9

    def merge(handle: NoPokeDB, name: str) -> None:
        for number in range(15):
            handle.upsert(7, metadata={f"{name}{number}": 1}, merge=True)
            handle.upsert(f"new{number}", [1], {name: 1}, merge=True)

    threads = [threading.Thread(target=merge, args=(h, n)) for h, n in ((db, "a"), (other, "b"), (db, "c"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(db.get(7) or ()) == 45
    assert all(db.get(f"new{number}") == {"a": 1, "b": 1, "c": 1} for number in range(15))


def test_old_keys_of_batches_are_folded(open_db: Open, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics that they carry stay."""
    monkeypatch.setattr("nopokedb.postgres.writing._FOLD_AGE", "-1 hour")
    db = open_db(dim=1, space="l2")
    for number in range(5):
        db.add([1], text=f"word {number}")
    before, lsn = db.query(text="word"), db.stats().lsn
    db.compact()
    with session(db, engine) as connection:
        number = db._engine._collection.number  # type: ignore[attr-defined]
        rows = connection.execute(
            sql.SQL("SELECT count(*) FROM nopokedb.{}").format(sql.Identifier(f"batches_{number}"))
        )
        assert rows.fetchone() == (1,)
    assert db.query(text="word") == before and db.stats().lsn == lsn and db.check() == []


# --- opening -------------------------------------------------------------------------------------------------


def test_settings_that_disagree_are_refused(open_db: Open, engine: dict[str, Any]) -> None:
    open_db(dim=2, space="l2", text_language="de").close()
    for wrong in ({"dim": 3}, {"space": "ip"}, {"text_language": "fr"}, {"M": 8}, {"indexed_fields": ["a"]}):
        with pytest.raises(SettingsMismatchError, match="expected"):
            open_db(**{"dim": 2, "space": "l2", **wrong})
    with pytest.raises(CollectionNotFoundError, match="nobody"):
        NoPokeDB(path=engine["path"], collection="nobody")
    with pytest.raises(InvalidInputError, match="collection="):
        NoPokeDB(dim=2, path=engine["path"])
    assert engine["collection"] in list_collections(engine["path"])
    with NoPokeDB(path=f"{engine['path']}#{engine['collection']}") as db:
        assert (db.dim, db.space) == (2, "l2")


def test_a_read_only_handle_writes_nothing(open_db: Open) -> None:
    db = open_db(dim=1, space="l2")
    db.add([1])
    reader = open_db(read_only=True)
    assert len(reader) == 1
    for write in (lambda: reader.add([1]), reader.compact, lambda: reader.create_index("a"), reader.save):
        with pytest.raises(ReadOnlyError):
            write()


def test_tables_of_other_versions(open_db: Open, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer ones are refused, older ones brought here in one step or refused."""
    db = open_db(dim=1, space="l2")
    db.add([1])
    name = engine["collection"]
    with session(db, engine) as connection:
        change = "UPDATE nopokedb.collections SET version = %s WHERE name = %s"
        connection.execute(change, (schema.VERSION + 1, name))
        with pytest.raises(NewerFormatError, match=f"version {schema.VERSION + 1}"):
            open_db()
        connection.execute(change, (schema.VERSION - 1, name))
        with pytest.raises(NotADatabaseError, match=f"version {schema.VERSION - 1}"):
            open_db()
        step = "ALTER TABLE {records} ADD COLUMN added_later int"
        monkeypatch.setattr(schema, "_MIGRATIONS", {schema.VERSION - 1: step})
        assert len(open_db()) == 1
        assert connection.execute("SELECT version FROM nopokedb.collections WHERE name = %s", (name,)).fetchone() == (
            schema.VERSION,
        )


def test_a_statement_that_takes_too_long(open_db: Open, engine: dict[str, Any]) -> None:
    """A write that waits for somebody's lock ends with the handle's patience, and changes nothing."""
    db = open_db(dim=1, space="l2", timeout_s=1)
    db.add([1], {"n": 1})
    with session(db, engine) as connection:
        table = sql.Identifier("nopokedb", f"records_{db._engine._collection.number}")  # type: ignore[attr-defined]
        with connection.transaction():
            connection.execute(sql.SQL("SELECT FROM {} FOR UPDATE").format(table))
            with pytest.raises(QueryTimeoutError, match="timeout_s=1"):
                db.upsert(0, metadata={"n": 2})
    assert db.get(0) == {"n": 1}


def test_a_server_that_is_not_there() -> None:
    """Soon, in words, and without the password."""
    with pytest.raises(UnavailableError, match=r"nobody@127\.0\.0\.1") as caught:
        NoPokeDB(dim=1, path="postgresql://nobody:geheim@127.0.0.1:1/none", collection="x", timeout_s=0.5)
    assert "geheim" not in str(caught.value)
    with pytest.raises(InvalidInputError) as refused:
        NoPokeDB(dim=1, path="postgresql://u:gehe%im@h/d?what=1", collection="x")
    assert "gehe" not in str(refused.value)


def test_a_handle_is_not_used_after_a_fork(open_db: Open) -> None:
    """The child gets an error in words, and the parent's connections stay what they were."""
    db = open_db(dim=1, space="l2")
    db.add([1])
    pid = os.fork()
    if pid == 0:
        try:
            db.add([2])
        except ForkedHandleError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert db.add([3]) == 1 and len(db) == 2


def test_a_closed_handle(open_db: Open) -> None:
    db = open_db(dim=1, space="l2")
    db.add_many([[1]] * 1_500)
    scan = db.scan()
    next(scan)
    db.close()
    db.close()
    for call in (lambda: db.get(0), lambda: db.add([1]), lambda: db.count(), lambda: db.query([1])):
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(db)


def test_the_shown_address_has_no_password() -> None:
    shown = redacted("postgresql://me:geheim@one:5432,two:5433/db?target_session_attrs=read-write")
    assert shown == "postgresql://me@one:5432,two:5433/db"
    assert redacted("postgresql:///db?host=/tmp/x") == "postgresql:///db?host=/tmp/x"


def test_without_the_driver_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['psycopg_pool'] = None; import nopokedb\n"
        "try: nopokedb.NoPokeDB(dim=1, path='postgresql://h/d', collection='c')\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[postgres]" in run.stdout


def test_check_finds_what_was_changed_behind_its_back(open_db: Open, engine: dict[str, Any]) -> None:
    db = open_db(dim=1, space="l2")
    db.add_many([[1], [2], [3]], [{"n": 1}] * 3, texts=["one", "two", None])
    assert db.check() == []
    with session(db, engine) as connection:
        table = sql.Identifier("nopokedb", f"records_{db._engine._collection.number}")  # type: ignore[attr-defined]
        connection.execute(
            sql.SQL("UPDATE {} SET fields = '{{\"n\": 2}}' WHERE id = %s").format(table), (codec.key_of(0),)
        )
        connection.execute(sql.SQL("UPDATE {} SET document = 'other' WHERE id = %s").format(table), (codec.key_of(1),))
        connection.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(table), (codec.key_of(0),))
        connection.execute(
            sql.SQL("UPDATE {} SET fields = '{{\"n\": 2}}' WHERE id = %s").format(table), (codec.key_of(2),)
        )
    assert {problem.kind for problem in db.check()} == {"text", "field_index"}
    assert {problem.kind for problem in db.check(deep=False)} == {"text"}
    address = f"{engine['path']}#{engine['collection']}"
    assert nopokedb.check(address) == db.check()
    with pytest.raises(NotSupportedError, match="repair"):
        nopokedb.check(address, repair=True)
