"""A collection of a server behind `NoPokeDB`: the same answers and errors as of a folder, over each transport."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import nopokedb
from nopokedb import (
    AsyncNoPokeDB,
    ClosedError,
    CollectionNotFoundError,
    F,
    InvalidInputError,
    NoPokeDB,
    NoPokeError,
    NotSupportedError,
    OutcomeUnknownError,
    QueryTimeoutError,
    ReadOnlyError,
    SettingsMismatchError,
    UnavailableError,
    drop_collection,
    list_collections,
)
from nopokedb.copying import copy
from nopokedb.server.keys import create_key
from nopokedb.server.refusals import ForbiddenError, LimitError, UnauthorizedError
from nopokedb.where import parse_filter

from .process import ServerProcess

DIM = 6
TRANSPORTS = ("rest", "grpc")
EVERYTHING = ("metadata", "vector", "text")

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture
def open_there(shared: ServerProcess, transport: str) -> Iterator[Callable[..., NoPokeDB]]:
    """Opens one new collection of the module's server."""
    name = f"c{secrets.token_hex(6)}"
    opened: list[NoPokeDB] = []

    def open_(**arguments: Any) -> NoPokeDB:
        opened.append(NoPokeDB(path=shared.addresses[transport], collection=name, **arguments))
        return opened[-1]

    yield open_
    for db in opened:
        db.close()
    shared.request("DELETE", f"/{name}")


def fill(db: NoPokeDB, rng: np.random.Generator) -> None:
    """The same 60 records for the same generator."""
    vectors = rng.normal(size=(60, DIM)).astype(np.float32)
    ids: list[int | str] = [*range(-10, 40), *(f"id {n}/?ü" for n in range(9)), 2**63 - 1]
    metadatas = [{"n": n, "f": n / 4, "even": n % 2 == 0, "tags": [f"t{n % 3}", n % 5]} for n in range(60)]
    texts = [None if n % 7 == 0 else f"common word{n % 4} {'rare' if n % 13 == 0 else ''}" for n in range(60)]
    db.add_many(vectors, metadatas, ids=ids, texts=texts)
    db.delete_many([3, "id 4/?ü"])


QUESTIONS: list[dict[str, Any]] = [
    {"k": 7},
    {"k": 7, "include": EVERYTHING},
    {"k": 7, "include": ()},
    {"k": 100, "max_distance": 0.8},
    {"k": 5, "max_distance": float("-inf")},
    {"k": 5, "ef": 64},
    {"k": 5, "target_recall": 1.0},
    {"k": 9, "where": {"n": {"$gt": 10, "$lte": 50}, "even": True}},
    {"k": 9, "where": {"$or": [{"tags": {"$contains_any": ["t1", 3]}}, {"$not": {"f": {"$in": [1, 1.5]}}}]}},
    {"k": 9, "where": (F("n") > 3) & ~F("tags").contains("t0") | F("$id").startswith("id")},
    {"k": 9, "text": "rare common"},
    {"k": 9, "text": '+common -word1 "common word2" ra*', "highlight": True, "include": EVERYTHING},
    {"k": 9, "text": "common", "fusion": "weighted", "alpha": 0.3},
    {"k": 9, "diversity": 0.4},
    {"k": 3, "group_by": "tags", "group_size": 2},
    {"k": 3, "group_by": "$id"},
]


def test_queries_answer_like_a_folder(open_there: Callable[..., NoPokeDB], tmp_path: Path, seed: int) -> None:
    """Every option: the same hits with the same keys in the same order, to the last bit."""
    asked = np.random.default_rng(seed + 1).normal(size=(3, DIM)).astype(np.float32)
    with NoPokeDB(dim=DIM, path=tmp_path / "db") as ours, open_there(dim=DIM) as theirs:
        fill(ours, np.random.default_rng(seed))
        fill(theirs, np.random.default_rng(seed))
        for options in QUESTIONS:
            mine, found = ours.query(asked[0], **options), theirs.query(asked[0], **options)
            assert repr(found) == repr(mine), options
            assert repr(theirs.query_many(asked, **options)) == repr(ours.query_many(asked, **options)), options
        for options in ({"text": "rare"}, {"like": [1, "id 2/?ü"], "unlike": [2]}, {"like": [1], "text": "common"}):
            assert repr(theirs.query(**options)) == repr(ours.query(**options))
        texts = ["rare", "word1", "word2"]
        assert repr(theirs.query_many(asked, text=texts)) == repr(ours.query_many(asked, text=texts))
        for order, after, limit in itertools.product((None, "n", "-f", "-$id"), (None,), (None, 0, 7)):
            mine = list(ours.scan(order_by=order, after=after, limit=limit, include=EVERYTHING))
            found = list(theirs.scan(order_by=order, after=after, limit=limit, include=EVERYTHING))
            assert found == mine and [r.cursor for r in found] == [r.cursor for r in mine]
        for field in ("even", "tags", "f", "$id"):
            assert repr(theirs.facet(field, {"n": {"$gt": 5}}, limit=9)) == repr(
                ours.facet(field, {"n": {"$gt": 5}}, limit=9)
            )
        ours.snapshot("then"), theirs.snapshot("then")
        for db in (ours, theirs):
            db.update_many(where={"even": True}, metadata={"even": None, "new": 2**63})
            db.delete_many(where={"n": {"$lt": 20}})
        assert list(theirs.scan(include=EVERYTHING)) == list(ours.scan(include=EVERYTHING))
        then, same = theirs.at("then"), ours.at("then")
        assert then.count() == same.count() == 58 and list(then.scan()) == list(same.scan())
        assert repr(then.query(asked[1], k=5)) == repr(same.query(asked[1], k=5))
        assert theirs.explain(asked[0], k=3, where={"n": 1}).to_dict().keys() == ours.explain(asked[0]).to_dict().keys()
        assert theirs.measure_recall(10, 3).recall == 1.0


BAD: list[Callable[[NoPokeDB], object]] = [
    lambda db: db.add([1.0] * DIM, id=1),
    lambda db: db.add([1.0]),
    lambda db: db.add([float("nan")] * DIM),
    lambda db: db.add([1.0] * DIM, {"n": object()}),
    lambda db: db.add_many(np.ones((2, DIM)), ids=[5, 5]),
    lambda db: db.upsert(999, metadata={"no": "vector"}),
    lambda db: db.upsert_many([999, 1], texts=["new", None]),
    lambda db: db.delete_many(where={}),
    lambda db: db.update_many([1]),
    lambda db: db["absent"],
    lambda db: db.query([1.0] * DIM, k=0),
    lambda db: db.query("no model"),
    lambda db: db.query(like=["absent"]),
    lambda db: db.query([1.0] * DIM, where={"n": {"$what": 1}}),
    lambda db: db.at("nothing"),
    lambda db: db.drop_snapshot("nothing"),
    lambda db: db.rollback("nothing"),
    lambda db: db.create_index("$id"),
    lambda db: list(db.scan(order_by="n", after="no cursor")),
    lambda db: db.measure_recall(queries=np.zeros((1, DIM))),
]


def test_errors_are_those_of_a_folder(open_there: Callable[..., NoPokeDB], tmp_path: Path) -> None:
    """The same class with the same words, and nothing is changed."""
    with NoPokeDB(dim=DIM, path=tmp_path / "db") as ours, open_there(dim=DIM) as theirs:
        for db in (ours, theirs):
            db.add([1.0] * DIM, {"n": 1}, id=1)
        for number, call in enumerate(BAD):
            errors = []
            for db in (ours, theirs):
                with pytest.raises(NoPokeError) as caught:
                    call(db)
                errors.append(caught.value)
            # A folder is named by its path, a collection of a server by its name.
            words = str(errors[0]).replace(ours.path, theirs.path.rpartition("/")[2])
            assert [type(errors[1]), str(errors[1])] == [type(errors[0]), words], number
            assert theirs.count() == 1


def test_a_scan_is_of_one_state(open_there: Callable[..., NoPokeDB]) -> None:
    """That of its call, however long it takes; one that is left holds nothing up."""
    db = open_there(dim=DIM)
    db.add_many(np.ones((3000, DIM)))
    records = db.scan()
    db.delete_many(range(3000))
    assert next(records).id == 0 and db.count() == 0
    assert [record.id for record in records] == list(range(1, 3000))
    db.add_many(np.ones((3000, DIM)))
    left = [db.scan() for _ in range(5)]
    assert [next(scan).id for scan in left] == [3000] * 5
    for scan in left:
        scan.close()  # type: ignore[attr-defined]
    assert db.delete_many(where={"$id": {"$exists": True}}) == 3000
    server, _, name = db.path.rpartition("/")
    drop_collection(server, name)  # waits for whoever uses it, and gives up after a while


def test_opening_says_what_is_wrong(shared: ServerProcess, transport: str, open_there: Callable[..., NoPokeDB]) -> None:
    """Addresses, names and settings are judged as a folder's are."""
    url = shared.addresses[transport]
    open_there(dim=DIM, space="l2", indexed_fields=["a.b"])
    assert open_there().space == "l2" and open_there(dim=DIM, space="l2").path.startswith(url)
    with NoPokeDB(path=open_there().path) as again:
        assert again.dim == DIM and repr(again).startswith(f"<NoPokeDB {url}/c")
    for wrong in ({"dim": 3}, {"space": "ip"}, {"index": "exact"}, {"indexed_fields": ["c"]}, {"dim": DIM, "M": 40}):
        with pytest.raises(SettingsMismatchError):
            open_there(**{"space": "l2"} | wrong)
    with pytest.raises(CollectionNotFoundError):
        NoPokeDB(path=url, collection="absent")
    host = url.partition("://")[2]
    for path, name in ((url, None), (f"{url}/a", "b"), (f"{url}/a/b", None), (f"http://me:pw@{host}", "x")):
        with pytest.raises(InvalidInputError, match="expected"):
            NoPokeDB(path=path, collection=name)
    for options in ({"max_memory": 1}, {"embed": lambda texts: texts}, {"distributed": True}):
        with pytest.raises(NotSupportedError):
            open_there(**options)
    for options in ({"timeout_s": 0}, {"api_key": "a\nb"}):
        with pytest.raises(InvalidInputError):
            open_there(**options)


def test_collections_are_listed_and_dropped(shared: ServerProcess, transport: str) -> None:
    """As those of a folder."""
    url = shared.addresses[transport]
    names = [f"listed-{transport}-{n}" for n in range(2)]
    for name in names:
        NoPokeDB(path=url, collection=name, dim=DIM).close()
    assert [name for name in list_collections(url) if name.startswith(f"listed-{transport}")] == names
    drop_collection(url, names[0])
    assert names[0] not in list_collections(url) and names[1] in list_collections(url)
    with pytest.raises(CollectionNotFoundError):
        drop_collection(url, names[0])
    drop_collection(url, names[1])


def test_optimizing_is_a_job_that_tells_how_far_it_is(
    shared: ServerProcess, open_there: Callable[..., NoPokeDB], rng: np.random.Generator
) -> None:
    """Done when the call returns: what was deleted has given its space back. A reader may not."""
    db = open_there(dim=DIM)
    db.add_many(rng.normal(size=(3_000, DIM)))
    db.delete_many(range(1_000))
    seen: list[tuple[int, int]] = []
    db._engine.optimize(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2_000, 2_000) and all(0 <= done <= total == 2_000 for done, total in seen)
    assert db.stats().generation == 2 and db.stats().row_count == 2_000
    db.optimize(progress=True)
    jobs = [job for job in shared.client.get("/v1/jobs").json()["jobs"] if f"/{job['collection']}" in db.path]
    assert [(job["kind"], job["state"], job["progress"]) for job in jobs] == [("optimize", "done", 1.0)] * 2
    with pytest.raises(ReadOnlyError):
        open_there(read_only=True).optimize()


def test_records_are_sampled_and_settings_told(open_there: Callable[..., NoPokeDB], rng: np.random.Generator) -> None:
    """What measurements and copies ask an engine for."""
    given = {"space": "l2", "index": "hnsw", "M": 24, "ef_construction": 77, "text_language": "de"}
    db = open_there(dim=DIM, indexed_fields=["n"], **given)
    ids, vectors = db._engine.sample(5, None)
    assert ids == [] and vectors.shape == (0, DIM)
    stored = rng.normal(size=(50, DIM)).astype(np.float32)
    db.add_many(stored, [{"n": n % 2} for n in range(50)])
    ids, vectors = db._engine.sample(20, parse_filter({"n": 1}))
    assert len(set(ids)) == 20 and all(int(key) % 2 for key in ids)
    np.testing.assert_array_equal(vectors, stored[ids])
    assert db._engine.settings_given() == {"dim": DIM, "indexed_fields": ["n"], **given}


def test_a_collection_is_copied_to_a_server_and_back(
    shared: ServerProcess, transport: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Verified; settings come along; `check` takes the address too."""
    address = f"{shared.addresses[transport]}/copy-{transport}"
    with NoPokeDB(dim=DIM, path=tmp_path / "one", space="ip", indexed_fields=["n"]) as db:
        db.add_many(rng.normal(size=(300, DIM)), [{"n": n} for n in range(300)], texts=["words", None, ""] * 100)
    there = copy(str(tmp_path / "one"), address, verify=True)
    back = copy(address, str(tmp_path / "two"), verify=True)
    assert there.same and back.same and there.copied == back.copied == 300 and back.recall == 1.0
    with NoPokeDB(path=tmp_path / "one") as one, NoPokeDB(path=tmp_path / "two") as two:
        assert one._engine.settings_given() == two._engine.settings_given()
    assert nopokedb.check(address) == []
    with pytest.raises(NotSupportedError, match="folder"):
        nopokedb.check(address, repair=True)


def test_a_closed_or_read_only_handle_refuses(open_there: Callable[..., NoPokeDB]) -> None:
    open_there(dim=DIM).add([1.0] * DIM)
    reader = open_there(read_only=True)
    assert reader.count() == 1 and reader.stats().read_only
    for write in (lambda: reader.add([1.0] * DIM), reader.undo, reader.compact, lambda: reader.snapshot("s")):
        with pytest.raises(ReadOnlyError):
            write()
    reader.close()
    reader.close()
    for read in (reader.count, reader.refresh, reader.save, lambda: reader.get_many([]), reader.scan):
        with pytest.raises(ClosedError):
            read()


def test_jobs_are_waited_for(open_there: Callable[..., NoPokeDB]) -> None:
    """Check, compaction and backup return when they are done."""
    db = open_there(dim=DIM)
    db.add_many(np.random.default_rng(1).normal(size=(500, DIM)))
    db.delete_many(range(400))
    assert db.check() == [] and db.compact() >= 0 and db.count() == 100
    made = db.backup("first")
    assert (made.path, made.count, made.since_lsn) == ("first", 100, None)
    db.add([1.0] * DIM)
    assert db.backup("second", since="first").count == 1
    with pytest.raises(NoPokeError, match="first"):
        db.backup("first")


def test_a_model_of_the_server(open_there: Callable[..., NoPokeDB]) -> None:
    """Texts become vectors there, and a new text a new vector, unless that was given by hand."""
    db = open_there(embed="wordllama")
    assert db.dim == 256
    db.add(text="a cat on the sofa")
    db.add_many(texts=["rust and steel", "a tax return"])
    db.add(np.ones(256), text="by hand")
    assert db.query("kitten", k=1)[0].id == 0
    before = db.get_many([0, 3], include=("vector",))
    db.upsert_many([0, 3], texts=["metal", "metal"])
    after = db.get_many([0, 3], include=("vector",))
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]


def test_keys(transport: str, serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A key goes along with every call, and is worth what its role is."""
    file = tmp_path / "keys.json"
    keys = {role: create_key(file, role, role) for role in ("read", "write", "admin")}
    server = serve("--keys", str(file))
    url = server.addresses[transport]

    def opened(key: str | None, **arguments: Any) -> NoPokeDB:
        return NoPokeDB(path=url, collection="c", api_key=key, **arguments)

    for bad in (None, "npk_wrong"):
        with pytest.raises(UnauthorizedError):
            opened(bad)
    with pytest.raises(ForbiddenError):
        opened(keys["write"], dim=DIM)
    with opened(keys["admin"], dim=DIM) as db:
        db.create_index("n")
    with opened(keys["write"]) as db:
        db.add([1.0] * DIM)
        with pytest.raises(ForbiddenError, match="admin"):
            db.create_index("m")
    with opened(keys["read"]) as db:
        assert db.count() == 1 and len(list(db.scan())) == 1
        with pytest.raises(ForbiddenError, match="write"):
            db.add([1.0] * DIM)


def test_tls(
    transport: str, serve: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates are checked against those of SSL_CERT_FILE."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key, roots = (tmp_path / name for name in ("cert.pem", "key.pem", "roots.pem"))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(roots)
    server = serve("--tls-cert", str(cert), "--tls-key", str(key), trust=roots)
    url = server.addresses[transport]
    assert url.startswith(("https://", "grpcs://"))
    with pytest.raises(UnavailableError):
        NoPokeDB(path=url, collection="c", dim=DIM, timeout_s=1)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    with NoPokeDB(path=url, collection="c", dim=DIM) as db:
        assert db.add([1.0] * DIM) == 0
    with pytest.raises(UnavailableError):
        NoPokeDB(path=url.replace("s://", "://"), collection="c", timeout_s=1)


def test_the_limits_of_the_server_are_told(transport: str, serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-k", "10", "--max-batch", "5", "--max-body-bytes", "20000")
    with NoPokeDB(path=server.addresses[transport], collection="c", dim=DIM) as db:
        with pytest.raises(LimitError, match="max_k"):
            db.query([1.0] * DIM, k=11)
        with pytest.raises(LimitError, match="max_batch"):
            db.add_many(np.ones((6, DIM)))
        with pytest.raises(NoPokeError, match=r"20000|larger"):
            db.add([1.0] * DIM, text="x" * 30_000)
        assert db.count() == 0


# --- what fails on the way -----------------------------------------------------------------------------------


class Deaf:
    """A server that hears requests and does as it is told to: hang up, or say nothing."""

    def __init__(self, transport: str, hang_up: bool) -> None:
        self.heard = 0
        self._hang_up = hang_up
        self._held: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'http' if transport == 'rest' else 'grpc'}://127.0.0.1:{self._listening.getsockname()[1]}/c"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.recv(1000)
            self.heard += 1
            if self._hang_up:
                connection.close()
            else:
                self._held.append(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        for connection in self._held:
            connection.close()


def test_nobody_answers(transport: str) -> None:
    """An address where nothing listens, and servers that hang up or say nothing: errors in time, each after as many
    attempts as are safe."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"{'http' if transport == 'rest' else 'grpc'}://127.0.0.1:{unused.getsockname()[1]}/c"
        with pytest.raises(UnavailableError, match="cannot be reached"):
            NoPokeDB(path=url, timeout_s=0.5)
    deaf = Deaf(transport, hang_up=True)
    with pytest.raises(UnavailableError):
        NoPokeDB(path=deaf.url, timeout_s=0.8)
    assert deaf.heard > 1
    deaf.close()
    deaf = Deaf(transport, hang_up=False)
    with pytest.raises((QueryTimeoutError, UnavailableError)):
        NoPokeDB(path=deaf.url, timeout_s=0.5)
    deaf.close()


def test_a_server_that_is_started_again(transport: str, serve: Callable[..., ServerProcess]) -> None:
    """Reads wait for it. A write whose answer is lost is not sent twice: it is whole or absent."""
    server = serve()
    url = server.addresses[transport]
    flag = "--port" if transport == "rest" else "--grpc-port"
    db = NoPokeDB(path=url, collection="c", dim=DIM)
    db.add([1.0] * DIM)
    stop, errors, known = threading.Event(), [], []

    def write() -> None:
        while not stop.is_set():
            try:
                known.append(db.add([1.0] * DIM))
            except OutcomeUnknownError as error:
                errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    while len(known) < 20:
        pass
    server.process.kill()
    server.process.wait()
    read = threading.Thread(target=lambda: known.append(int(db.get(0) == {})))
    read.start()
    serve(flag, url.rpartition(":")[2])
    read.join(60)
    before = len(known)
    while len(known) < before + 5:
        pass
    stop.set()
    writer.join(60)
    assert not read.is_alive() and not writer.is_alive()
    assert len(errors) <= 3 and all("read before writing again" in str(error) for error in errors)
    count = db.count()
    assert len(known) <= count <= len(known) + len(errors), "a write was lost, or done twice"
    db.close()


def test_the_async_twin(shared: ServerProcess, transport: str, open_there: Callable[..., NoPokeDB]) -> None:
    """The same methods, many at once on one handle."""
    path = open_there(dim=DIM).path

    async def run() -> None:
        async with AsyncNoPokeDB(path=path) as db:
            ids = await asyncio.gather(*(db.add(np.eye(DIM)[n % DIM], {"n": n}) for n in range(30)))
            assert sorted(ids) == list(range(30)) and await db.count() == 30
            assert len(await db.query(np.eye(DIM)[0], k=3)) == 3
            assert [record.id async for record in db.scan(where={"n": {"$lt": 3}})] == sorted(
                [id_ for id_, n in zip(ids, range(30), strict=True) if n < 3]
            )
            async with db.batch() as batch:
                batch.delete(0)
                batch.add(np.ones(DIM))
            assert await db.count() == 30

    asyncio.run(run())
